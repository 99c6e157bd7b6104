"""System calls: thin, typed wrappers, one module per family of man pages.

ctypes lives in this package alone. Nothing here decides anything.
"""
