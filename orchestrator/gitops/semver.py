"""Which tag of a repository a version range means: `1.x`, `>=1.2 <2`, `~1.4`, `^1`. Pure.

The ranges are npm's, which Flux's and Cargo's are subsets of; a comma is taken for a space, as
Flux writes it. A tag may have a leading `v`. Pre-releases are taken only by ranges that name one
of the same version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TAG = re.compile(
    r"v?(?:0|[1-9]\d{0,8})\.(?:0|[1-9]\d{0,8})\.(?:0|[1-9]\d{0,8})"
    r"(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_PART = r"(?:[xX*]|\d{1,9})"
_VERSION = rf"v?{_PART}(?:\.{_PART}(?:\.{_PART}(?:-[0-9A-Za-z.-]+)?)?)?"
_COMPARATOR = re.compile(rf"(?:[<>]=?|=|~>?|\^)?\s*{_VERSION}")
_HYPHEN = re.compile(rf"{_VERSION}\s+-\s+{_VERSION}")
_TAG_LENGTH = 128


def check_range(text: str) -> str:
    """`text` as the comparing understands it. Raises ValueError."""
    alternatives = [part.strip() for part in text.replace(",", " ").split("||")]
    for part in alternatives:
        if _HYPHEN.fullmatch(part):
            continue
        rest = _COMPARATOR.sub("", part) if part else "empty"
        if rest.strip():
            raise ValueError(f"{text!r} is not a version range such as 1.x, ^1.4 or >=1.2 <2")
    return " || ".join(alternatives)


def newest(tags: Iterable[str], wanted: str) -> str | None:
    """The tag with the highest version in the range, None where there is none.

    Of two tags for one version (`1.2.3`, `v1.2.3`) the one with a `v` is taken. Raises ValueError
    for a range that is none.
    """
    import nodesemver

    wanted = check_range(wanted)
    candidates = sorted(tag for tag in tags if len(tag) <= _TAG_LENGTH and _TAG.fullmatch(tag))
    best: str | None = None
    for tag in candidates:
        if nodesemver.satisfies(tag, wanted, True) and (
            best is None or nodesemver.compare(tag, best, True) >= 0
        ):
            best = tag
    return best
