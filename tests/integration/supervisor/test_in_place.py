"""What a running container takes over without a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.supervisor.harbour import IMAGE, Harbour


def stack(networks: tuple[str, ...] = ("back",), **attributes: Any) -> dict[str, Any]:
    service = {
        "image": IMAGE,
        "command": ["sleep", "1000"],
        "init": True,
        "networks": {key: {} for key in networks},
        **attributes,
    }
    return {
        "version": 1,
        "name": "shop",
        "working_dir": "/srv/shop",
        "config_files": ["/srv/shop/compose.yaml"],
        "services": {"web": service},
        "networks": {key: {"name": f"shop_{key}"} for key in ("back", "front")},
    }


def cgroup(harbour: Harbour, controller: str, file: str) -> str:
    (started,) = harbour.runs().values()
    for line in Path(f"/proc/{started.pid}/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        if controller in controllers.split(","):
            for root in Path("/sys/fs/cgroup").iterdir():
                if controller in root.name.split(","):
                    return (root / place.lstrip("/") / file).read_text().strip()
    raise AssertionError(f"no {controller} controller of version 1")


def test_limits_are_set_and_lifted_while_it_runs(harbour: Harbour) -> None:
    harbour.up(stack())
    (before,) = harbour.runs().values()
    free = cgroup(harbour, "memory", "memory.limit_in_bytes")
    limits: dict[str, Any] = {"mem_limit": 64 << 20, "pids_limit": 50, "cpus": 0.5}
    assert [s["action"] for s in harbour.up(stack(**limits))][:1] == ["UpdateContainer"]
    assert cgroup(harbour, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert cgroup(harbour, "pids", "pids.max") == "50"
    assert cgroup(harbour, "cpu", "cpu.cfs_quota_us") == "50000"
    harbour.up(stack())
    assert cgroup(harbour, "memory", "memory.limit_in_bytes") == free
    assert cgroup(harbour, "pids", "pids.max") == "max"
    assert cgroup(harbour, "cpu", "cpu.cfs_quota_us") == "-1"
    (after,) = harbour.runs().values()
    assert after.pid == before.pid


def test_it_joins_and_leaves_a_network_while_it_runs(harbour: Harbour) -> None:
    harbour.up(stack())
    (before,) = harbour.runs().values()
    harbour.up(stack(("back", "front")))
    assert set(harbour.containers()["shop-web-1"]["networks"]) == {"shop_back", "shop_front"}
    links = Path(f"/proc/{before.pid}/net/dev").read_text().count("eth")
    assert links == 2
    harbour.up(stack(("back",)))
    assert set(harbour.containers()["shop-web-1"]["networks"]) == {"shop_back"}
    assert Path(f"/proc/{before.pid}/net/dev").read_text().count("eth") == 1


def test_replicas_share_a_port_and_split_a_range(harbour: Harbour) -> None:
    shared = {"target": 80, "published": "18081", "protocol": "tcp", "mode": "ingress"}
    ranged = {"target": 81, "published": "18090-18092", "protocol": "tcp", "mode": "ingress"}
    harbour.up(stack(ports=[shared, ranged], scale=1))
    (before,) = harbour.runs()
    harbour.up(stack(ports=[shared, ranged], scale=3))
    found = harbour.containers()
    assert before in {c["id"] for c in found.values()}
    ports = [
        [p["host_port"] for p in c["ports"] if p["container_port"] == 80] for c in found.values()
    ]
    assert ports == [[18081]] * 3
    own = {p["host_port"] for c in found.values() for p in c["ports"] if p["container_port"] == 81}
    assert own == {18090, 18091, 18092}
    harbour.up(stack(ports=[shared], scale=2))
    assert before in harbour.runs()
