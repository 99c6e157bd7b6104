"""The engine's parts on containers of their own, without a daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.runtime.conftest import layer, yard

__all__ = ["layer", "yard"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
