"""The version of this distribution, readable without importing any package metadata."""

VERSION = "0.1.0"
