"""What is refused before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.engine.errors import EngineError
from orchestrator.engine.preflight import check_service


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ({"runtime": "nvidia"}, "there is no runtime nvidia"),
        ({"userns_mode": "keep-id"}, "userns_mode keep-id is not supported"),
        ({"gpus": [{"count": -1}]}, "asks for GPUs"),
        (
            {"deploy": {"resources": {"reservations": {"devices": [{"capabilities": ["gpu"]}]}}}},
            "asks for GPUs",
        ),
    ],
)
def test_what_no_container_can_have_here_is_refused_with_a_way_out(
    service: dict[str, Any], said: str
) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        check_service("web", service)
    assert caught.value.hint


@pytest.mark.parametrize("service", [{}, {"runtime": "runc"}, {"userns_mode": "host"}])
def test_what_means_the_usual_is_taken(service: dict[str, Any]) -> None:
    check_service("web", service)
