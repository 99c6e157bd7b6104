"""What a launcher does before it is asked: each thing that a keeper does, some times over.

What is imported, cached and specialised by the interpreter by then lies in pages that all
keepers share, and that none of them writes anew. Starters are played: no container is made.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
from collections.abc import Iterator
from typing import Any

from runtime.cgroups.manager import open_cgroup
from runtime.container import init, starter
from runtime.container.config import ContainerConfig
from runtime.container.keeper import Keeper
from runtime.container.kit import Kit, send_kit
from runtime.container.paths import Instance
from runtime.container.record import boot_id, reserve_exit
from runtime.linux import process, sockets

# Enough for the interpreter to specialise what is run (PEP 659).
_ROUNDS = 8

_ID = "rehearsal"

# Seconds.
_PATIENCE = 1.0


def rehearse(instance: Instance) -> None:
    """Raises RuntimeFault or OSError where a start would."""
    raw = ContainerConfig(id=_ID, layers=("/",), argv=("true",)).to_json()
    for _ in range(_ROUNDS):
        starter.plan(instance, ContainerConfig.from_json(raw))
        open_cgroup(*instance.cgroup(_ID, None))
    process.reap_children()
    with _stage(instance) as stage:
        for _ in range(_ROUNDS):
            _play(stage)


@contextlib.contextmanager
def _stage(instance: Instance) -> Iterator[Instance]:
    place = instance.run / f".rehearsal-{os.getpid()}"
    stage = Instance(place, place)
    paths = stage.container(_ID)
    try:
        paths.directory.mkdir(parents=True)
        yield stage
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _play(stage: Instance) -> None:
    path = str(stage.container(_ID).socket)
    keeper = Keeper(stage, None, start=_start, start_exec=_start_exec)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        keeper.start({"id": _ID}, theirs)
        started = _answer(keeper, ours)["started"]
    with sockets.connect(path) as watcher, sockets.connect(path) as client:
        sockets.send(watcher, {"op": "watch", "execs": True})
        sockets.send(client, {"op": "exec", "config": {"argv": ["true"]}})
        for _said in ("started", "exit_code"):
            _answer(keeper, client)
        os.kill(started["pid"], signal.SIGKILL)
        _answer(keeper, watcher)
    while keeper.busy:
        keeper.turn(_PATIENCE)
    keeper.close()


def _answer(keeper: Keeper, client: socket.socket) -> dict[str, Any]:
    """What the keeper says next."""
    while not select.select([client], [], [], 0)[0]:
        keeper.turn(_PATIENCE)
    answer, fds = sockets.receive(client)
    for fd in fds:
        os.close(fd)
    return answer


def _start(instance: Instance, _request: dict[str, Any], report: socket.socket) -> None:
    paths = instance.container(_ID)
    paths.run_directory.mkdir(parents=True, exist_ok=True)
    listener = sockets.listen(str(paths.socket))
    pid = process.fork(sibling=True)
    if pid == 0:
        init.stay_with_parent(report.fileno())
        report.close()
        signal.pause()
    reserve_exit(paths.exit)
    output, written = os.pipe()
    os.write(written, b"a line\n")
    kit = Kit(
        pid=pid,
        cgroup=("parent", "name"),
        driver="json-file",
        max_size=1024,
        max_files=2,
        await_attach=False,
        record=json.dumps({"pid": pid, "boot": boot_id()}),
        state=str(paths.state),
        directory=str(paths.directory),
        listener=listener.fileno(),
        stdout=output,
        stderr=os.dup(output),
    )
    send_kit(report, kit)


def _start_exec(
    _instance: Instance,
    _kit: Kit,
    _request: dict[str, Any],
    _pidfd: int,
    report: socket.socket,
    _child_ends: list[int],
) -> None:
    pid = process.fork(sibling=True)
    if pid:
        report.send(f"pid {pid}".encode())
