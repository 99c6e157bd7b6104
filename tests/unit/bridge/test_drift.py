"""Links and addresses beside what they should be."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from bridge.config import Endpoint, Network
from bridge.drift import concerned, out_of_place
from bridge.rtnetlink import Link

NETWORK = Network(
    id="n1", name="front", subnet="10.9.0.0/24", gateway="10.9.0.1", interface="bp0", mtu=1400
)
OTHER = replace(NETWORK, id="n2", subnet="10.9.1.0/24", gateway="10.9.1.1", interface="bp1")
ENDPOINT = Endpoint(
    sandbox_id="web",
    network_id="n1",
    address="10.9.0.2",
    prefix=24,
    gateway="10.9.0.1",
    mac="02:42:0a:09:00:02",
    interface="eth0",
    link="bv0",
)
BRIDGE = Link(
    index=7,
    name="bp0",
    up=True,
    kind="bridge",
    master=0,
    mtu=1400,
    mac="02:00:00:00:00:01",
    alias="",
)
OTHER_BRIDGE = replace(BRIDGE, index=8, name="bp1")
END = replace(BRIDGE, index=9, name="bv0", kind="veth", master=7)
ADDRESS = (7, IPv4Address("10.9.0.1"), 24)
OTHER_ADDRESS = (8, IPv4Address("10.9.1.1"), 24)


def drifted(*links: Link, addresses: tuple[tuple[int, IPv4Address, int], ...] = ()) -> set[str]:
    found = out_of_place(
        [NETWORK, OTHER],
        [ENDPOINT],
        (*links, OTHER_BRIDGE),
        (*(addresses or (ADDRESS,)), OTHER_ADDRESS),
    )
    return set(found)


def test_what_is_right_is_left_out() -> None:
    assert drifted(BRIDGE, END) == set()


@pytest.mark.parametrize(
    "links",
    [
        (),
        (BRIDGE,),
        (END,),
        (replace(BRIDGE, up=False), END),
        (replace(BRIDGE, mtu=1500), END),
        (BRIDGE, replace(END, up=False)),
        (BRIDGE, replace(END, master=0)),
        (BRIDGE, replace(END, master=8)),
    ],
)
def test_a_link_that_is_not_right_is_found(links: tuple[Link, ...]) -> None:
    assert drifted(*links) == {"n1"}


@pytest.mark.parametrize(
    "addresses",
    [
        ((9, IPv4Address("10.9.0.1"), 24),),
        ((7, IPv4Address("10.9.0.1"), 16),),
        (ADDRESS, (7, IPv4Address("192.0.2.1"), 24)),
    ],
)
def test_an_address_that_is_not_right_is_found(
    addresses: tuple[tuple[int, IPv4Address, int], ...],
) -> None:
    assert drifted(BRIDGE, END, addresses=addresses) == {"n1"}


def test_links_of_others_are_no_concern() -> None:
    assert not concerned({"eth0", "docker0"}, [NETWORK], [ENDPOINT])
    assert concerned({"eth0", "bp0"}, [NETWORK], [ENDPOINT])
    assert concerned({"bv0"}, [NETWORK], [ENDPOINT])
