"""Tells what a person saves from what a service writes itself when it is restarted or rebuilt.

Without that, a service which writes into a directory that is watched restarts for ever. What is
known is only when something changed: soon after an action, and again after the next one. The
more often that happens in a row, the longer the action is put off, and in the end such a change
is no reason to act any more; a change at any other time is one again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

SOON = 1.5  # seconds after the end of an action
PATIENT = 3  # times in a row before an action is put off
ENOUGH = 6  # times in a row before it is given up
_LONGEST = 8.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to act on a batch, after `hold` seconds without a further change; `suspects` are
    the directories whose changes seem to be the service's own."""

    act: bool
    hold: float = 0.0
    suspects: tuple[str, ...] = ()


class Echoes:
    """The memory of one service; times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._began = self._ended = float("-inf")  # of actions that follow each other
        self._streaks: dict[str, int] = {}

    def judge(self, paths: Iterable[str], since: float) -> Verdict:
        """What to do about the changes of `paths`, the first of which came at `since`."""
        directories = {os.path.dirname(path) for path in paths}
        if not self._began <= since <= self._ended + SOON:
            self._streaks = {}
            return Verdict(act=True)
        self._streaks = {
            directory: self._streaks.get(directory, 0) + 1 for directory in directories
        }
        given_up = {d for d in directories if self._streaks[d] >= ENOUGH}
        suspects = tuple(sorted(d for d in directories if self._streaks[d] >= PATIENT))
        if given_up == directories:
            return Verdict(act=False, suspects=suspects)
        longest = max((self._streaks[d] for d in suspects), default=0)
        hold = min(2.0 ** (longest - PATIENT), _LONGEST) if suspects else 0.0
        return Verdict(act=True, hold=hold, suspects=suspects)

    def acted(self, began: float, ended: float) -> None:
        """An action has taken this long.

        Where one follows another at once, what is judged next may have been seen before the last
        one began: it is the answer to the one before.
        """
        if began > self._ended + SOON:
            self._began = began
        self._ended = ended
