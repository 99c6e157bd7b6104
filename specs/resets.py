"""`!reset` and `!override`: what a later file says to drop from the earlier ones."""

from __future__ import annotations

from specs.source import Node, Path


def apply(root: Node, paths: tuple[Path, ...]) -> None:
    """Deletes the keys at `paths` from the tree, in place; paths that do not exist are fine."""
    for path in paths:
        node = root
        for step in path[:-1]:
            child = node.value.get(step) if type(node.value) is dict else None
            if child is None:
                break
            node = child
        else:
            if path and type(node.value) is dict:
                node.value.pop(path[-1], None)
