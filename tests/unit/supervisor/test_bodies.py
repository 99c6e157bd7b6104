"""Flags of the command line become a policy."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.planning.policy import Policy, Removal
from orchestrator.supervisor.bodies import DownOptions, UpOptions


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({}, Policy()),
        ({"build": True}, Policy(build="always")),
        ({"no_build": True}, Policy(build="never")),
        ({"pull": "build"}, Policy(build="always")),
        ({"pull": "always"}, Policy(pull="always")),
        ({"force_recreate": True}, Policy(recreate="force")),
        ({"no_recreate": True}, Policy(recreate="never")),
        ({"no_deps": True, "services": ["web"]}, Policy(dependencies=False, services=("web",))),
        ({"no_start": True}, Policy(start=False)),
        ({"wait": True, "wait_timeout": 5}, Policy(wait=True, wait_timeout=5)),
        ({"scale": {"web": 3}}, Policy(scale={"web": 3})),
    ],
)
def test_up(options: dict[str, Any], policy: Policy) -> None:
    assert UpOptions.model_validate(options).policy() == policy


def test_down() -> None:
    options = DownOptions.model_validate({"volumes": True, "rmi": "local", "timeout": 3})
    assert options.removal() == Removal(volumes=True, images="local", timeout=3)
