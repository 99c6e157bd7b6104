"""Which content an image reference stands for now, by its registry."""

from __future__ import annotations

import asyncio


def resolve(reference: str) -> str:
    """The digest of the manifest behind `reference`; raises the registry client's errors."""
    from runtime.registry.pull import resolve_digest

    return asyncio.run(resolve_digest(reference))
