"""Docker's health rules, without a clock."""

from __future__ import annotations

from orchestrator.planning.health import (
    HealthCheck,
    HealthState,
    ProbeResult,
    after_probe,
    next_probe,
)

CHECK = HealthCheck(test=("CMD", "true"), interval=30, retries=3)


def result(exit_code: int, at: float = 0.0, output: str = "") -> ProbeResult:
    return ProbeResult(started_at=at, finished_at=at + 1, exit_code=exit_code, output=output)


def test_one_success_makes_healthy() -> None:
    state = after_probe(CHECK, HealthState(failing_streak=2), result(0), 0.0)
    assert (state.status, state.failing_streak) == ("healthy", 0)


def test_failures_in_a_row_make_unhealthy() -> None:
    state = HealthState(status="healthy")
    statuses = []
    for _ in range(3):
        state = after_probe(CHECK, state, result(1), 0.0)
        statuses.append(state.status)
    assert statuses == ["healthy", "healthy", "unhealthy"]


def test_failures_of_the_start_period_do_not_count() -> None:
    check = HealthCheck(test=("CMD", "true"), start_period=20, retries=1)
    state = after_probe(check, HealthState(), result(1, at=19.0), 0.0)
    assert (state.status, state.failing_streak) == ("starting", 0)
    assert after_probe(check, state, result(1, at=21.0), 0.0).status == "unhealthy"


def test_a_success_ends_the_start_period() -> None:
    check = HealthCheck(test=("CMD", "true"), start_period=20, retries=1)
    state = after_probe(check, HealthState(), result(0, at=1.0), 0.0)
    assert after_probe(check, state, result(1, at=2.0), 0.0).status == "unhealthy"


def test_five_results_of_4096_bytes_are_kept() -> None:
    state = HealthState()
    for number in range(7):
        state = after_probe(CHECK, state, result(number, output="é" * 4096), 0.0)
    assert [r.exit_code for r in state.results] == [2, 3, 4, 5, 6]
    assert {len(r.output.encode()) for r in state.results} == {4096}


def test_probes_come_faster_in_the_start_period_until_the_first_success() -> None:
    check = HealthCheck(test=("CMD", "true"), interval=30, start_period=10, start_interval=1)
    assert next_probe(check, HealthState(), 100.0, 100.0) == 101.0
    failing = after_probe(check, HealthState(), result(1, at=101.0), 100.0)
    assert next_probe(check, failing, 100.0, 102.0) == 103.0
    healthy = after_probe(check, failing, result(0, at=103.0), 100.0)
    assert next_probe(check, healthy, 100.0, 104.0) == 134.0


def test_a_probe_that_was_due_while_nobody_looked_is_due_now() -> None:
    assert next_probe(CHECK, HealthState(), 100.0, 1000.0) == 1000.0


def test_a_clock_that_was_set_back_neither_stops_probes_nor_excuses_failures() -> None:
    state = HealthState(results=(result(0, at=5000.0),))
    assert next_probe(CHECK, state, 4000.0, 1000.0) == 1000.0 + CHECK.interval
    assert next_probe(CHECK, HealthState(), 4000.0, 1000.0) == 1000.0 + CHECK.interval
    state = HealthState()
    for number in range(CHECK.retries):
        state = after_probe(CHECK, state, result(1, at=1000.0 + number), 4000.0)
    assert state.status == "unhealthy"


def test_results_of_an_earlier_run_do_not_hurry_the_first_probe() -> None:
    old = HealthState(results=(result(0, at=50.0),))
    assert next_probe(CHECK, old, 100.0, 100.0) == 130.0


def test_a_state_survives_its_json_form() -> None:
    state = after_probe(CHECK, HealthState(), result(1, output="no"), 0.0)
    assert HealthState.from_json(state.to_json()) == state


def test_the_services_values_go_over_the_images() -> None:
    check = HealthCheck.of(
        {"interval": 5_000_000_000}, {"test": ["CMD-SHELL", "ok"], "retries": 7, "interval": 1}
    )
    assert check == HealthCheck(test=("CMD-SHELL", "ok"), interval=5.0, retries=7)
    assert check is not None
    assert check.argv(("/bin/ash", "-c")) == ("/bin/ash", "-c", "ok")


def test_a_disabled_check_and_none_are_no_check() -> None:
    image = {"test": ["CMD", "true"]}
    assert HealthCheck.of({"disable": True}, image) is None
    assert HealthCheck.of({"test": ["NONE"]}, image) is None
    assert HealthCheck.of(None, None) is None
