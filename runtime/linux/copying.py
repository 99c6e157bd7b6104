"""Copying a file's bytes inside the kernel: copy_file_range(2), sendfile(2), lseek(2)."""

from __future__ import annotations

import errno
import os

_CHUNK = 8 * 1024 * 1024
_ELSEWHERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def copy_content(source: int, target: int, limit: int | None = None) -> int:
    """Copy from where both are to the end of `source`, at most `limit` bytes, sharing blocks
    where the file system can; the number of bytes."""
    copied = 0
    within_kernel = True
    while limit is None or copied < limit:
        wanted = _CHUNK if limit is None else min(_CHUNK, limit - copied)
        try:
            if within_kernel:
                count = os.copy_file_range(source, target, wanted)
            else:
                count = os.sendfile(target, source, None, wanted)
        except OSError as exc:
            if not within_kernel or exc.errno not in _ELSEWHERE:
                raise
            within_kernel = False
            continue
        if not count:
            break
        copied += count
    return copied


def copy_sparse(source: int, target: int, size: int) -> int:
    """Copy the first `size` bytes into the empty `target`, and leave holes where `source` has
    them; how many of the bytes are data."""
    at = copied = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # a hole up to the end
                break
            raise
        end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        os.lseek(source, at, os.SEEK_SET)
        os.lseek(target, at, os.SEEK_SET)
        count = copy_content(source, target, end - at)
        if not count:
            break  # it was cut short meanwhile
        at += count
        copied += count
    os.ftruncate(target, size)
    return copied
