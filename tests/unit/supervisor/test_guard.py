"""A daemon that ends because it is meant to says so, however soon that is."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from orchestrator.engine.guard import SOCKET
from orchestrator.engine.host import Host
from orchestrator.supervisor.guard import guarded
from runtime.linux import sockets


def test_an_end_before_the_guard_was_asked_for_is_told_all_the_same(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    listener = sockets.listen(str(tmp_path / SOCKET))

    def launcher() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(sockets.receive(connection)[0])
            sockets.send(connection, {"ok": True})

    thread = threading.Thread(target=launcher)
    thread.start()

    async def serve_for_no_time_at_all() -> None:
        async with guarded(cast(Host, SimpleNamespace(root=tmp_path, run=tmp_path))):
            return

    with listener:
        asyncio.run(serve_for_no_time_at_all())
        thread.join(30)
    assert heard == [{"op": "release"}]
