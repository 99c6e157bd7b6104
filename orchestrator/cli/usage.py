"""Two samples of containers' counters in the words of `docker stats`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.cli import output

HEADS = (
    "CONTAINER ID",
    "NAME",
    "CPU %",
    "MEM USAGE / LIMIT",
    "MEM %",
    "NET I/O",
    "BLOCK I/O",
    "PIDS",
)


def records(
    before: Mapping[str, Mapping[str, Any]],
    now: Mapping[str, Mapping[str, Any]],
    *,
    full_ids: bool = False,
) -> list[dict[str, str]]:
    """One record a container under Docker's keys; the time between the samples gives the CPU's
    share, 100 % being one core."""
    shown = []
    for id, container in now.items():
        earlier = before.get(id)
        limit = container["memory_limit"]
        memory = container["memory"]
        shown.append(
            {
                "Container": id if full_ids else id[:12],
                "ID": id if full_ids else id[:12],
                "Name": container["name"],
                "Service": container["service"],
                "CPUPerc": f"{_share(earlier, container):.2f}%",
                "MemUsage": f"{binary(memory)} / {binary(limit)}",
                "MemPerc": f"{100 * memory / limit if limit else 0:.2f}%",
                "NetIO": _pair(container["received"], container["sent"]),
                "BlockIO": _pair(container["read"], container["written"]),
                "PIDs": str(container["tasks"]),
            }
        )
    return shown


def _pair(one: int, other: int) -> str:
    return f"{output.size(one)} / {output.size(other)}"


def _share(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> float:
    # A counter that went back is another run's.
    if before is None or now["at"] <= before["at"] or now["cpu"] < before["cpu"]:
        return 0.0
    return float(100 * (now["cpu"] - before["cpu"]) / (now["at"] - before["at"]))


def binary(count: int) -> str:
    """Bytes in binary units, as `docker stats` prints memory ("12.5MiB")."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g}{unit}"
        value /= 1024
    return f"{value:.4g}TiB"
