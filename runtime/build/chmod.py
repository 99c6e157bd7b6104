"""`--chmod`: octal modes and symbolic ones.

Source: POSIX chmod(1), "Extended description"; BuildKit reference.md ("COPY --chmod").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)\Z")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_SET_ID = {"u": 0o4000, "g": 0o2000, "o": 0}
_STICKY = 0o1000


@dataclass(frozen=True, slots=True)
class Chmod:
    """A change of modes; `octal` replaces them, else `clauses` change them one by one."""

    octal: int | None
    clauses: tuple[tuple[str, str, str], ...] = ()

    def apply(self, mode: int, *, directory: bool) -> int:
        """The new permission bits of a file that has `mode`."""
        if self.octal is not None:
            return self.octal
        for who, operator, what in self.clauses:
            mode = _changed(mode, who, operator, what, directory)
        return mode


def parse_chmod(text: str) -> Chmod:
    """Parse `0755` or `u+x,go=rX`; raises ValueError."""
    digits = text.removeprefix("0o")
    if digits and not set(digits) - set("01234567"):
        if len(digits) > 5 or int(digits, 8) > 0o7777:
            raise ValueError(f"--chmod={text}: an octal mode is at most 7777")
        return Chmod(int(digits, 8))
    clauses: list[tuple[str, str, str]] = []
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        if match is None:
            raise ValueError(f"--chmod={text}: neither an octal mode such as 0755 nor one as u+x")
        who = match[1].replace("a", "ugo") or "ugo"
        clauses += [(who, action[1], action[2]) for action in _ACTION.finditer(match[2])]
    return Chmod(None, tuple(clauses))


def _changed(mode: int, who: str, operator: str, what: str, directory: bool) -> int:
    selected = affected = 0
    for person in who:
        shift = _SHIFTS[person]
        affected |= 7 << shift | _SET_ID[person]
        if what in _SHIFTS:
            selected |= (mode >> _SHIFTS[what] & 7) << shift
            continue
        for letter in what:
            if letter in _BITS:
                selected |= _BITS[letter] << shift
            elif letter == "X" and (directory or mode & 0o111):
                selected |= 1 << shift
            elif letter == "s":
                selected |= _SET_ID[person]
    if "t" in what:
        selected |= _STICKY
        affected |= _STICKY
    if operator == "+":
        return mode | selected
    if operator == "-":
        return mode & ~selected
    return mode & ~affected | selected
