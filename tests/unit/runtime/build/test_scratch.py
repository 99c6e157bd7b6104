"""What a build that was killed has left beside its steps."""

from __future__ import annotations

from pathlib import Path

from runtime.build import scratch
from runtime.container.gate import Gate


def test_what_builds_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (scratch.AGENT, scratch.CHECKOUT, scratch.CONTEXT):
        (tmp_path / f"{name}1" / "deep").mkdir(parents=True)
    Gate(tmp_path / f"{scratch.GATE}1").give_up()
    (tmp_path / "mount-places").mkdir()
    scratch.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mount-places"]
    scratch.sweep(tmp_path / "missing")
