"""Who follows a container's execs and does not read delays nobody."""

from __future__ import annotations

import os
import signal

from runtime.linux import sockets
from tests.integration.runtime.yard import Yard, until


def test_a_container_ends_though_a_follower_never_reads(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    monitor = yard.monitor_pid(id)
    with yard.containers.watch(id, execs=True) as deaf:
        for _ in range(20):  # more than a queue takes
            yard.exec(id, "true", "x" * 30_000)
        with yard.containers.watch(id) as other:
            other.settimeout(30)
            yard.containers.signal(id, signal.SIGKILL)
            message, _ = sockets.receive(other)
            assert message["exited"]["exit_code"] == 137
        until(lambda: not os.path.exists(f"/proc/{monitor}"), seconds=30)
        told = 0
        while True:
            try:
                sockets.receive(deaf)
            except EOFError:
                break  # which tells that it has ended
            told += 1
        assert 0 < told < 40
