"""Digests: `algorithm:hex`, checked before they are ever used as a file name.

Source: OCI image-spec descriptor.md, "Digests"; only the registered algorithms are taken.
"""

from __future__ import annotations

import hashlib
import re

from runtime.errors import ImageError

_LENGTHS = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)\Z")


def is_digest(text: str) -> bool:
    """True for a well-formed digest of a registered algorithm."""
    match = _DIGEST.match(text)
    return match is not None and len(match[2]) == _LENGTHS[match[1]]


def check_digest(text: str) -> str:
    """Give `text` back where it is a digest; raises ImageError otherwise."""
    if not is_digest(text):
        raise ImageError(f"not a digest: {text[:160]!r}")
    return text


def algorithm(digest: str) -> str:
    """The algorithm's name of a checked digest."""
    return digest.partition(":")[0]


def encoded(digest: str) -> str:
    """The hexadecimal part of a checked digest."""
    return digest.partition(":")[2]


def digest_of(content: bytes) -> str:
    """The sha256 digest of bytes in memory."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def chain_id(parent: str | None, diff_id: str) -> str:
    """The chain ID of a layer on top of the chain `parent` (None: the first layer).

    Source: OCI image-spec config.md, "Layer ChainID".
    """
    if parent is None:
        return diff_id
    return digest_of(f"{parent} {diff_id}".encode())


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """The chain ID of every layer of an image, lowest first."""
    chains: list[str] = []
    parent: str | None = None
    for diff_id in diff_ids:
        parent = chain_id(parent, diff_id)
        chains.append(parent)
    return tuple(chains)
