"""The command `bay`: reads the stack where the person stands and talks to the daemon."""
