"""Runs every test here in a network and a mount namespace of its own.

The test's function runs in a thread that has left the process's namespaces, so that the
machine's links, rules and mounts are never touched, and all that a test leaves goes with
the thread.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from runtime.linux import mounts
from runtime.linux.namespaces import CLONE_NEWNET, CLONE_NEWNS, unshare
from tests.integration.bridge.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Where the lab keeps its things; the thread that runs the test makes the lab itself."""
    return tmp_path


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if "lab" not in pyfuncitem.fixturenames:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    directory = arguments["lab"]
    assert isinstance(directory, Path)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            unshare(CLONE_NEWNET | CLONE_NEWNS)
            mounts.change_propagation("/", mounts.MS_REC | mounts.MS_PRIVATE)
            lab = Lab(directory)
            try:
                pyfuncitem.obj(**{**arguments, "lab": lab})
            finally:
                lab.close()
        except BaseException as exc:  # raised again in the thread that pytest looks at
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))
