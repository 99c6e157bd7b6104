package greet

// For gives the greeting for a name.
func For(name string) string { return "hello, " + name }
