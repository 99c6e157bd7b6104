"""Keeps together in memory what a keeper touches, and apart from all else.

A page that a keeper writes to is copied for it alone, and CPython writes to whatever it looks
at (reference counts). So the modules that a keeper runs are loaded in a row, with no holes of
earlier ones to fill, and what it allocates has pages of its own as well. About half of what
keepers hold is saved by this.

Objects of up to 512 bytes lie in pools by size, in steps of 16 (Objects/obmalloc.c).
"""

from __future__ import annotations

import contextlib  # noqa: F401
import json  # noqa: F401
import selectors  # noqa: F401
import socket  # noqa: F401
import sys

# isort: split
# What the modules of a keeper need to be loaded, but hardly to run.
import dataclasses  # noqa: F401
import pathlib  # noqa: F401
import typing  # noqa: F401

from runtime.linux import libc  # noqa: F401

_POOL = 16 * 1024
_POOL_HEADER = 48
_LARGEST = 512

_filling: list[bytes] = []


def load_keeper() -> None:
    """Import the modules of a keeper."""
    settle()
    import runtime.container.keeper  # noqa: F401

    settle()


def settle() -> None:
    """Fill each pool that is partly free, so that whatever is made next begins one of its own."""
    overhead = sys.getsizeof(b"")
    for size in range(48, _LARGEST + 1, 16):
        # Bounded, should another allocator be in use.
        for _ in range(_LARGEST * _POOL // size):
            block = bytes(size - overhead)
            _filling.append(block)
            if id(block) % _POOL == _POOL_HEADER:
                break
