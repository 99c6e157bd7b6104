"""The host boots anew under an instance: nothing of it is left but its state directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.container.record import boot_id

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

_BEFORE = "00000000-0000-4000-8000-000000000000"


def power_off(bay: Bay) -> None:
    """Kill all processes at once, and take away all that lives in the kernel or below /run."""
    tag = hashlib.sha256(str(bay.root.resolve()).encode()).hexdigest()[:8]
    left = bay.leftovers()
    # A launcher may bring its daemon back before it is killed itself: once more, then.
    while pids := _processes(bay, tag):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    for line in left.get("mounts", ()):
        place = line.split()[4]
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
    for link in left.get("links", ()):
        command = bay.host.inside("ip", "link", "delete", link)
        subprocess.run(command, check=False, capture_output=True)
    for table in left.get("tables", ()):
        for family in ("inet", "ip"):
            command = bay.host.inside("nft", "delete", "table", family, table)
            subprocess.run(command, check=False, capture_output=True)
    for group in sorted(_groups(tag), key=lambda path: -len(path.parts)):
        group.rmdir()
    shutil.rmtree(bay.run_directory)
    # The kernel that ran until now was another one than that of the next daemon.
    now = boot_id()
    for pattern in ("containers/*/*.json", "layers/*/layer.json"):
        for path in bay.root.glob(pattern):
            path.write_text(path.read_text().replace(now, _BEFORE))
    assert not bay.leftovers(), bay.leftovers()


@contextlib.contextmanager
def booted(bay: Bay) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon as systemd starts it, in the foreground; ended when the block is left."""
    daemon = subprocess.Popen(
        bay.command("daemon"),
        env={**os.environ, "INVOCATION_ID": "0" * 32},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield daemon
    finally:
        bay.ok("daemon", "stop")
        daemon.wait(60)


def _groups(tag: str) -> list[Path]:
    found = [Path(place) for place, _, _ in os.walk("/sys/fs/cgroup")]
    return [path for path in found if tag in str(path)]


def _processes(bay: Bay, tag: str) -> set[int]:
    """The instance's own processes and those of its containers."""
    pids = {int(line.split()[0]) for line in bay.leftovers().get("processes", ())}
    for group in _groups(tag):
        with contextlib.suppress(FileNotFoundError):
            pids.update(map(int, (group / "cgroup.procs").read_text().split()))
    return pids
