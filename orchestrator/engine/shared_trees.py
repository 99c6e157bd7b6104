"""Trees of git sources, which several containers write to: a link in one must lead nowhere else."""

from __future__ import annotations

from pathlib import Path

SOURCES = "gitops"
TREE = "tree"


def shared_tree(root: Path, path: str) -> str:
    """The tree below the state directory `root` in which the host's `path` lies, "" where it lies
    in none."""
    base = f"{root}/{SOURCES}/"
    if not path.startswith(base):
        return ""
    tree = f"{base}{path[len(base) :].partition('/')[0]}/{TREE}"
    return tree if path == tree or path.startswith(f"{tree}/") else ""
