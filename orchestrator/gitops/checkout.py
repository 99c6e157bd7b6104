"""A commit's files on disk: one immutable directory a commit, and one stable tree for binds.

Two things are asked of a checkout that exclude each other. What we read ourselves (specs, env
files, configs, build contexts) must be exactly the commit, whole, whatever happens meanwhile. A
bind mount must have a path that stays, for as long as its container; containers keep files of
their own below it (`./data`); and what it shows must not vanish when a newer commit comes. So
there are two:

    <root>/commits/<commit>/      written once, under a name of its own, then renamed; never
                                  changed, never bound; swept when no longer kept
    <root>/commits/<commit>.json  its manifest: every path with mode and object
    <root>/tree/                  the stable tree, which `switch` takes from commit to commit

The stable tree is one directory for ever. A mount holds an inode, not a path: were the whole tree
exchanged, by a symbolic link or by renaming, running containers would go on in a directory that
is to be deleted, and lose their own files. So `switch` changes only what differs, each file by
one rename from a copy that lies ready: an unchanged file or directory keeps its inode, so whoever
has it mounted sees the right thing and goes on; a container that has bound a directory sees a
changed file in it at once, as with `git pull`; one that has bound the changed file itself holds
the old one, whole. In either case the render gives the mount the digest of what it binds, so the
plan recreates just those services whose bound content differs, and they start on the new one.
What is not in the commit, containers' own files, stays where it is. A file of theirs that is in
the way of a new one is kept beside it.

A switch is prepared in full before the first rename (copies, on the same file system), so
that the renames follow each other within milliseconds; additions come first and removals last,
so that a file that refers to another finds it. A crash within leaves a note of the aim; whoever
comes next switches again, from what is really there. Every step holds directories by descriptors
and follows no link, as containers may write into the tree.

Nothing here is synced, as a sync may take seconds on a busy disk. Instead, what was written before
the last boot is compared with git's own digests before it is used again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from orchestrator.gitops.errors import GitFailed, UnsafeTree
from orchestrator.gitops.mirror import Mirror, TreeEntry

LINK = 0o120000
SUBMODULE = 0o160000
DIRECTORY = 0o040000
_LFS_MAGIC = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_LIMIT = 1024
_DEPTH = 64
_PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, link, directory or submodule: git's mode, and the object's name, which is a digest
    of all that it holds."""

    mode: int
    object: str

    @property
    def digest(self) -> str:
        return f"{self.object}-{self.mode:o}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A commit's files. `path` is immutable, `stable` the tree that is switched.

    `entries` has every path but the root's. `lfs` and `submodules` are paths of which the files
    are not there.
    """

    commit: str
    path: Path
    stable: Path
    entries: Mapping[str, Entry] = field(repr=False)
    lfs: tuple[str, ...]
    submodules: tuple[str, ...]

    def digest(self, path: str) -> str | None:
        """What identifies the content at `path` (`.` is everything), None where nothing is."""
        if path in ("", "."):
            return self.commit_tree
        entry = self.entries.get(path)
        return entry.digest if entry is not None else None

    @property
    def commit_tree(self) -> str:
        """The digest of everything, which two commits with the same files share."""
        text = "".join(
            f"{name}\0{entry.digest}\n"
            for name, entry in sorted(self.entries.items())
            if "/" not in name
        )
        return hashlib.sha256(os.fsencode(text)).hexdigest()


async def check_out(mirror: Mirror, commit: str, root: Path) -> Checkout:
    """The files of `commit` below `root`; they are there already when it was asked for before.

    Raises TooLarge, UnsafeTree and what the mirror raises; nothing half made stays.
    """
    root.mkdir(parents=True, mode=0o700, exist_ok=True)
    commits = root / "commits"
    commits.mkdir(mode=0o700, exist_ok=True)
    target, manifest = commits / commit, commits / f"{commit}.json"
    if not (
        target.is_dir() and manifest.is_file() and await asyncio.to_thread(_whole, root, commit)
    ):
        entries = await mirror.tree(commit)
        for entry in entries:
            _check_name(entry.path)
        await _write(mirror, entries, target, manifest)
    return load(root, commit)


def _whole(root: Path, commit: str) -> bool:
    """Whether a checkout is what it was written as: sure since the last boot, else looked at."""
    manifest = root / "commits" / f"{commit}.json"
    try:
        document = json.loads(manifest.read_bytes())
        if document["boot"] == _boot():
            return True
        checkout = load(root, commit)
        if not all(_is(checkout.path / path, entry) for path, entry in checkout.entries.items()):
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    write_atomically(manifest, json.dumps({**document, "boot": _boot()}).encode())
    return True


def _is(place: Path, entry: Entry) -> bool:
    if entry.mode in (DIRECTORY, SUBMODULE):
        return place.is_dir() and not place.is_symlink()
    if entry.mode == LINK:
        content = os.fsencode(os.readlink(place))
    elif place.is_symlink() or stat.S_IMODE(place.stat().st_mode) != file_mode(entry.mode):
        return False
    else:
        content = place.read_bytes()
    return is_blob(content, entry.object)


def is_blob(content: bytes, name: str) -> bool:
    """Whether git calls this content `name`, in a repository of either format."""
    kind = hashlib.sha1 if len(name) == 40 else hashlib.sha256
    return kind(b"blob %d\0" % len(content) + content).hexdigest() == name


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def load(root: Path, commit: str) -> Checkout:
    """The checkout of a commit that was made before. Raises OSError, ValueError."""
    document = json.loads((root / "commits" / f"{commit}.json").read_bytes())
    return Checkout(
        commit=commit,
        path=root / "commits" / commit,
        stable=root / "tree",
        entries={
            path: Entry(mode=mode, object=name)
            for path, (mode, name) in document["entries"].items()
        },
        lfs=tuple(document["lfs"]),
        submodules=tuple(document["submodules"]),
    )


def sweep(root: Path, keep: Iterable[str]) -> list[str]:
    """Remove the checkouts of other commits, and what a crash has left; the commits removed."""
    kept = set(keep)
    commits = root / "commits"
    removed = []
    for entry in sorted(os.listdir(commits)) if commits.is_dir() else ():
        commit = entry.removesuffix(".json")
        if commit in kept:
            continue
        # The manifest goes first: without it the directory counts as half made.
        if entry.endswith(".json"):
            (commits / entry).unlink(missing_ok=True)
        elif (commits / entry).is_dir():
            (commits / f"{entry}.json").unlink(missing_ok=True)
            shutil.rmtree(commits / entry)
            if not entry.startswith("."):
                removed.append(entry)
    return removed


def _check_name(path: str) -> None:
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise UnsafeTree(f"the repository has a path that is none: {path!r}", path=path)
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise UnsafeTree(f"the name of {path!r} is not UTF-8", path=path) from exc
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise UnsafeTree(f"the repository has a name with control characters: {path!r}", path=path)
    if len(parts) > _DEPTH or any(len(os.fsencode(part)) > 255 for part in parts):
        raise UnsafeTree(f"{path[:80]}… is nested too deeply, or its name is too long", path=path)


async def _write(mirror: Mirror, entries: list[TreeEntry], target: Path, manifest: Path) -> None:
    draft = target.with_name(f".{target.name}.new")

    def write(to_git: IO[bytes], from_git: IO[bytes]) -> list[str]:
        for old in (draft, target):
            if old.exists():
                shutil.rmtree(old)
        writer = _Writer(to_git, from_git, draft, _written_before(target.parent))
        draft.mkdir(mode=0o755)
        try:
            for entry in entries:
                writer.write(entry)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        document = {
            "boot": _boot(),
            "entries": {entry.path: [entry.mode, entry.object] for entry in entries},
            "lfs": writer.lfs,
            "submodules": [entry.path for entry in entries if entry.mode == SUBMODULE],
        }
        os.rename(draft, target)
        write_atomically(manifest, json.dumps(document).encode())
        return writer.lfs

    await mirror.git.converse(("cat-file", "--batch"), write)


def _written_before(commits: Path) -> dict[str, Path]:
    """Files by object and mode of the checkout that was made last, to be linked to."""
    manifests = sorted(commits.glob("[0-9a-f]*.json"), key=lambda path: path.stat().st_mtime)
    for manifest in reversed(manifests):
        try:
            found = load(commits.parent, manifest.stem)
        except (OSError, ValueError, KeyError):
            continue
        return {
            entry.digest: found.path / path
            for path, entry in found.entries.items()
            if path not in found.lfs
        }
    return {}


class _Writer:
    """Writes entries into the new directory `draft`, which nobody else knows.

    The names were checked, each directory comes before what is in it, and nothing is below a
    link or file: so no name here can lead out.
    """

    def __init__(
        self,
        to_git: IO[bytes],
        from_git: IO[bytes],
        draft: Path,
        before: Mapping[str, Path],
    ) -> None:
        self.to_git = to_git
        self.from_git = from_git
        self.draft = draft
        self.before = before
        self.lfs: list[str] = []
        self._others: set[str] = set()

    def write(self, entry: TreeEntry) -> None:
        if entry.path.rpartition("/")[0] in self._others:
            raise UnsafeTree(f"{entry.path} lies below what is no directory", path=entry.path)
        place = self.draft / entry.path
        if entry.mode in (DIRECTORY, SUBMODULE):
            place.mkdir(mode=0o755)
            return
        self._others.add(entry.path)
        if entry.mode == LINK:
            if entry.size > 4095:
                raise UnsafeTree(f"{entry.path} is a link to nowhere", path=entry.path)
            _link(b"".join(self._object(entry)), place, entry.path)
            return
        if self._linked(entry, place):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        start = b""
        with os.fdopen(os.open(place, flags, 0o600), "wb") as file:
            for piece in self._object(entry):
                start = start or piece
                file.write(piece)
            os.fchmod(file.fileno(), file_mode(entry.mode))
        if entry.size <= _LFS_LIMIT and start.startswith(_LFS_MAGIC):
            self.lfs.append(entry.path)

    def _linked(self, entry: TreeEntry, place: Path) -> bool:
        """Whether an older checkout has the very file; both are never written to."""
        known = self.before.get(Entry(mode=entry.mode, object=entry.object).digest)
        if known is None:
            return False
        try:
            os.link(known, place, follow_symlinks=False)
        except OSError:  # it was swept, or has as many links as the file system allows
            return False
        return True

    def _object(self, entry: TreeEntry) -> Iterator[bytes]:
        """An object's content in pieces, however large it is."""
        broken = GitFailed(f"git broke off at {entry.path} ({entry.object[:12]})")
        try:
            self.to_git.write(f"{entry.object}\n".encode())
            self.to_git.flush()
        except BrokenPipeError as exc:
            raise broken from exc
        head = self.from_git.readline().split()
        if len(head) != 3 or head[1] != b"blob" or int(head[2]) != entry.size:
            raise GitFailed(f"git does not have {entry.path} ({entry.object[:12]})")
        rest = entry.size
        while rest:
            piece = self.from_git.read(min(rest, _PIECE))
            if not piece:
                raise broken
            rest -= len(piece)
            yield piece
        if self.from_git.read(1) != b"\n":
            raise broken


def file_mode(mode: int) -> int:
    """The permissions that git's mode of a file stands for."""
    return 0o755 if mode & 0o100 else 0o644


def _link(content: bytes, place: Path, path: str) -> None:
    if not content or b"\0" in content:
        raise UnsafeTree(f"{path} is a link to nowhere", path=path)
    os.symlink(content, os.fsencode(place))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a small file as a whole, so that it is the old or the new one after any crash."""
    draft = path.with_name(f".{path.name}.new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
