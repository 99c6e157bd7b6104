"""Build contexts that are git repositories: checked out before a build reads them.

Source: Docker's documentation of build contexts ("Git repositories"): `URL#ref:subdirectory`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from runtime.build.copying import CopyRefused
from runtime.build.downloads import without_credentials
from runtime.build.git import check_out, find_commit, is_git
from runtime.build.scratch import CHECKOUT
from runtime.errors import BuildError
from runtime.linux.files import open_in_root
from runtime.removal import passing_directory

# The one host whose repositories need no scheme.
_GITHUB = "github.com/"


def is_repository(context: str) -> bool:
    """True for a context that names a git repository."""
    return context.startswith(_GITHUB) or is_git(context)


@contextlib.contextmanager
def checked_out(
    address: str, scratch: Path, ssh: Mapping[str, str], *, keep_git: bool = False
) -> Iterator[Path]:
    """The context of a repository for the length of a block, in a directory below `scratch`.

    `ssh` are agents' sockets by ID, of which "default" is used. Raises BuildError.
    """
    if address.startswith(_GITHUB):
        address = f"https://{address}"
    shown = without_credentials(address)
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    with passing_directory(scratch, CHECKOUT) as place:
        try:
            source = find_commit(address, ssh)
            target = place / "tree"
            check_out(source, target, ssh, keep=keep_git)
        except CopyRefused as exc:
            raise BuildError(f"the build context {shown}: {exc}") from exc
        yield _inside(target, source.subdirectory, shown)


def _inside(root: Path, subdirectory: str, address: str) -> Path:
    """A directory of the repository, whose links must not lead out of it."""
    if not subdirectory:
        return root
    base = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = open_in_root(base, subdirectory, os.O_PATH | os.O_DIRECTORY)
    except OSError as exc:
        raise BuildError(
            f"the build context {address}: there is no directory {subdirectory}"
        ) from exc
    finally:
        os.close(base)
    try:
        return Path(os.readlink(f"/proc/self/fd/{found}"))
    finally:
        os.close(found)
