"""Files of containers for the command line, which copies them itself: no daemon in between."""

from __future__ import annotations

from runtime.container.archive import Place, Rules, deliver, find
from runtime.container.tarball import pack, unpack
from runtime.container.tree import open_tree

__all__ = ["Place", "Rules", "deliver", "find", "open_tree", "pack", "unpack"]
