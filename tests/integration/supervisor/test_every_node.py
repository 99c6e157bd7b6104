"""kill -9 of the daemon as each node of a plan begins and ends: the next `up` completes it, and
nothing is there that would not be there without the kill."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.supervisor.harbour import IMAGE, Harbour, command_lines
from tests.integration.supervisor.test_crashes import CHECK

_DESCRIPTOR = re.compile(r"--ready-fd \d+ ?")

NODES = (
    "build image shop-api",
    "create network shop_back",
    "create volume shop_cache",
    "stop container shop-db-1",
    "remove container shop-db-1",
    "create container shop-db-1",
    "start container shop-db-1",
    "create container shop-api-pre-start-1",
    "start container shop-api-pre-start-1",
    "wait for container shop-api-pre-start-1 to be completed",
    "remove container shop-api-pre-start-1",
    "create container shop-api-1",
    "wait for container shop-db-1 to be healthy",
    "start container shop-api-1",
    "run post_start hook 1 in container shop-api-1",
    "wait for container shop-api-1 to be ready",
)


def stack(release: int, context: Path) -> dict[str, Any]:
    """A store; its second release differs, and has a service that is built and hooked beside."""
    shared = {"image": IMAGE, "init": True, "stop_grace_period": 500_000_000}
    services: dict[str, Any] = {
        "db": {
            **shared,
            "command": ["sh", "-c", f"touch /data/ready /own/{release}; exec sleep 1000"],
            "environment": {"RELEASE": str(release)},
            "healthcheck": CHECK,
            "volumes": [
                {"type": "volume", "source": "data", "target": "/data"},
                {"type": "volume", "target": "/own"},
            ],
            "restart": "unless-stopped",
            "networks": {"front": {}},
        }
    }
    networks = {"front": {"name": "shop_front"}}
    volumes = {"data": {"name": "shop_data"}}
    if release == 2:
        networks["back"] = {"name": "shop_back"}
        volumes["cache"] = {"name": "shop_cache"}
        text = f"FROM {IMAGE}\nRUN touch /built\n"
        services["api"] = {
            **{key: value for key, value in shared.items() if key != "image"},
            "build": {"context": str(context), "dockerfile_inline": text},
            "command": ["sleep", "1000"],
            "depends_on": {"db": {"condition": "service_healthy"}},
            "networks": {"back": {}, "front": {}},
            "ports": [{"target": 80, "published": "18090", "protocol": "tcp", "mode": "ingress"}],
            "volumes": [
                {"type": "volume", "source": "cache", "target": "/data"},
                {"type": "volume", "target": "/scratch"},
            ],
            "pre_start": [{"command": ["touch", "/data/prepared"]}],
            "post_start": [{"command": ["touch", "/data/told"]}],
        }
    return {
        "version": 1,
        "name": "shop",
        "working_dir": str(context),
        "config_files": [str(context / "compose.yaml")],
        "services": services,
        "networks": networks,
        "volumes": volumes,
    }


def inventory(harbour: Harbour) -> dict[str, Any]:
    """All that there is of the instance, on disk and in the kernel, with names in place of ids."""
    names = {c["id"]: name for name, c in harbour.containers().items()}

    def named(text: str) -> str:
        for id, name in names.items():
            text = text.replace(id, name).replace(id[:12], name)
        return text

    tag = hashlib.sha256(str(harbour.root.resolve()).encode()).hexdigest()[:8]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    places = (line.split()[4] for line in mounts if f"{harbour.root.parent}/" in line)
    groups = (place for place, _, _ in os.walk("/sys/fs/cgroup") if tag in place)
    inside = ("nsenter", f"--net=/run/netns/{harbour.netns}")
    links = json.loads(_output(*inside, "ip", "-j", "link"))
    return {
        "containers": sorted(named(p.name) for p in (harbour.root / "containers").iterdir()),
        "files": sorted(named(str(p.relative_to(harbour.root))) for p in _files(harbour.root)),
        "volumes": sorted(_anonymous(p.name) for p in (harbour.root / "volumes").iterdir()),
        "namespaces": sorted(named(path.name) for path in harbour.run.glob("netns/*")),
        "mounts": sorted(named(place) for place in places),
        "groups": sorted(named(place) for place in groups),
        "links": dict(Counter(link.get("linkinfo", {}).get("info_kind", "") for link in links)),
        "leases": _leases(harbour),
        "rules": _elements(_output(*inside, "nft", "-j", "list", "ruleset")),
        "processes": sorted(
            named(_DESCRIPTOR.sub("", line))
            for _, line in command_lines()
            if str(harbour.root) in line
        ),
    }


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """By kind what is there too often (+) or not often enough (-), and how often."""
    different = {}
    for kind, things in wanted.items():
        counts = Counter(found[kind])
        counts.subtract(Counter(things))
        if left := {thing: f"{number:+}" for thing, number in counts.items() if number}:
            different[kind] = left
    return different


def settled(harbour: Harbour, wanted: dict[str, Any], where: str) -> None:
    """Wait until there is what is wanted: links go some time after their namespaces."""
    deadline = time.monotonic() + 60
    while different := differences(wanted, inventory(harbour)):
        assert time.monotonic() < deadline, (where, different)
        time.sleep(0.1)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _anonymous(name: str) -> str:
    """A volume's name; those of anonymous ones are random."""
    return "anonymous" if len(name) == 64 else name


