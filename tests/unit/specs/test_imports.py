"""Loading stays cheap: what it imports is a decision."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("networkx", "pyroute2", "jinja2", "aiohttp", "rich", "typer", "watchfiles", "asyncio")


def test_loading_a_plain_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys, pathlib\n"
        "from specs.loader import LoadOptions, load_project\n"
        "text = 'services: {a: {image: x}}'\n"
        "options = LoadOptions(files=('-',), stdin=text, environ={}, cwd=pathlib.Path('/tmp'))\n"
        "load_project(options).project.canonical()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
