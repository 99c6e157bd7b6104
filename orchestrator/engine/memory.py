"""Keeps a process small that lives long: few heaps, and nothing that is free is kept."""

from __future__ import annotations

import gc

from runtime.linux import memory

HEAPS = 1


def keep_small() -> None:
    """To be called before the first thread starts."""
    memory.limit_arenas(HEAPS)


def settle() -> None:
    """After a start: what it made stays for good, so the collector need not look at it again,
    and what it left free goes back."""
    gc.collect()
    gc.freeze()
    memory.give_back()


def give_back() -> None:
    """After something large, a plan or a build."""
    memory.give_back()
