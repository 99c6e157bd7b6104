"""How long files of the host take into a running container: one small file, and 5,000.

    sudo python -m tests.bench.syncing [DIRECTORY]

DIRECTORY chooses the file system: ext4 takes ten times as long to make files where as many have
just been removed, whoever makes them.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.engine.sync import ContainerFiles, Delete, Put
from tests.integration.runtime.yard import Yard, make_layer

_FILES = 5000
_ROUNDS = 200


def main(directory: str | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as place:
        base = Path(place)
        yard = Yard(base, make_layer(base / "layer"))
        try:
            _measure(yard, _sources(base / "source"))
        finally:
            yard.close()


def _sources(base: Path) -> list[Put]:
    puts = []
    for number in range(_FILES):
        path = base / f"d{number % 100}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (number % 8000))
        puts.append(Put(source=path, target=f"/app/{path.relative_to(base)}"))
    return puts


def _measure(yard: Yard, puts: list[Put]) -> None:
    print(f"{'files into a container':<38}{'median':>8}{'max':>9}   (ms)")
    running = yard.start("sleep", "1000", user="bob")
    stopped = yard.create("sleep", "1000", user="bob")
    closed = yard.start("sleep", "1000", user="bob", read_only=True)
    for state, id in (("running", running), ("read-only", closed), ("stopped", stopped)):
        files = ContainerFiles(yard.root, yard.sockets, id)
        one = functools.partial(files.apply, puts[:1])
        _print(f"one file, {state}", [_took(one) for _ in range(_ROUNDS)])
    files = ContainerFiles(yard.root, yard.sockets, running)
    _print(f"{_FILES} new files", [_took(lambda: files.apply(puts))])
    _print(f"{_FILES} replaced", [_took(lambda: files.apply(puts)) for _ in range(3)])
    _print(f"{_FILES} compared", [_took(lambda: files.differing(puts)) for _ in range(3)])
    _print(f"{_FILES} removed", [_took(lambda: files.apply([Delete(target="/app")]))])


def _took(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _print(what: str, took: list[float]) -> None:
    print(f"{what:<38}{statistics.median(took):>8.2f}{max(took):>9.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
