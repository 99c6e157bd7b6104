package main

import (
	"fmt"

	"example.org/hello/greet"
)

var version = "unknown"

func main() { fmt.Println(greet.For("world"), version) }
