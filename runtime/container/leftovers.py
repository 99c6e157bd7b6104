"""What is left in a container's pipes, or its terminal, once its first process has ended."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import termios
from collections.abc import Iterator

_CHUNK = 64 * 1024

# What a terminal has on its way to us is not counted: at most 64 KiB (tty_buffer.c).
_TERMINAL = 128 * 1024


def leftovers(fd: int) -> Iterator[bytes]:
    """No more than is there now, as somebody outside may hold the other end open, and write on."""
    with contextlib.suppress(OSError):
        # A terminal's is shared with clients, who may have changed that.
        os.set_blocking(fd, False)
        size = array.array("i", [0])
        fcntl.ioctl(fd, termios.FIONREAD, size)
        left = size[0] + (_TERMINAL if os.isatty(fd) else 0)
        while left > 0 and (chunk := os.read(fd, min(left, _CHUNK))):
            yield chunk
            left -= len(chunk)
