"""Which content an image reference stands for now, by its registry."""

from __future__ import annotations

import asyncio


def pin(reference: str) -> str:
    """`reference` in full, with the digest that its registry has for it now.

    Raises the registry client's errors.
    """
    from runtime.images.reference import Reference
    from runtime.registry.pull import resolve_digest

    named = Reference.parse(reference)
    if named.digest is not None:
        return named.canonical
    return f"{named.canonical}@{asyncio.run(resolve_digest(reference))}"
