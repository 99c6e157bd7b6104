"""Somebody who asks a published port again and again, and counts what he gets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CLIENT = """
import json, select, socket, sys
address, seen, lost = sys.argv[1], {}, []
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        with socket.create_connection((address, int(sys.argv[2])), timeout=5) as peer:
            peer.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            answer = b""
            while chunk := peer.recv(4096):
                answer += chunk
        text = answer.rpartition(b"\\n\\r\\n")[2].decode().strip() or answer.decode()
        seen[text] = seen.get(text, 0) + 1
    except OSError as error:
        lost.append(str(error))
print(json.dumps({"seen": seen, "lost": lost}))
"""


@contextmanager
def visitors(netns: str, port: int) -> Iterator[dict[str, Any]]:
    """Ask `port` from inside the network namespace until the block is left; afterwards the
    mapping tells what was `seen` (answer: how often) and what was `lost` (why)."""
    told: dict[str, Any] = {}
    client = subprocess.Popen(
        [
            *("nsenter", f"--net=/run/netns/{netns}"),
            *(sys.executable, "-I", "-c", _CLIENT, "127.0.0.1", str(port)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        client.stdout.readline()
        yield told
        out, _ = client.communicate("end\n", timeout=20)
        told.update(json.loads(out))
    finally:
        client.kill()
        client.communicate()
