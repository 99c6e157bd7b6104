"""A start that waits at a gate until its holder lets it through."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from runtime.container.gate import Gate
from runtime.container.sessions import read_end, read_watch
from runtime.errors import ContainerStartError
from tests.integration.runtime.yard import Yard, until

_HOLD = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from runtime.container.gate import Gate
gate = Gate(Path(sys.argv[1]))
print("held", flush=True)
signal.pause()
"""


class _Start:
    """A start in a thread of its own: it waits for as long as the gate is shut."""

    def __init__(self, yard: Yard, id: str) -> None:
        self.error: ContainerStartError | None = None
        self._yard = yard
        self._id = id
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(self._is_under_way, what="a first process")

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._yard.containers.start(self._id)
        except ContainerStartError as error:
            self.error = error

    def _is_under_way(self) -> bool:
        try:
            return bool(self._yard.containers.processes(self._id))
        except OSError:
            return False


def test_what_it_stands_on_may_come_while_it_waits(shared: Yard, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    late = tmp_path / "late"
    layers = (str(shared.layer), str(late))
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    id = shared.create(
        "cat", "/said", layers=layers, upper=str(upper), work=str(work), gate=str(gate.path)
    )
    start = _Start(shared, id)
    assert shared.containers.get(id).status == "created"
    late.mkdir()
    (late / "said").write_text("in time\n")
    gate.open()
    start.join()
    assert start.error is None
    assert shared.finish(id).exit_code == 0
    assert shared.log(id) == "in time\n"
    shared.containers.delete(id)


def test_one_that_is_given_up_leaves_nothing(shared: Yard, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    id = shared.create("true", gate=str(gate.path))
    start = _Start(shared, id)
    gate.give_up()
    start.join()
    assert start.error is not None and str(start.error) == "the start was given up"
    assert shared.containers.get(id).status == "created"
    shared.containers.delete(id)


def test_a_holder_that_is_killed_lets_nobody_through(shared: Yard, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "gate"), root], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        id = shared.create("true", gate=str(tmp_path / "gate"))
        start = _Start(shared, id)
        os.kill(holder.pid, signal.SIGKILL)
    start.join()
    assert start.error is not None
    shared.containers.delete(id)


def test_a_gate_counts_as_it_was_left_first(shared: Yard, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    gate.open()
    gate.give_up()
    id = shared.start("true", gate=str(gate.path))
    assert shared.finish(id).exit_code == 0
    shared.containers.delete(id)


def test_the_end_can_be_told_before_it_is_recorded(shared: Yard) -> None:
    id = shared.start("sh", "-c", "read x; exit 5", stdin_open=True)
    with shared.containers.watch(id, end=True) as watch:
        shared.containers.signal(id, signal.SIGKILL)
        told = read_end(watch)
        recorded = read_watch(watch)
    assert told is not None and told == recorded
    assert told.exit_code == 137
    shared.containers.delete(id)
