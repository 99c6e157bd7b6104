"""How long a load of spec files takes, after the import: 10 services and 500."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from specs.loader import LoadOptions, load_project

_GOALS = {10: 60.0, 500: 1500.0}
_ROUNDS = 7


def stack(services: int) -> str:
    """A file in which each service has the usual attributes and waits for the one before."""
    parts = ["name: bench\nservices:\n"]
    for number in range(services):
        parts.append(
            f"  s{number}:\n"
            "    image: app:${TAG:-1}\n"
            "    environment: {A: '1', B: x}\n"
            f"    ports: ['{10000 + number}:80']\n"
            "    volumes: [./d:/d, v:/v]\n"
            "    healthcheck: {test: [CMD, 'true'], interval: 5s}\n"
        )
        if number:
            parts.append(f"    depends_on: {{s{number - 1}: {{condition: service_healthy}}}}\n")
    return "".join([*parts, "volumes: {v: }\n"])


def main() -> None:
    print(f"{'load of spec files':<38}{'first':>6}{'median':>8}{'max':>8}   goal (ms)")
    for services, goal in _GOALS.items():
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "compose.yaml").write_text(stack(services))
            took = []
            for _ in range(_ROUNDS):
                started = time.perf_counter()
                load_project(LoadOptions(environ={}, cwd=Path(directory)))
                took.append((time.perf_counter() - started) * 1000)
        median = statistics.median(took)
        print(
            f"{f'{services} services':<38}{took[0]:>6.1f}{median:>8.1f}{max(took):>8.1f}"
            f"   ≤ {goal:.0f}"
        )


if __name__ == "__main__":
    main()
