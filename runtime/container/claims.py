"""Who runs a container holds a lock on its directory: flock(2)."""

from __future__ import annotations

import fcntl
import os

from runtime.errors import NotFound, RuntimeFault
from runtime.linux import files


def claim(directory: str, id: str) -> int:
    """Become the only one to run container `id`, for as long as the descriptor is held.

    Raises NotFound, and RuntimeFault while another one starts or runs it.
    """
    try:
        claimed = files.try_lock_directory(directory)
    except FileNotFoundError as error:
        raise NotFound("container", id) from error
    if claimed is None:
        raise RuntimeFault(f"container {id[:12]} is being started, or runs")
    return claimed


def disclaim(claimed: int) -> None:
    """Whoever else has the descriptor, by a fork, holds nothing any more either."""
    fcntl.flock(claimed, fcntl.LOCK_UN)
    os.close(claimed)
