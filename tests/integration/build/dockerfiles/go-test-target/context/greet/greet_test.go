package greet

import "testing"

func TestFor(t *testing.T) {
	if For("x") != "hello, x" {
		t.Fatal(For("x"))
	}
}
