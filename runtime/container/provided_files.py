"""The small files that the runtime keeps beside a container and mounts in it (/etc/hosts)."""

from __future__ import annotations

import os
from pathlib import Path


def rewrite(path: Path, before: str, after: str) -> None:
    """Change the file itself, which is mounted in the container: another by its name would not be
    seen there. It was once made as `before`."""
    with open(path, "r+b") as file:
        content = renewed(file.read().decode(errors="surrogateescape"), before, after)
        raw = content.encode(errors="surrogateescape")
        os.pwrite(file.fileno(), raw, 0)
        file.truncate(len(raw))


def renewed(actual: str, before: str, after: str) -> str:
    """`actual`, once made as `before`, with what has changed since: lines that are no more are
    taken out, new ones are added."""
    if actual == before:
        return after
    old, new = before.splitlines(), after.splitlines()
    kept = [line for line in actual.splitlines() if line in new or line not in old]
    kept += [line for line in new if line not in kept]
    return "".join(f"{line}\n" for line in kept)
