"""A daemon that has been asked for nothing has loaded nothing for it."""

from __future__ import annotations

import subprocess
import sys

_LATER = {
    "aiohttp": "deliveries and registries",
    "networkx": "plans with dependencies",
    "jinja2": "templates",
    "cryptography": "encrypted files",
    "rich": "the command line",
    "email": "the first body that is sent: pydantic looks for plugins",
    "zipfile": "the same",
    "http.client": "downloads of builds",
}


def test_what_costs_memory_is_loaded_when_it_is_needed() -> None:
    program = "import sys, orchestrator.supervisor.daemon; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert _LATER.keys() & set(done.stdout.split()) == set()
