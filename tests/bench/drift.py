"""Measures how long what others break stays broken: each thing is broken some times over.

`make bench` runs it as root. Told is the time from the act to the `drift` event, right the time
until a look at the host (not the daemon's word) finds everything in place again.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.integration.supervisor.harbour import BUSYBOX, IMAGE, Harbour

GOAL = 1.0
PATIENCE = 40.0

_SERVICE = {
    "image": IMAGE,
    "init": True,
    "restart": "always",
    "networks": {"default": {}},
    "stop_grace_period": 0,
    "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
}
_PROJECT: dict[str, Any] = {
    "version": 1,
    "name": "shop",
    "working_dir": "/srv/shop",
    "config_files": ["/srv/shop/compose.yaml"],
    "services": {
        "web": {
            **_SERVICE,
            "ports": [{"target": 80, "published": "8080", "protocol": "tcp", "mode": "ingress"}],
        },
        "worker": {**_SERVICE, "scale": 3},
    },
    "networks": {"default": {"name": "shop_default"}},
    "volumes": {"data": {"name": "shop_data"}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakage:
    """`act` breaks something; `right` says whether it is whole again, None where only telling
    is to be had."""

    title: str
    act: Callable[[], object]
    right: Callable[[], bool] | None


class Host:
    """What there is outside of the daemon's word."""

    def __init__(self, harbour: Harbour) -> None:
        self._harbour = harbour
        self._prefix = ("nsenter", f"--net=/run/netns/{harbour.netns}")

    def inside(self, *command: str) -> str:
        done = subprocess.run([*self._prefix, *command], capture_output=True, text=True, check=True)
        return done.stdout

    def bridge(self) -> str:
        (network,) = self._harbour.client.get("/v1/networks", project="shop")
        return str(network["interface"])

    def ports(self) -> list[str]:
        """The links of containers that are on the bridge."""
        links = json.loads(self.inside("ip", "-j", "link", "show", "type", "veth"))
        return [link["ifname"] for link in links if link.get("master")]

    def addressed(self, bridge: str) -> bool:
        return (
            "inet "
            in subprocess.run(
                [*self._prefix, "ip", "-o", "address", "show", "dev", bridge],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
        )

    def table(self) -> list[str]:
        """Family and name of the instance's table."""
        return self.inside("nft", "list", "tables").split()[1:3]

    def rules(self) -> str:
        """All rules and elements, without counters and handles."""
        return self.inside("nft", "-s", "list", "ruleset")

    def monitors(self) -> dict[str, int]:
        return {id: record.monitor for id, record in self._harbour.runs().items()}


def breakages(harbour: Harbour) -> Iterator[Breakage]:
    """Each is made when it is its turn, from how things are then."""
    host = Host(harbour)
    count, bridge, rules = len(host.ports()), host.bridge(), host.rules()
    table = host.table()
    web = harbour.containers()["shop-web-1"]["id"]

    def whole() -> bool:
        return host.addressed(bridge) and len(host.ports()) == count

    yield Breakage(
        title="bridge deleted",
        act=lambda: host.inside("ip", "link", "delete", bridge),
        right=whole,
    )
    yield Breakage(
        title="container's link deleted",
        act=lambda: host.inside("ip", "link", "delete", host.ports()[0]),
        right=whole,
    )
    yield Breakage(
        title="bridge set down",
        act=lambda: host.inside("ip", "link", "set", bridge, "down"),
        right=lambda: "state UP" in host.inside("ip", "link", "show", bridge),
    )
    yield Breakage(
        title="address flushed",
        act=lambda: host.inside("ip", "address", "flush", "dev", bridge),
        right=whole,
    )
    yield Breakage(
        title="table deleted",
        act=lambda: host.inside("nft", "delete", "table", *table),
        right=lambda: host.rules() == rules,
    )
    yield Breakage(
        title="one rule deleted",
        act=lambda: host.inside("nft", "delete", "rule", *table, *_first_rule(host, table)),
        right=lambda: host.rules() == rules,
    )
    yield Breakage(
        title="chains flushed",
        act=lambda: host.inside("nft", "flush", "table", *table),
        right=lambda: host.rules() == rules,
    )
    inode = (harbour.run / "netns" / web).stat().st_ino
    yield Breakage(
        title="namespace let go",
        act=lambda: subprocess.run(["umount", str(harbour.run / "netns" / web)], check=True),
        right=lambda: (harbour.run / "netns" / web).stat().st_ino == inode,
    )
    monitor = host.monitors()[web]
    yield Breakage(
        title="monitor killed",
        act=lambda: os.kill(monitor, signal.SIGKILL),
        right=lambda: host.monitors().get(web, monitor) != monitor,
    )
    runs = len(host.monitors())
    web = harbour.containers()["shop-web-1"]["id"]
    yield Breakage(
        title="container's directory removed",
        act=lambda: shutil.rmtree(harbour.root / "containers" / web),
        right=lambda: len(host.monitors()) == runs,
    )
    yield Breakage(
        title="volume's directory removed",
        act=lambda: shutil.rmtree(harbour.root / "volumes" / "shop_data"),
        right=None,
    )


def _first_rule(host: Host, table: list[str]) -> list[str]:
    listed = json.loads(host.inside("nft", "-j", "-a", "list", "table", *table))["nftables"]
    rule = next(entry["rule"] for entry in listed if "rule" in entry)
    return [rule["chain"], "handle", str(rule["handle"])]


class Ears:
    """Hears of drift from the daemon for as long as it runs."""

    def __init__(self, harbour: Harbour) -> None:
        query = {"project": "shop", "follow": "1", "type": "drift"}
        self._followed = harbour.client.stream("GET", "/v1/events", **query)
        self._heard: queue.Queue[float] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for _ in self._followed.events():
            self._heard.put(time.perf_counter())

    def next(self, patience: float) -> float | None:
        """When the next word came, on the performance counter."""
        try:
            return self._heard.get(timeout=patience)
        except queue.Empty:
            return None


def measure(ears: Ears, broken: Breakage) -> tuple[float | None, float | None]:
    """Seconds until told, and until right; None where that did not come within PATIENCE."""
    began = time.perf_counter()
    broken.act()
    right = _until(broken.right, began) if broken.right is not None else None
    told = ears.next(max(0.5, began + PATIENCE - time.perf_counter()))
    # What else is told of this one is not to be taken for the next one.
    while ears.next(0.7) is not None:
        continue
    return None if told is None else told - began, right


def _until(right: Callable[[], bool], began: float) -> float | None:
    while time.perf_counter() - began < PATIENCE:
        if right():
            return time.perf_counter() - began
        time.sleep(0.002)
    return None


@contextmanager
def instance() -> Iterator[Harbour]:
    name = f"bay_drift_{os.getpid()}"
    place = Path(tempfile.mkdtemp(prefix="bay-drift-", dir="/var/tmp"))
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        harbour = Harbour(place, name)
        harbour.start()
        try:
            yield harbour
        finally:
            harbour.result("down", options={"volumes": True, "timeout": 0})
            harbour.stop()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
        shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    if os.geteuid() != 0 or not BUSYBOX.exists():
        raise SystemExit("bench: needs root, and busybox-static at /bin/busybox")
    told: dict[str, list[float | None]] = {}
    righted: dict[str, list[float | None]] = {}
    with instance() as harbour:
        ears = Ears(harbour)
        for _ in range(runs):
            harbour.up(_PROJECT)
            for broken in breakages(harbour):
                seconds, right = measure(ears, broken)
                told.setdefault(broken.title, []).append(seconds)
                if broken.right is not None:
                    righted.setdefault(broken.title, []).append(right)
            harbour.result("down", options={"volumes": True, "timeout": 0})
    print(f"{'':32}{'told':>8}{'right':>9}{'worst':>9}   goal ≤ {GOAL:g} s (ms)")
    for title, times in told.items():
        rights = righted.get(title, [])
        worst = max((t or PATIENCE) for t in (*times, *rights))
        figures = [_median(times), _median(rights), f"{worst * 1000:9.0f}"]
        print(f"{title:32}{figures[0]:>8}{figures[1]:>9}{figures[2]}")


def _median(times: list[float | None]) -> str:
    known = [t for t in times if t is not None]
    return f"{statistics.median(known) * 1000:.0f}" if known else "-"


if __name__ == "__main__":
    main()
