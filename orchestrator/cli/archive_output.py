"""Where an archive is written: to standard output, or to a file that is there only when whole."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import IO

from orchestrator.cli.errors import UsageError
from orchestrator.cli.session import Session


@contextlib.contextmanager
def archive_output(session: Session, output: str | None) -> Iterator[IO[bytes]]:
    """The stream for `--output` (None, or -: standard output), flushed when the block is left.

    A file is replaced at the end of the block; a block that fails leaves the old one. Raises
    UsageError where a terminal would get the archive.
    """
    if output is None or output == "-":
        if sys.stdout.isatty():
            raise UsageError(
                "an archive on a terminal helps nobody", hint="-o FILE, or redirect it"
            )
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # Through a link, as opening the file would go.
    path = os.path.realpath(os.path.join(session.cwd, output))
    if not _is_plain(path):
        with open(path, "wb") as stream:
            yield stream
        return
    directory, name = os.path.split(path)
    draft = os.path.join(directory, f".{name[:100]}.{os.urandom(6).hex()}")
    try:
        with open(draft, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def _is_plain(path: str) -> bool:
    """Whether a file stands there that can be exchanged for another, or nothing."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True
