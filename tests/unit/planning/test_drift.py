"""Which differences matter, and what they take."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.planning.drift import FieldClass, field_class, needs_recreate, service_drift


def blueprint(**service: Any) -> dict[str, Any]:
    return {
        "service": {"name": "web", **service},
        "networks": {},
        "volumes": {},
        "contents": {},
    }


def drift(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [
        change.text()
        for change in service_drift(old, new, old_image="sha256:1", new_image="sha256:1")
    ]


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("profiles", FieldClass.IGNORED),
        ("build.context", FieldClass.IGNORED),
        ("depends_on.db", FieldClass.IGNORED),
        ("deploy.replicas", FieldClass.IGNORED),
        ("extensions", FieldClass.IGNORED),
        ("labels.a", FieldClass.IN_PLACE),
        ("healthcheck.interval", FieldClass.IN_PLACE),
        ("restart", FieldClass.IN_PLACE),
        ("ports", FieldClass.IN_PLACE),
        ("stop_grace_period", FieldClass.IN_PLACE),
        ("environment.A", FieldClass.RECREATE),
        ("command", FieldClass.RECREATE),
        ("networks.default", FieldClass.RECREATE),
        ("a_field_of_the_future", FieldClass.RECREATE),
    ],
)
def test_every_field_has_its_class(field: str, kind: FieldClass) -> None:
    assert field_class(field) is kind


def test_a_default_that_is_spelled_out_is_no_difference() -> None:
    old = blueprint(image="app", networks={"default": {}})
    new = blueprint(
        image="app",
        networks={"default": {"aliases": [], "priority": 0, "mac_address": ""}},
        privileged=False,
        cap_add=[],
        shm_size=0,
        logging={"driver": "", "options": {}},
    )
    assert drift(old, new) == []
    assert drift(new, old) == []


def test_an_empty_command_is_a_difference() -> None:
    assert drift(blueprint(), blueprint(command=[])) == ["command: not set → []"]


def test_an_empty_variable_is_a_difference() -> None:
    assert drift(blueprint(), blueprint(environment={"A": ""})) == ['environment.A: not set → ""']


def test_no_grace_is_a_difference() -> None:
    assert drift(blueprint(), blueprint(stop_grace_period=0)) == ["stop_grace_period: not set → 0"]


def test_a_network_without_settings_counts() -> None:
    assert drift(blueprint(), blueprint(networks={"back": {}})) == ["networks.back: not set → {}"]


def test_maps_are_compared_key_by_key_and_lists_as_a_whole() -> None:
    old = blueprint(environment={"A": "1", "B": "1"}, cap_add=["NET_ADMIN"])
    new = blueprint(environment={"A": "1", "B": "2"}, cap_add=["NET_ADMIN", "SYS_TIME"])
    assert drift(old, new) == [
        'cap_add: ["NET_ADMIN"] → ["NET_ADMIN", "SYS_TIME"]',
        "environment.B: 1 → 2",
    ]


def test_another_reference_of_the_same_image_is_no_difference() -> None:
    assert drift(blueprint(image="app"), blueprint(image="app:latest")) == []


def test_an_image_that_is_not_there_yet_is_a_difference() -> None:
    changes = service_drift(
        blueprint(image="app:1"), blueprint(image="app:2"), old_image="sha256:1", new_image=None
    )
    assert [change.text() for change in changes] == ["image: app:1 → app:2"]
    assert needs_recreate(changes)


def test_a_renamed_volume_is_a_difference() -> None:
    old, new = blueprint(), blueprint()
    old["volumes"], new["volumes"] = {"data": "shop_data"}, {"data": "other"}
    assert drift(old, new) == ["volumes.data.name: shop_data → other"]


def test_long_values_are_shown_by_where_they_differ() -> None:
    old = blueprint(command=["sh", "-c", "x" * 100 + " one " + "y" * 100])
    new = blueprint(command=["sh", "-c", "x" * 100 + " two " + "y" * 100])
    assert drift(old, new) == [
        "command: …xxxxxxxxxxx one yyyyyyyyyyy… → …xxxxxxxxxxx two yyyyyyyyyyy…"
    ]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ({}, {"mem_limit": 100}, FieldClass.IN_PLACE),
        ({"mem_limit": 50}, {"mem_limit": 100}, FieldClass.IN_PLACE),
        ({"mem_limit": 50}, {}, FieldClass.IN_PLACE),
        ({"mem_reservation": 50, "mem_swappiness": 5}, {"mem_swappiness": 5}, FieldClass.IN_PLACE),
        ({}, {"mem_swappiness": 0}, FieldClass.IN_PLACE),
        ({"cpu_shares": 50}, {}, FieldClass.IN_PLACE),
        ({"blkio_config": {"weight": 50}}, {}, FieldClass.IN_PLACE),
        (
            {"blkio_config": {"device_read_bps": [{"path": "/dev/sda", "rate": 5}]}},
            {"blkio_config": {"device_read_bps": [{"path": "/dev/sda", "rate": 9}]}},
            FieldClass.IN_PLACE,
        ),
        ({"cpuset": "0"}, {"cpuset": "1"}, FieldClass.IN_PLACE),
        ({"cpuset": "0"}, {}, FieldClass.IN_PLACE),
        ({}, {"cpuset": "0"}, FieldClass.RECREATE),
        (
            {"deploy": {"resources": {"limits": {"cpus": 1.0}}}},
            {"deploy": {"resources": {"limits": {"cpus": 2.0, "pids": 9}}}},
            FieldClass.IN_PLACE,
        ),
        (
            {"deploy": {"resources": {"limits": {"cpus": 1.0, "pids": 9}}}},
            {"deploy": {"resources": {"limits": {"cpus": 2.0}}}},
            FieldClass.IN_PLACE,
        ),
        (
            {"deploy": {"resources": {"reservations": {"memory": 9}}}},
            {"deploy": {"resources": {"limits": {"cpus": 2.0}}}},
            FieldClass.IN_PLACE,
        ),
        (
            {},
            {"deploy": {"resources": {"reservations": {"devices": [{"count": 1}]}}}},
            FieldClass.RECREATE,
        ),
    ],
)
def test_a_limit_is_set_and_lifted_in_place_where_the_kernel_can(
    old: dict[str, Any], new: dict[str, Any], kind: FieldClass
) -> None:
    (change,) = service_drift(
        blueprint(**old), blueprint(**new), old_image="sha256:1", new_image="sha256:1"
    )
    assert change.kind is kind


def networked(*keys: str) -> dict[str, Any]:
    made = blueprint(networks={key: {} for key in keys})
    return {**made, "networks": {key: f"shop_{key}" for key in keys}}


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (("a",), ("a", "b"), FieldClass.IN_PLACE),
        (("a", "b"), ("a",), FieldClass.IN_PLACE),
        (("b",), ("a", "b"), FieldClass.RECREATE),
        (("a", "b"), ("b",), FieldClass.RECREATE),
    ],
)
def test_a_network_comes_and_goes_in_place_unless_the_container_lives_by_it(
    old: tuple[str, ...], new: tuple[str, ...], kind: FieldClass
) -> None:
    (change,) = service_drift(
        networked(*old), networked(*new), old_image="sha256:1", new_image="sha256:1"
    )
    assert change.kind is kind
