#!/bin/sh
echo "$PWD $VERSION $(cat words)"
