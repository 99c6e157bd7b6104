"""Build contexts that a web server gives: an archive, or a Dockerfile alone.

Source: Docker's documentation of build contexts ("Remote tarballs", "Text files"). An archive is
known by its content, and unpacked as ADD does it: no name in it leads out of its directory.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.build.archives import extract, is_archive
from runtime.build.checkouts import is_repository
from runtime.build.copying import CopyRefused, Owner
from runtime.build.downloads import fetch, without_credentials
from runtime.build.scratch import CONTEXT
from runtime.errors import BuildError, ImageError
from runtime.images.merged import MergedTree
from runtime.images.unpack import Limits
from runtime.images.upper import UpperTree
from runtime.removal import passing_directory

DOCKERFILE = "Dockerfile"
_LARGEST = 4 << 30
_LIMITS = Limits(entries=1_000_000, stored=16 << 30, apparent=64 << 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteContext:
    """A context that is here now, and the digest of what the server gave; `is_archive` false
    means a single file."""

    directory: Path
    digest: str
    is_archive: bool


def is_address(context: str) -> bool:
    """True for a context that is no directory of this machine."""
    return "://" in context or is_repository(context)


@contextlib.contextmanager
def fetched(
    url: str, scratch: Path, *, name: str | None = None, stop: Callable[[], object] | None = None
) -> Iterator[RemoteContext]:
    """The context at `url` for the length of a block, in a directory below `scratch`.

    A single file is called `name` (None: as the URL says). Up to 4 GiB are fetched, and 16 GiB
    unpacked. What `stop` raises, which is called again and again, ends it. Raises BuildError.
    """
    if not url.startswith(("http://", "https://")):
        raise BuildError(
            f"the build context {without_credentials(url)} cannot be fetched",
            hint="it can be a directory, a git repository, whose address ends in .git, or an "
            "archive or a Dockerfile at an http or https address",
        )
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    with passing_directory(scratch, CONTEXT) as place:
        tree = place / "tree"
        tree.mkdir(mode=0o755)
        try:
            got = fetch(url, place / "fetched", checksum=None, stop=stop, limit=_LARGEST)
            with open(got.path, "rb", buffering=0) as file:
                found = is_archive(file)
                if found:
                    _unpack(file, tree)
        except (CopyRefused, ImageError) as exc:
            raise BuildError(f"the build context {without_credentials(url)}: {exc}") from exc
        if found:
            got.path.unlink()
        else:
            got.path.chmod(0o644)
            os.rename(got.path, tree / (name or got.name or "context"))
        yield RemoteContext(directory=tree, digest=got.digest, is_archive=found)


def _unpack(file: io.FileIO, tree: Path) -> None:
    with (
        MergedTree(()) as nothing,
        UpperTree(tree, nothing, privileged=os.geteuid() == 0, follow_own=False) as upper,
    ):
        extract(file, upper, (), Owner(uid=0, gid=0), _LIMITS)
