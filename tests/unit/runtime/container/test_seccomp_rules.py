"""The system call filter allows what Docker's profile allows, and refuses the rest."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from runtime.container.confinement import seccomp_program, seccomp_rules
from runtime.linux.seccomp import ALLOW, Argument, Rule, refuse

PROFILE = Path(__file__).parents[4] / "../shared/corpora/seccomp/default.json"
EPERM = refuse(1)
MACHINES = {
    "x86_64": {"amd64", "x32", "x86"},
    "aarch64": {"arm64", "arm"},
    "s390x": {"s390x", "s390"},
    "ppc64le": {"ppc64le"},
    "riscv64": {"riscv64"},
}
CAPABILITIES = (
    (),
    ("CHOWN", "SYS_CHROOT"),
    ("SYS_ADMIN",),
    ("BPF", "PERFMON"),
    ("DAC_READ_SEARCH", "SYS_BOOT", "SYS_MODULE", "SYS_PACCT"),
    ("SYS_PTRACE", "SYS_RAWIO", "SYS_TIME", "SYS_TTY_CONFIG", "SYS_NICE", "SYSLOG"),
)


def _profile() -> dict[str, Any]:
    if not PROFILE.exists():
        pytest.skip("the reference profile is not beside the repository")
    loaded: dict[str, Any] = json.loads(PROFILE.read_text())
    return loaded


def _applies(group: dict[str, Any], held: set[str], arches: set[str]) -> bool:
    includes, excludes = group.get("includes", {}), group.get("excludes", {})
    if "caps" in includes and not {f"CAP_{name}" for name in held} >= set(includes["caps"]):
        return False
    if "arches" in includes and not arches & set(includes["arches"]):
        return False
    return not (
        {f"CAP_{name}" for name in held} & set(excludes.get("caps", ()))
        or arches & set(excludes.get("arches", ()))
    )


def _reference(held: set[str], arches: set[str]) -> list[Rule]:
    """The profile's groups as rules of ours."""
    rules = []
    for group in _profile()["syscalls"]:
        if not _applies(group, held, arches):
            continue
        action = ALLOW if group["action"] == "SCMP_ACT_ALLOW" else refuse(group["errnoRet"])
        arguments = tuple(
            Argument(
                item["index"],
                item["op"].removeprefix("SCMP_CMP_"),
                item["value"],
                item.get("valueTwo", 0),
            )
            for item in group.get("args", ())
        )
        rules.append(Rule(tuple(group["names"]), action, arguments))
    return rules


def _answer(rules: list[Rule], name: str, arguments: tuple[int, ...]) -> int:
    answers = {
        rule.action
        for rule in rules
        if name in rule.names and all(_holds(item, arguments) for item in rule.arguments)
    }
    return ALLOW if ALLOW in answers else next(iter(answers), EPERM)


def _holds(condition: Argument, arguments: tuple[int, ...]) -> bool:
    value = arguments[condition.index]
    match condition.comparison:
        case "LT":
            return value < condition.value
        case "EQ":
            return value == condition.value
        case "GT":
            return value > condition.value
        case "MASKED_EQ":
            return value & condition.value == condition.equals
        case other:
            raise AssertionError(f"no rule of ours compares with {other}")


@pytest.mark.parametrize(("machine", "held"), list(itertools.product(MACHINES, CAPABILITIES)))
def test_the_rules_decide_as_docker_s_profile(machine: str, held: tuple[str, ...]) -> None:
    reference = _reference(set(held), MACHINES[machine])
    ours = seccomp_rules(held, machine)
    names = {name for rule in (*reference, *ours) for name in rule.names}
    names |= {name for group in _profile()["syscalls"] for name in group["names"]}
    values = (0, 1, 8, 37, 38, 39, 40, 41, 0x20000, 0x20008, 0x10000000, 0x02000000, 0xFFFFFFFF, 9)
    for name in sorted(names):
        for first, second in itertools.product(values, (0, 0x10000000)):
            call = (first, second)
            assert _answer(ours, name, call) == _answer(reference, name, call), (name, call)


def test_the_profile_s_default_is_ours() -> None:
    profile = _profile()
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)


# --- the compiled program -------------------------------------------------------------------

_X86_64, _I386 = 0xC000003E, 0x40000003


def _run(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """Interpret a classic BPF program on struct seccomp_data (seccomp(2))."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    code = list(struct.iter_unpack("HBBI", program))
    accumulator, position = 0, 0
    while True:
        operation, jump_true, jump_false, value = code[position]
        position += 1
        match operation:
            case 0x20:  # ld [k]
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:  # and #k
                accumulator &= value
            case 0x05:  # ja
                position += value
            case 0x15:  # jeq
                position += jump_true if accumulator == value else jump_false
            case 0x25:  # jgt
                position += jump_true if accumulator > value else jump_false
            case 0x35:  # jge
                position += jump_true if accumulator >= value else jump_false
            case 0x06:  # ret
                return int(value)
            case other:
                raise AssertionError(f"unknown operation {other:#x}")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    import os

    if os.uname().machine != "x86_64":
        pytest.skip("the numbers below are those of x86_64")
    return seccomp_program((), tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("number", "arguments", "answer"),
    [
        (39, (), ALLOW),  # getpid
        (41, (2,), ALLOW),  # socket AF_INET
        (41, (38,), EPERM),  # AF_ALG
        (41, (39,), ALLOW),
        (41, (40,), EPERM),  # AF_VSOCK
        (41, (41,), ALLOW),
        (56, (17,), ALLOW),  # clone, as fork
        (56, (0x10000000,), EPERM),  # CLONE_NEWUSER
        (56, (0x02000000 | 17,), EPERM),  # CLONE_NEWCGROUP
        (435, (), refuse(38)),  # clone3
        (272, (0x20000,), EPERM),  # unshare
        (165, (), EPERM),  # mount
        (250, (), EPERM),  # keyctl
        (321, (), EPERM),  # bpf
        (425, (), EPERM),  # io_uring_setup
        (135, (0xFFFFFFFF,), ALLOW),  # personality
        (135, (0x40000,), EPERM),
        (1000, (), refuse(38)),
        (0x40000000 | 165, (), EPERM),  # x32
        (0x40000000 | 39, (), ALLOW),
    ],
)
def test_the_program_decides_on_x86_64(
    program: bytes, number: int, arguments: tuple[int, ...], answer: int
) -> None:
    assert _run(program, number, _X86_64, arguments) == answer


@pytest.mark.parametrize(
    ("number", "arguments", "answer"),
    [
        (20, (), ALLOW),  # getpid
        (21, (), EPERM),  # mount
        (288, (), EPERM),  # keyctl
        (359, (38,), EPERM),  # socket AF_ALG
        (359, (1,), ALLOW),
        (310, (), EPERM),  # unshare
    ],
)
def test_the_program_decides_on_the_32_bit_entry(
    program: bytes, number: int, arguments: tuple[int, ...], answer: int
) -> None:
    assert _run(program, number, _I386, arguments) == answer


def test_an_architecture_that_is_not_named_is_killed(program: bytes) -> None:
    assert _run(program, 39, 0xC00000B7) in (0, 0x80000000)


def test_programs_are_kept_and_differ_by_capabilities(tmp_path: Path, program: bytes) -> None:
    assert seccomp_program((), tmp_path) == program
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"from the cache")
    assert seccomp_program((), tmp_path) == b"from the cache"
    assert seccomp_program(("SYS_ADMIN",), tmp_path) != program
