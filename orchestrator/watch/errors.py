"""What can be wrong with a wish to watch."""

from __future__ import annotations


class WatchError(Exception):
    """A rule cannot be followed, or there is none; `hint` says what a person can do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
