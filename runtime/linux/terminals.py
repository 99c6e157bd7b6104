"""Pseudo-terminals: pts(4), ioctl_tty(2)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from runtime.linux.mounts import filesystem_type

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_DEVPTS_SUPER_MAGIC = 0x1CD1


def open_peer(master: int) -> int:
    """The other end of the terminal `master`, once that is proven to be one.

    Taken straight from the master, so that there is no path which a container could swap
    (CVE-2025-52565). Raises OSError (ENODEV) for anything but a multiplexer of a devpts.
    """
    if filesystem_type(master) != _DEVPTS_SUPER_MAGIC or os.fstat(master).st_rdev != os.makedev(
        5, 2
    ):
        raise OSError(errno.ENODEV, "not a terminal multiplexer")
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    return fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def resize(terminal: int, *, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def size(terminal: int) -> tuple[int, int]:
    """Rows and columns."""
    raw = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
    rows, columns, _, _ = struct.unpack("HHHH", raw)
    return rows, columns
