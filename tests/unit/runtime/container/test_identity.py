"""Users and groups by the image's files."""

from __future__ import annotations

import pytest

from runtime.container.identity import Identity, resolve
from runtime.errors import RuntimeFault

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
bob:x:1000:1000:Bob:/home/bob:/bin/sh
0:x:1001:1001::/number:/bin/sh
5000:x:7:7::/seven:/bin/sh
homeless:x:8:8:::/bin/sh
broken
half:x:9
text:x:nine:nine::/:/bin/sh
huge:x:4294967296:0::/:/bin/sh
# comment:x:1:1::/:/bin/sh
carol:x:1002:3000::/home/carol:/bin/sh
"""
GROUP = b"""root:x:0:
bob:x:1000:
crew:x:2000:bob,carol
night:x:2001:carol
44:x:2002:bob
bad
"""


def who(user: str, additional: tuple[str, ...] = ()) -> Identity:
    return resolve(user, PASSWD, GROUP, additional)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(uid=0, gid=0, groups=(0,), home="/root")),
        ("root", Identity(uid=0, gid=0, groups=(0,), home="/root")),
        ("bob", Identity(uid=1000, gid=1000, groups=(1000, 2000, 2002), home="/home/bob")),
        ("1000", Identity(uid=1000, gid=1000, groups=(1000, 2000, 2002), home="/home/bob")),
        ("carol", Identity(uid=1002, gid=3000, groups=(2000, 2001, 3000), home="/home/carol")),
        ("bob:night", Identity(uid=1000, gid=2001, groups=(2001,), home="/home/bob")),
        ("bob:7", Identity(uid=1000, gid=7, groups=(7,), home="/home/bob")),
        ("bob:", Identity(uid=1000, gid=1000, groups=(1000, 2000, 2002), home="/home/bob")),
        (":crew", Identity(uid=0, gid=2000, groups=(2000,), home="/root")),
        ("77", Identity(uid=77, gid=0, groups=(0,), home="/")),
        ("77:88", Identity(uid=77, gid=88, groups=(88,), home="/")),
        ("homeless", Identity(uid=8, gid=8, groups=(8,), home="/")),
        ("2147483647", Identity(uid=2147483647, gid=0, groups=(0,), home="/")),
    ],
)
def test_a_user_is_found(user: str, expected: Identity) -> None:
    assert who(user) == expected


def test_a_number_is_a_number_whatever_the_names() -> None:
    assert who("0").uid == 0
    assert who("5000").uid == 5000
    assert who("bob:44").gid == 44


@pytest.mark.parametrize(
    "user",
    ["-1", "4294967296", "2147483648", "99999999999999999999", "bob:-1", "0:4294967295", "-0x1:0"],
)
def test_a_number_out_of_range_is_refused(user: str) -> None:
    with pytest.raises(RuntimeFault, match=r"range|unable to find"):
        who(user)


@pytest.mark.parametrize("user", ["eve", "half", "text", "huge", "broken", "# comment", "٣", "1e3"])
def test_an_unknown_name_is_refused_with_a_hint(user: str) -> None:
    with pytest.raises(RuntimeFault, match="unable to find user") as caught:
        who(user)
    assert caught.value.hint is not None


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(RuntimeFault, match="unable to find group nobody"):
        who("bob:nobody")
    with pytest.raises(RuntimeFault, match="unable to find group nobody"):
        who("bob", ("nobody",))


def test_added_groups_come_on_top() -> None:
    assert who("bob", ("night", "5")).groups == (5, 1000, 2000, 2001, 2002)
    assert who("bob:7", ("night",)).groups == (7, 2001)


def test_without_files_only_numbers_are_known() -> None:
    assert resolve("12:34", None, None) == Identity(uid=12, gid=34, groups=(34,), home="/")
    assert resolve("", None, None).uid == 0
    with pytest.raises(RuntimeFault):
        resolve("bob", None, None)


def test_bytes_that_are_no_text_disturb_nothing() -> None:
    found = resolve("bob", b"\xff\xfe:x:1:1::/:\n" + PASSWD, GROUP)
    assert found.uid == 1000


def test_a_line_separator_other_than_a_newline_makes_no_line() -> None:
    """A form feed or U+2028 inside a comment field must not begin an entry."""
    passwd = "a:x:5:5:\x0croot2:x:0:0::/:\u2028evil:x:0:0::/:x:/home:/bin/sh\n".encode()
    with pytest.raises(RuntimeFault):
        resolve("evil", passwd, None)
    with pytest.raises(RuntimeFault):
        resolve("root2", passwd, None)


def test_the_first_entry_of_a_name_counts() -> None:
    assert resolve("a", b"a:x:1:1::/:\na:x:2:2::/:\n", None).uid == 1
