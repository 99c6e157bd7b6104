"""Commands that must be quick import nothing that is slow."""

import subprocess
import sys
from pathlib import Path

import pytest

_SLOW = {"typer", "click", "rich", "pydantic", "yaml", "networkx", "pyroute2", "aiohttp"}
_DEAR = {"dataclasses", "inspect", "http.client", "email", "argparse", "subprocess", "asyncio"}


@pytest.mark.parametrize(
    "line",
    [
        "version",
        "-p x ps",
        "-p x images",
        "-p x logs",
        "-p x down",
        "ls",
        "volume ls",
        "network ls",
    ],
)
def test_they_need_little_of_the_standard_library(line: str, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from orchestrator.cli import entry, session\n"
        "class Client:\n"
        "    def get(self, *_, **__): return []\n"
        "    def stream(self, *_, **__): return self\n"
        "    def events(self): yield {'type': 'result', 'ok': True}\n"
        "    def close(self): pass\n"
        "session.Session.client = Client()\n"
        "assert entry.main() == 0\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--run", str(tmp_path), *line.split()],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    imported = set(done.stderr.splitlines()[-1].split())
    assert not imported & (_SLOW | _DEAR)
