"""Device rules and the program that decides by them in v2."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cgroups.devices import (
    ANY,
    DEFAULT_RULES,
    EVERYTHING,
    DeviceRule,
    bpf_program,
    device_rules,
    parse_rule,
)
from runtime.container.config import Device
from runtime.errors import RuntimeFault

KINDS = {"b": 1, "c": 2}
BITS = {"m": 1, "r": 2, "w": 4}


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> int:
    """Interpret the opcodes that the program uses (bpf(2), struct bpf_cgroup_dev_ctx)."""
    bits = sum(BITS[letter] for letter in access)
    context = struct.pack("<III", bits << 16 | KINDS[kind], major, minor)
    code = list(struct.iter_unpack("<BBhi", program))
    registers = [0] * 11
    position = 0
    steps = 0
    while True:
        operation, numbers, offset, value = code[position]
        target, source = numbers & 15, numbers >> 4
        position += 1
        steps += 1
        assert steps < 4096
        match operation:
            case 0x61:  # r = *(u32 *)(ctx + off)
                assert source == 1 and not clobbered(code[: position - 1], source)
                (registers[target],) = struct.unpack_from("<I", context, offset)
            case 0xB7:
                registers[target] = value
            case 0xBC:
                registers[target] = registers[source] & 0xFFFFFFFF
            case 0x54:
                registers[target] &= value & 0xFFFFFFFF
            case 0x74:
                registers[target] = (registers[target] & 0xFFFFFFFF) >> value
            case 0x55:
                position += offset if registers[target] != value else 0
            case 0x5D:
                position += offset if registers[target] != registers[source] else 0
            case 0x95:
                return registers[0]
            case other:
                raise AssertionError(f"unknown operation {other:#x}")


def clobbered(before: list[tuple[int, int, int, int]], register: int) -> bool:
    return any(item[1] & 15 == register for item in before)


def allowed(rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str) -> bool:
    """What the rules mean: one of them covers all that is asked for."""
    return any(
        rule.kind in ("a", kind)
        and rule.major in (ANY, major)
        and rule.minor in (ANY, minor)
        and set(access) <= set(rule.access)
        for rule in rules
    )


ACCESSES = ["".join(item) for size in (1, 2, 3) for item in itertools.combinations("rwm", size)]
rule = st.builds(
    DeviceRule,
    st.sampled_from("abc"),
    st.sampled_from([ANY, 0, 1, 5, 136, 4095]),
    st.sampled_from([ANY, 0, 3, 5, 1048575]),
    st.sampled_from(ACCESSES),
)


@given(
    rules=st.lists(rule, max_size=6).map(tuple),
    kind=st.sampled_from("bc"),
    major=st.sampled_from([0, 1, 5, 136, 4095]),
    minor=st.sampled_from([0, 3, 5, 1048575]),
    access=st.sampled_from(ACCESSES),
)
def test_the_program_decides_as_the_rules_say(
    rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str
) -> None:
    assert run(bpf_program(rules), kind, major, minor, access) == allowed(
        rules, kind, major, minor, access
    )


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "answer"),
    [
        ("c", 1, 3, "rw", 1),  # null
        ("c", 136, 7, "rwm", 1),  # a terminal
        ("b", 8, 0, "m", 1),  # any node may be made
        ("b", 8, 0, "r", 0),  # but not used
        ("c", 1, 1, "r", 0),  # mem
        ("c", 10, 229, "rw", 0),  # fuse
        ("c", 10, 200, "rw", 0),  # tun
    ],
)
def test_the_default_rules(kind: str, major: int, minor: int, access: str, answer: int) -> None:
    assert run(bpf_program(DEFAULT_RULES), kind, major, minor, access) == answer


def test_everything_is_everything() -> None:
    assert run(bpf_program(EVERYTHING), "b", 8, 0, "rwm") == 1


def test_rules_are_written_as_v1_reads_them() -> None:
    assert [str(item) for item in (*DEFAULT_RULES[:3], *EVERYTHING)] == [
        "c *:* m", "b *:* m", "c 1:3 rwm", "a *:* rwm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c 1:3 rwm", DeviceRule("c", 1, 3, "rwm")),
        ("b 8:* r", DeviceRule("b", 8, ANY, "r")),
        ("a *:* rwm", DeviceRule("a", ANY, ANY, "rwm")),
    ],
)
def test_a_rule_is_read(text: str, expected: DeviceRule) -> None:
    assert parse_rule(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c",
        "c 1:3",
        "x 1:3 r",
        "c 1 r",
        "c 1:3:4 r",
        "c 1:3 z",
        "c 1:3  ",
        "c a:3 r",
        "c -5:1 r",
    ],
)
def test_a_rule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RuntimeFault, match="is not like"):
        parse_rule(text)


def test_devices_add_rules_for_what_they_are() -> None:
    device = Device(source="/dev/zero", target="/dev/mine", permissions="r")
    rules = device_rules([device], ["c 10:200 rw"], privileged=False)
    assert rules == (
        *DEFAULT_RULES, DeviceRule("c", 1, 5, "r"), DeviceRule("c", 10, 200, "rw"),
    )  # fmt: skip
    assert device_rules([device], [], privileged=True) == EVERYTHING


def test_what_is_no_device_is_refused() -> None:
    for source, message in (("/nowhere", "device /nowhere"), ("/", "is not a device node")):
        with pytest.raises(RuntimeFault, match=message):
            device_rules([Device(source=source, target="/x")], [], privileged=False)
