"""Which device nodes a container may use: the v1 list, and the same as a BPF program for v2."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.container.config import Device
from runtime.errors import RuntimeFault

ANY = -1


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Allow `access` (of "rwm") to device `kind` ("c", "b", "a") major:minor; -1 is any."""

    kind: str
    major: int
    minor: int
    access: str

    def __str__(self) -> str:
        major, minor = (
            "*" if number == ANY else str(number) for number in (self.major, self.minor)
        )
        return f"{self.kind} {major}:{minor} {self.access}"


# mknod of anything is allowed, use only of what follows (moby oci/defaults.go and runc).
DEFAULT_RULES = (
    DeviceRule("c", ANY, ANY, "m"),
    DeviceRule("b", ANY, ANY, "m"),
    DeviceRule("c", 1, 3, "rwm"),  # null
    DeviceRule("c", 1, 5, "rwm"),  # zero
    DeviceRule("c", 1, 7, "rwm"),  # full
    DeviceRule("c", 1, 8, "rwm"),  # random
    DeviceRule("c", 1, 9, "rwm"),  # urandom
    DeviceRule("c", 5, 0, "rwm"),  # tty
    DeviceRule("c", 5, 1, "rwm"),  # console
    DeviceRule("c", 5, 2, "rwm"),  # ptmx
    DeviceRule("c", 136, ANY, "rwm"),  # pts
)
EVERYTHING = (DeviceRule("a", ANY, ANY, "rwm"),)


def device_rules(
    devices: Iterable[Device], extra: Iterable[str], *, privileged: bool
) -> tuple[DeviceRule, ...]:
    """The rules for a container with `devices` and Compose's `device_cgroup_rules`."""
    if privileged:
        return EVERYTHING
    granted = []
    for device in devices:
        try:
            status = os.stat(device.source)
        except OSError as error:
            raise RuntimeFault(f"device {device.source}") from error
        if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise RuntimeFault(f"{device.source} is not a device node")
        kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
        granted.append(
            DeviceRule(kind, os.major(status.st_rdev), os.minor(status.st_rdev), device.permissions)
        )
    return (*DEFAULT_RULES, *granted, *(parse_rule(text) for text in extra))


def parse_rule(text: str) -> DeviceRule:
    """Read "c 1:3 rwm" (Compose `device_cgroup_rules`)."""
    try:
        kind, numbers, access = text.split()
        major, minor = (ANY if part == "*" else int(part) for part in numbers.split(":"))
    except ValueError as error:
        raise RuntimeFault(f'device rule "{text}" is not like "c 1:3 rwm"') from error
    if kind not in ("a", "b", "c") or not access or set(access) - set("rwm") or "-" in numbers:
        raise RuntimeFault(f'device rule "{text}" is not like "c 1:3 rwm"')
    return DeviceRule(kind, major, minor, access)


# --- the v2 program (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE) -----------------------------------
# The context is struct bpf_cgroup_dev_ctx: u32 access_type (kind in the low, access in the
# high 16 bits), u32 major, u32 minor.

_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

_LDX_W = 0x61
_MOV_K = 0xB7
_MOV32_X = 0xBC
_AND32_K = 0x54
_RSH32_K = 0x74
_JNE_K = 0x55
_JNE_X = 0x5D
_EXIT = 0x95


def _instruction(
    code: int, *, target: int = 0, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, offset, value)


def bpf_program(rules: Sequence[DeviceRule]) -> bytes:
    """A BPF program that returns 1 for what `rules` allow and 0 for the rest."""
    program = [
        _instruction(_LDX_W, target=2, source=1, offset=0),
        _instruction(_AND32_K, target=2, value=0xFFFF),  # r2: kind
        _instruction(_LDX_W, target=3, source=1, offset=0),
        _instruction(_RSH32_K, target=3, value=16),  # r3: access
        _instruction(_LDX_W, target=4, source=1, offset=4),  # r4: major
        _instruction(_LDX_W, target=5, source=1, offset=8),  # r5: minor
    ]
    for rule in rules:
        program += _allow(rule)
    program += [_instruction(_MOV_K, target=0, value=0), _instruction(_EXIT)]
    return b"".join(program)


def _allow(rule: DeviceRule) -> list[bytes]:
    tests: list[list[bytes]] = []
    if rule.kind != "a":
        tests.append([_instruction(_JNE_K, target=2, value=_KINDS[rule.kind])])
    bits = sum(_ACCESS[letter] for letter in set(rule.access))
    if bits != 7:
        # What is asked for must lie within the rule's bits: (asked & bits) == asked.
        tests.append(
            [
                _instruction(_MOV32_X, target=1, source=3),
                _instruction(_AND32_K, target=1, value=bits),
                _instruction(_JNE_X, target=1, source=3),
            ]
        )
    if rule.major != ANY:
        tests.append([_instruction(_JNE_K, target=4, value=rule.major)])
    if rule.minor != ANY:
        tests.append([_instruction(_JNE_K, target=5, value=rule.minor)])
    accept = [_instruction(_MOV_K, target=0, value=1), _instruction(_EXIT)]
    block = [item for test in tests for item in test] + accept
    # Each failed test (the last instruction of its group) jumps behind the block.
    position = 0
    for test in tests:
        position += len(test)
        jump = block[position - 1]
        code, registers, _offset, value = struct.unpack("<BBhi", jump)
        block[position - 1] = struct.pack("<BBhi", code, registers, len(block) - position, value)
    return block