def _files(root: Path) -> Iterator[Path]:
    """What may be left half made: containers' own files, locks, pins, and all in images."""
    for folder in ("blobs", "cache", "ingest", "locks", "networks", "pins", "projects"):
        yield from (root / folder).rglob("*")
    yield from (path for path in root.glob("layers/*") if path.name != "empty")
    yield from (path for path in root.glob("containers/*/*") if path.name != "exit.json")


def _leases(harbour: Harbour) -> dict[str, int]:
    """How many rows each table of addresses has, but for that of links which are about to go."""
    with closing(sqlite3.connect(harbour.root / "networks" / "leases.db")) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for (name,) in tables
            if name != "departed"
        }


def _elements(ruleset: str) -> dict[str, int]:
    """How many rules each chain has, and how many elements each set and map."""
    found: Counter[str] = Counter()
    for entry in json.loads(ruleset)["nftables"]:
        for kind, thing in entry.items():
            if kind in ("set", "map"):
                found[f"{kind} {thing['name']}"] = len(thing.get("elem", ()))
            elif kind == "rule":
                found[f"chain {thing['chain']}"] += 1
    return dict(found)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def begin(harbour: Harbour, context: Path) -> None:
    """The first release is up, and nothing of the second is there."""
    down = harbour.result("down", options={"volumes": True, "timeout": 0, "rmi": "local"})
    assert down["ok"], down
    harbour.up(stack(1, context))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("status", ["running", "done"])
def test_every_node_of_a_plan_may_be_the_last(harbour: Harbour, context: Path, status: str) -> None:
    harbour.up(stack(1, context))
    plan = harbour.up(stack(2, context))
    assert sorted(step["text"] for step in plan) == sorted(NODES)
    wanted = inventory(harbour)
    for node in plan:
        begin(harbour, context)
        kill_at(harbour, stack(2, context), node["id"], status)
        harbour.start()
        where = f"killed with {node['text']} {status}"
        harbour.up(stack(2, context))
        assert harbour.up(stack(2, context)) == [], where
        settled(harbour, wanted, where)
        (own,) = (harbour.root / "volumes").glob("*/_data/2")
        assert own.with_name("1").exists(), f"{where}: db has another volume than before"
        for told in ("prepared", "told"):
            assert (harbour.root / "volumes/shop_cache/_data" / told).exists(), where


def kill_at(harbour: Harbour, project: dict[str, Any], id: int, status: str) -> None:
    """kill -9 once the step of this id has come to this status."""

    def reached(event: dict[str, Any]) -> bool:
        return event["type"] == "step" and (event["id"], event["status"]) == (id, status)

    harbour.kill_when(project, reached)
