"""Mounts an overlay on a directory, with the means that the kernel has."""

from __future__ import annotations

import errno
import os

from runtime.container.rootfs import Overlay
from runtime.linux import mounts


def mount_overlay(overlay: Overlay, place: str) -> int:
    """Mount the overlay on `place`; a descriptor of its top directory."""
    try:
        fd = mounts.new_filesystem("overlay", _options(overlay), source="overlay")
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        _mount_by_path(overlay, place, error)
        return os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.attach(fd, target)
    os.close(target)
    return fd


def _options(overlay: Overlay) -> list[tuple[str, str | None]]:
    # The first one named lies on top (lowerdir+, kernel 6.8).
    options: list[tuple[str, str | None]] = [
        ("lowerdir+", layer) for layer in reversed(overlay.layers)
    ]
    if overlay.upper:
        options += [("upperdir", overlay.upper), ("workdir", overlay.work)]
    if overlay.volatile:
        options.append(("volatile", None))
    return options


def _mount_by_path(overlay: Overlay, place: str, first: OSError) -> None:
    """mount(2) with one option string, for kernels before 6.8.

    The string may take a page; layers are named relative to their common directory.
    """
    shelf = os.path.commonpath([os.path.dirname(layer) for layer in overlay.layers])
    lower = ":".join(
        os.path.relpath(layer, shelf).replace("\\", "\\\\").replace(":", "\\:")
        for layer in reversed(overlay.layers)
    )
    options = f"lowerdir={lower}"
    if overlay.upper:
        options += f",upperdir={overlay.upper},workdir={overlay.work}"
    if overlay.volatile:
        options += ",volatile"
    if len(options) > 4095:
        raise OSError(
            errno.E2BIG, f"{len(overlay.layers)} layers are too many for this kernel"
        ) from first
    back = os.open(".", os.O_PATH | os.O_CLOEXEC)
    os.chdir(shelf)
    try:
        mounts.mount_by_path("overlay", place, "overlay", options)
    finally:
        os.fchdir(back)
        os.close(back)
