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
    candidates = [tag for tag in tags if len(tag) <= _TAG_LENGTH and _TAG.fullmatch(tag)]
    # Each look at a range takes long, so the highest version comes first.
    candidates.sort(key=lambda tag: (_precedence(tag), tag), reverse=True)
    return next((tag for tag in candidates if nodesemver.satisfies(tag, wanted, True)), None)


def _precedence(tag: str) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
    """What versions are ordered by (semver.org, 11): a release comes after its pre-releases,
    numbers come before words, and what comes after a plus does not count."""
    version, _, before = tag.removeprefix("v").partition("+")[0].partition("-")
    words = tuple(
        (False, int(word), "") if word.isdecimal() else (True, 0, word)
        for word in before.split(".")
    )
    return tuple(map(int, version.split("."))), not before, words if before else ()
