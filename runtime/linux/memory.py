"""What the C library keeps of freed memory: mallopt(3), malloc_trim(3). glibc alone has these."""

from __future__ import annotations

import ctypes

from runtime.linux import libc

_M_ARENA_MAX = -8
_M_TRIM_THRESHOLD = -1


def limit_arenas(count: int) -> None:
    """Have all threads share so many heaps, where each would get one of its own.

    To be called before the first thread starts. Python allocates under its own lock anyway.
    """
    mallopt = getattr(libc.libc, "mallopt", None)
    if mallopt is not None:
        mallopt(ctypes.c_int(_M_ARENA_MAX), ctypes.c_int(count))
        mallopt(ctypes.c_int(_M_TRIM_THRESHOLD), ctypes.c_int(128 * 1024))


def give_back() -> None:
    """Return what is free to the kernel."""
    trim = getattr(libc.libc, "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
