"""`index.json`: which manifests the store has, and by which names.

Source: OCI image-spec image-layout.md ("index.json file"); a name stands in the annotation
`org.opencontainers.image.ref.name`, in its canonical form. The file is replaced as a whole
under a lock.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.errors import ImageNotFound
from runtime.linux.files import locked, write_atomically
from runtime.oci.descriptor import REFERENCE_NAME, Descriptor
from runtime.oci.manifest import Index

Entries = tuple[Descriptor, ...]


def name_of(entry: Descriptor) -> str | None:
    """The canonical reference of an entry; None for an untagged image."""
    return entry.annotations.get(REFERENCE_NAME)


class LayoutIndex:
    """The index file `path`; `lock` is the file that writers hold."""

    def __init__(self, path: Path, lock: Path) -> None:
        self._path = path
        self._lock = lock
        self._mutex = threading.Lock()
        self._cached: tuple[tuple[int, int, int], Index] | None = None

    def entries(self) -> Entries:
        return self._read().manifests

    def add(self, descriptor: Descriptor, names: Sequence[str]) -> None:
        """Enter a descriptor under canonical names, which move from where they were."""
        self._edit(lambda entries: _added(entries, descriptor, names))

    def rename(self, digest: str, name: str) -> None:
        """Give an entry a further name; raises ImageNotFound."""

        def change(entries: Entries) -> Entries:
            for entry in entries:
                if entry.digest == digest:
                    return _added(entries, unnamed(entry), [name])
            raise ImageNotFound(digest)

        self._edit(change)

    def untag(self, name: str) -> None:
        """Take a name away, the entry stays; raises ImageNotFound."""

        def change(entries: Entries) -> Entries:
            if not any(name_of(entry) == name for entry in entries):
                raise ImageNotFound(name)
            return _stripped(entries, {name})

        self._edit(change)

    def remove(self, digests: set[str]) -> None:
        """Drop all entries of these digests, named or not."""
        self._edit(lambda entries: tuple(e for e in entries if e.digest not in digests))

    def remove_nameless(self, digests: set[str]) -> None:
        """Drop the entries of these digests that have no name."""
        self._edit(
            lambda entries: tuple(
                e for e in entries if e.digest not in digests or name_of(e) is not None
            )
        )

    def _read(self) -> Index:
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                key = (status.st_ino, status.st_mtime_ns, status.st_size)
                with self._mutex:
                    if self._cached is not None and self._cached[0] == key:
                        return self._cached[1]
                content = file.read()
        except FileNotFoundError:
            return Index(manifests=())
        index = Index.from_bytes(content)
        with self._mutex:
            self._cached = (key, index)
        return index

    def _edit(self, change: Callable[[Entries], Entries]) -> None:
        with locked(self._lock):
            index = self._read()
            changed = change(index.manifests)
            if changed != index.manifests:
                content = dataclasses.replace(index, manifests=changed).to_bytes()
                write_atomically(self._path, content)


def unnamed(entry: Descriptor) -> Descriptor:
    """The entry without its name."""
    rest = {key: value for key, value in entry.annotations.items() if key != REFERENCE_NAME}
    return dataclasses.replace(entry, annotations=rest)


def _added(entries: Entries, descriptor: Descriptor, names: Sequence[str]) -> Entries:
    rest = _stripped(entries, set(names))
    if not names:
        if any(entry.digest == descriptor.digest for entry in rest):
            return rest
        return (*rest, unnamed(descriptor))
    rest = tuple(e for e in rest if e.digest != descriptor.digest or name_of(e) is not None)
    named = tuple(
        dataclasses.replace(
            descriptor, annotations={**descriptor.annotations, REFERENCE_NAME: name}
        )
        for name in dict.fromkeys(names)
    )
    return rest + named


def _stripped(entries: Entries, names: set[str]) -> Entries:
    """The entries without these names; an image that loses its last name stays, nameless."""
    kept = [entry for entry in entries if name_of(entry) not in names]
    digests = {entry.digest for entry in kept}
    for entry in entries:
        if entry.digest not in digests:
            digests.add(entry.digest)
            kept.append(unnamed(entry))
    return tuple(kept)
