"""The dev loop beside a foreground `up`: prepared by --watch, or turned on and off by a key."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO, cast

from orchestrator.cli.menu import AboveMenu
from orchestrator.cli.session import Session

if TYPE_CHECKING:
    from orchestrator.cli.following import Follower
    from orchestrator.watch.loop import DevLoop

_ENABLE, _DISABLE = "Enable Watch", "Disable Watch"


class Watching:
    """`out` is where the loop tells what it does."""

    def __init__(self, session: Session, services: tuple[str, ...]) -> None:
        self.out = AboveMenu(sys.stderr)
        self._session = session
        self._services = services
        self._loop: DevLoop | None = None

    @property
    def on(self) -> bool:
        return self._loop is not None

    @property
    def word(self) -> str:
        """What the key does next, \"\" where there can be no loop."""
        if "-" in self._session.files:
            return ""
        return _DISABLE if self.on else _ENABLE

    def prepare(self) -> DevLoop:
        """Note what changes from now on. Raises UsageError, SpecError and WatchError."""
        from orchestrator.cli import developing
        from orchestrator.watch.spec import Wishes

        session = self._session
        developing.check(session)
        report = developing.reporting(session, cast(TextIO, self.out), format=None, quiet=False)
        spec = developing.read(session, self._services)
        session.client  # noqa: B018  # starts the daemon where none answers
        wishes = Wishes(services=self._services)
        self._loop = developing.prepared(session, spec, wishes, report)
        return self._loop

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Act on changes until the block is left, as far as there is a loop then."""
        if self._loop is not None:
            self._loop.start()
        try:
            yield
        finally:
            self._stop()

    def toggle(self, follower: Follower) -> str:
        """Begin or end; gives the `word` for next time. What stands in the way is told."""
        if self.on:
            self._stop()
        else:
            from orchestrator.cli.errors import UsageError
            from orchestrator.watch.errors import WatchError
            from specs.errors import SpecError

            try:
                self.prepare().start()
            except (UsageError, SpecError, WatchError) as exc:
                print(f"cannot watch: {exc}", file=cast(TextIO, self.out))
        follower.stay = self.on
        return self.word

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()
