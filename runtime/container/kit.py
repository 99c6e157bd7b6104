"""What a starter hands to the keeper, through their socket."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from runtime.container.children import NULL

_DESCRIPTORS = ("config", "listener", "group", "stdin", "stdout", "stderr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What a monitor needs for as long as its container runs.

    `pid` is that of the first process, or of one that will bring it forth. `record` is a
    StartRecord in JSON but for the time, and belongs at `state`; the log lies in `directory`.
    What a `volatile` container leaves does not survive a power cut, and need not.
    `config`, `listener`, `group` (a v2 control group) and the own ends of the container's pipes
    are descriptors, NULL for what there is not.
    """

    pid: int
    cgroup: tuple[str, str]
    max_size: int
    max_files: int
    driver: str
    await_attach: bool
    record: str
    state: str
    directory: str
    volatile: bool = False
    config: int = NULL
    listener: int = NULL
    group: int = NULL
    stdin: int = NULL
    stdout: int = NULL
    stderr: int = NULL


def send_kit(report: socket.socket, kit: Kit) -> None:
    message = {field: getattr(kit, field) for field in Kit.__slots__}
    fds = [fd for name in _DESCRIPTORS if (fd := message[name]) != NULL]
    socket.send_fds(report, [b"kit " + json.dumps(message).encode()], fds)


def take_kit(raw: bytes, fds: list[int]) -> Kit:
    """The kit that `send_kit` sent as `raw`, with the descriptors that came with it."""
    message = json.loads(raw)
    given = iter(fds)
    for name in _DESCRIPTORS:
        if message[name] != NULL:
            message[name] = next(given)
    return Kit(**message)


def descriptors_of(kit: Kit) -> list[int]:
    """Those that came with the kit."""
    return [fd for name in _DESCRIPTORS if (fd := getattr(kit, name)) != NULL]
