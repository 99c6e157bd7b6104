"""System calls: thin, typed wrappers, one module per family of man pages. ctypes lives here alone."""
