"""Who runs inside: users and groups by the container's own /etc/passwd and /etc/group. Pure.

The files come from an image and are not trusted: numbers are bounded, broken lines skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.errors import RuntimeFault

_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """User, groups and home directory of a process."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(
    user: str, passwd: bytes | None, group: bytes | None, additional: tuple[str, ...] = ()
) -> Identity:
    """Docker's `USER`: name or uid, then optionally `:` and group name or gid.

    A number is always a number, whatever names the files hold. Without a group the user's own
    from passwd counts, and those that list the user as a member. Raises RuntimeFault for
    unknown names and numbers above 2³¹-1.
    """
    name, separator, group_name = user.partition(":")
    name = name or "0"
    users = list(_users(passwd or b""))
    groups = list(_groups(group or b""))
    uid = _number(name, user)
    if uid is None:
        found = next((entry for entry in users if entry.name == name), None)
        if found is None:
            raise RuntimeFault(
                f"unable to find user {name}: no matching entries in passwd file",
                hint="give a number, or create the user in the image",
            )
        uid = found.uid
    else:
        found = next((entry for entry in users if entry.uid == uid), None)
    member_of: tuple[int, ...] = ()
    if separator and group_name:
        gid = _group_number(group_name, groups, user)
    else:
        gid = found.gid if found else 0
        if found:
            member_of = tuple(entry.gid for entry in groups if found.name in entry.members)
    extra = tuple(_group_number(item, groups, item) for item in additional)
    return Identity(
        uid=uid,
        gid=gid,
        groups=tuple(sorted({gid, *member_of, *extra})),
        home=found.home if found and found.home else "/",
    )


def _group_number(name: str, groups: list[_Group], given: str) -> int:
    gid = _number(name, given)
    if gid is not None:
        return gid
    for entry in groups:
        if entry.name == name:
            return entry.gid
    raise RuntimeFault(
        f"unable to find group {name}: no matching entries in group file",
        hint="give a number, or create the group in the image",
    )


def _number(text: str, given: str) -> int | None:
    if not (text.isascii() and text.lstrip("-").isdigit()):
        return None
    number = int(text)
    if not 0 <= number <= _LARGEST:
        raise RuntimeFault(f"user {given}: ids must be in range 0–{_LARGEST}")
    return number


def _fields(text: bytes) -> Iterator[list[str]]:
    # Not splitlines(): it also splits at characters that a C library reads as part of a line.
    for line in text.decode(errors="replace").split("\n"):
        if line and not line.startswith("#"):
            yield line.strip().split(":")


def _users(text: bytes) -> Iterator[_User]:
    for fields in _fields(text):
        if len(fields) >= 6 and _is_id(fields[2]) and _is_id(fields[3]):
            yield _User(fields[0], int(fields[2]), int(fields[3]), fields[5])


def _groups(text: bytes) -> Iterator[_Group]:
    for fields in _fields(text):
        if len(fields) >= 3 and _is_id(fields[2]):
            members = tuple(fields[3].split(",")) if len(fields) > 3 else ()
            yield _Group(fields[0], int(fields[2]), members)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= _LARGEST
