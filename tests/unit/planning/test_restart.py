"""Docker's restart policies and back-off, without a clock."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.planning.errors import PlanningError
from orchestrator.planning.restart import (
    Exit,
    Rest,
    Restart,
    RestartPolicy,
    RestartState,
    after_exit,
    restart_wait,
)


def crash(at: float, ran: float = 1.0, exit_code: int = 1, stopped: bool = False) -> Exit:
    return Exit(started_at=at - ran, finished_at=at, exit_code=exit_code, stopped=stopped)


def test_the_delay_doubles_from_100_ms_to_a_minute() -> None:
    policy, state = RestartPolicy.parse("always"), RestartState()
    delays = []
    for _ in range(12):
        decision = after_exit(policy, state, crash(100.0), 100.0)
        assert isinstance(decision, Restart)
        delays.append(round(decision.at - 100.0, 3))
        state = decision.state
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    assert state.count == 12


def test_a_run_of_ten_seconds_begins_the_delay_anew() -> None:
    state = RestartState(count=5, delay=12.8)
    decision = after_exit(RestartPolicy.parse("always"), state, crash(100.0, ran=10.0), 100.0)
    assert decision == Restart(at=100.1, state=RestartState(count=6, delay=0.1))


def test_a_delay_that_passed_while_nobody_looked_is_not_waited_for_again() -> None:
    decision = after_exit(
        RestartPolicy.parse("always"), RestartState(delay=25.6), crash(100.0), 500.0
    )
    assert isinstance(decision, Restart)
    assert decision.at == 500.0


@pytest.mark.parametrize(
    ("policy", "exit_code", "restarted"),
    [
        ("no", 1, False),
        ("always", 0, True),
        ("unless-stopped", 0, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
    ],
)
def test_policies_follow_the_exit_code(policy: str, exit_code: int, restarted: bool) -> None:
    decision = after_exit(
        RestartPolicy.parse(policy), RestartState(), crash(1.0, exit_code=exit_code), 1.0
    )
    assert isinstance(decision, Restart) is restarted


def test_on_failure_gives_up_after_its_attempts() -> None:
    policy = RestartPolicy.parse("on-failure:2")
    decision = after_exit(policy, RestartState(count=2, delay=0.2), crash(1.0), 1.0)
    assert isinstance(decision, Rest)
    assert decision.reason == "it was restarted 2 times already"


def test_what_was_stopped_is_not_restarted() -> None:
    decision = after_exit(
        RestartPolicy.parse("always"), RestartState(count=3), crash(1.0, stopped=True), 1.0
    )
    assert decision == Rest(reason="it was stopped", state=RestartState())


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ({}, RestartPolicy()),
        ({"restart": "on-failure:3"}, RestartPolicy(condition="on-failure", attempts=3)),
        (
            {"deploy": {"restart_policy": {"condition": "any", "delay": 2_000_000_000}}},
            RestartPolicy(condition="always", delay=2.0),
        ),
        (
            {"restart": "no", "deploy": {"restart_policy": {"condition": "any"}}},
            RestartPolicy(condition="no"),
        ),
    ],
)
def test_the_services_own_policy_goes_first(
    service: dict[str, Any], expected: RestartPolicy
) -> None:
    assert RestartPolicy.of(service) == expected


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(PlanningError, match="not a restart policy: sometimes"):
        RestartPolicy.parse("sometimes")


def test_a_restart_is_waited_for_no_longer_than_its_delay_where_a_clock_was_set_back() -> None:
    assert restart_wait(160.0, 60.0, 130.0) == 30.0
    assert restart_wait(160.0, 60.0, 170.0) == 0.0
    assert restart_wait(160.0, 60.0, -7100.0) == 0.0
