"""How long the launcher waits before it starts a killed daemon again."""

from __future__ import annotations

from runtime.container.guard import delay_after


def test_the_first_end_is_forgiven_and_each_further_one_doubles_the_wait_up_to_a_minute() -> None:
    waits = [delay_after(short_lives) for short_lives in range(1, 11)]
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert delay_after(10_000) == 60
