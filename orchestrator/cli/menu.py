"""The keys that `up` takes on a terminal, and the line below its output that names them.

As in Compose: d detaches and leaves everything running, w follows files or no more. The line is
taken away before anything is written and drawn again after it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

from orchestrator.cli.logs import Printer

_CLEAR = "\r\x1b[K"
_OFF = ("0", "f", "false", "no")


class Detached(Exception):
    """The person wants to leave everything running."""


class Menu:
    """Reads keys from standard input while it is open; `toggle` is told of each w and gives what
    w does next ("Enable Watch"), "" where it does nothing."""

    def __init__(self, out: TextIO, watch: str, toggle: Callable[[], str]) -> None:
        self._out = out
        self._watch = watch
        self._toggle = toggle
        self._lock = threading.RLock()
        self._drawn = False
        self._open = False

    def fileno(self) -> int:
        return sys.stdin.fileno()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Take single keys without an echo; Ctrl-C stays what it is."""
        import termios
        import tty

        before = termios.tcgetattr(self)
        try:
            tty.setcbreak(self.fileno(), termios.TCSADRAIN)
            self._open = True
            self.draw()
            yield
        finally:
            self.clear()
            self._open = False
            termios.tcsetattr(self, termios.TCSADRAIN, before)

    def take(self) -> None:
        """Act on the keys that were typed; raises Detached."""
        typed = os.read(self.fileno(), 1024).decode(errors="replace")
        if not typed:
            raise Detached  # the terminal is gone
        for key in typed:
            if key == "d":
                raise Detached
            if key == "w" and self._watch:
                word = self._toggle()
                with self.away():
                    self._watch = word

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Without the line, so that something can be written in its place."""
        with self._lock:
            self.clear()
            yield
            self.draw()

    def clear(self) -> None:
        with self._lock:
            if self._drawn:
                self._out.write(_CLEAR)
                self._out.flush()
                self._drawn = False

    def draw(self) -> None:
        with self._lock:
            if self._open and not self._drawn:
                keys = [f"w {self._watch}"] if self._watch else []
                line = "   ".join([*keys, "d Detach"])
                self._out.write(f"\x1b[2m   {line}\x1b[0m")
                self._out.flush()
                self._drawn = True


class MenuPrinter(Printer):
    """Writes above the menu."""

    def __init__(self, menu: Menu, *, prefix: bool, colour: bool, timestamps: bool) -> None:
        super().__init__(prefix=prefix, colour=colour, timestamps=timestamps)
        self._menu = menu

    def note(self, name: str, text: str) -> None:
        with self._menu.away():
            super().note(name, text)

    def flush(self) -> None:
        super().flush()
        self._menu.draw()

    def _line(self, name: str, stream: str, text: str, stamp: str) -> None:
        self._menu.clear()
        super()._line(name, stream, text, stamp)


class AboveMenu(io.TextIOBase):
    """A stream for others that write while the menu is there, once it is: whole lines stand above
    it."""

    def __init__(self, out: TextIO) -> None:
        self.menu: Menu | None = None
        self._out = out
        self._pending = ""

    def write(self, text: str) -> int:
        lines, newline, self._pending = (self._pending + text).rpartition("\n")
        if newline:
            with self.menu.away() if self.menu is not None else contextlib.nullcontext():
                self._out.write(lines + newline)
                self._out.flush()
        return len(text)

    def isatty(self) -> bool:
        return self._out.isatty()


def wanted(flag: bool | None, variable: str, *, colour: bool) -> bool:
    """Whether there is to be a menu: as the flag says, else COMPOSE_MENU (`variable`), else
    wherever this is a terminal that is ours and takes escape sequences."""
    if flag is None:
        flag = variable.lower() not in _OFF
    if not (flag and colour and sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        # Whoever is in the background may not change the terminal.
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return True  # one that controls nobody
