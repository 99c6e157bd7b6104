"""Which capabilities a container holds."""

from __future__ import annotations

import pytest

from runtime.container.confinement import DEFAULT_CAPABILITIES, held_capabilities
from runtime.errors import RuntimeFault
from runtime.linux.capabilities import NAMES, NUMBERS

EVERY = (1 << len(NAMES)) - 1


def held(
    *, add: tuple[str, ...] = (), drop: tuple[str, ...] = (), available: int = EVERY
) -> set[str]:
    return set(held_capabilities(add, drop, privileged=False, available=available))


def test_the_default_are_docker_s_fourteen() -> None:
    assert held() == set(DEFAULT_CAPABILITIES) and len(DEFAULT_CAPABILITIES) == 14


def test_names_come_with_or_without_prefix_in_any_case() -> None:
    assert held(add=("cap_net_admin",)) == held(add=("NET_ADMIN",)) == held(add=("Cap_Net_Admin",))
    assert "CHOWN" not in held(drop=("cap_chown",))


def test_all_can_be_added_and_dropped() -> None:
    assert held(add=("ALL",)) == set(NAMES)
    assert held(drop=("all",)) == set()
    assert held(drop=("ALL",), add=("CHOWN",)) == {"CHOWN"}
    assert held(add=("ALL",), drop=("SYS_ADMIN",)) == set(NAMES) - {"SYS_ADMIN"}


def test_what_is_dropped_by_name_is_not_held() -> None:
    assert "CHOWN" not in held(add=("CHOWN",), drop=("CHOWN",))


def test_privileged_holds_every_one_whatever_else_is_said() -> None:
    found = held_capabilities((), ("ALL",), privileged=True, available=EVERY)
    assert found == NAMES


def test_nothing_goes_beyond_what_is_available_but_by_name() -> None:
    available = EVERY & ~(1 << NUMBERS["SYS_RESOURCE"]) & ~(1 << NUMBERS["MKNOD"])
    assert "SYS_RESOURCE" not in held(add=("ALL",), available=available)
    assert "MKNOD" not in held(available=available)
    assert "SYS_RESOURCE" in held(add=("SYS_RESOURCE",), available=available)
    privileged = held_capabilities((), (), privileged=True, available=available)
    assert "SYS_RESOURCE" not in privileged and "SYS_ADMIN" in privileged


def test_the_order_is_the_kernel_s() -> None:
    found = held_capabilities(("SYS_ADMIN", "BPF"), (), privileged=False, available=EVERY)
    assert [NUMBERS[name] for name in found] == sorted(NUMBERS[name] for name in found)


@pytest.mark.parametrize("name", ["NOTHING", "CAP_", "", "CHOWN "])
def test_an_unknown_name_is_refused_with_a_hint(name: str) -> None:
    for add, drop in (((name,), ()), ((), (name,))):
        with pytest.raises(RuntimeFault, match="unknown capability") as caught:
            held(add=add, drop=drop)
        assert caught.value.hint is not None
