"""A person's saves are told from what a service writes when it is restarted."""

from __future__ import annotations

from orchestrator.watch.echoes import ENOUGH, PATIENT, SOON, Echoes


def rounds(echoes: Echoes, count: int, start: float = 100.0) -> list[tuple[bool, float]]:
    """So many changes in a row, each soon after the action that the one before led to."""
    verdicts = []
    now = start
    for number in range(count):
        verdict = echoes.judge([f"/data/{number}"], now)
        verdicts.append((verdict.act, verdict.hold))
        echoes.acted(now, now + 1)
        now += 1.2
    return verdicts


def test_a_change_at_any_time_is_acted_on_at_once() -> None:
    echoes = Echoes()
    for number in range(50):
        now = 100.0 + number * 10
        verdict = echoes.judge(["/src/a.py"], now)
        assert verdict.act and not verdict.hold and not verdict.suspects
        echoes.acted(now, now + 1)


def test_the_longer_it_goes_on_the_longer_it_is_put_off_until_it_is_given_up() -> None:
    verdicts = rounds(Echoes(), ENOUGH + 2)

    assert verdicts[: PATIENT - 1] == [(True, 0.0)] * (PATIENT - 1)
    holds = [hold for act, hold in verdicts if act and hold]
    assert holds == sorted(holds) and len(set(holds)) == len(holds)
    assert verdicts[-1] == (False, 0.0)


def test_an_answer_counts_though_the_next_action_has_begun_when_it_is_judged() -> None:
    echoes = Echoes()
    echoes.acted(100.0, 100.05)
    verdicts = []
    for number in range(ENOUGH):
        seen = 100.04 + number * 0.05  # just before the action that began at its end
        began = 100.05 + number * 0.05
        echoes.acted(began, began + 0.05)
        verdicts.append(echoes.judge(["/data/1"], seen).act)
    assert verdicts == [True] * (ENOUGH - 1) + [False]


def test_what_was_given_up_counts_again_at_another_time() -> None:
    echoes = Echoes()
    rounds(echoes, ENOUGH + 2)

    assert echoes.judge(["/data/1"], 1000.0).act


def test_a_change_elsewhere_is_acted_on() -> None:
    echoes = Echoes()
    rounds(echoes, ENOUGH + 1)
    ended = 100.0 + 1.2 * ENOUGH + 1

    assert echoes.judge(["/data/1", "/src/a.py"], ended + SOON / 2).act


def test_the_directories_that_are_suspected_are_named() -> None:
    echoes = Echoes()
    rounds(echoes, PATIENT)

    assert echoes.judge(["/data/9"], 100.0 + 1.2 * PATIENT).suspects == ("/data",)
