"""A terminal for a command: a pty, and what a person would see on it."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Self

_CONTROL = re.compile(r"\x1b\[(\??)(\d*)[\d;]*([A-Za-z])")


class Screen:
    """What the given text leaves on a terminal of endless height: it knows what the display
    uses, and takes anything else for an error."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.cursor_shown = True
        self._lines: list[str] = [""]
        self._row = self._column = 0

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._lines]

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                control = _CONTROL.match(text, at)
                if control is None:
                    return  # the rest of it has not come
                self._obey(control[1], int(control[2] or 1), control[3])
                at = control.end()
                continue
            self._write(text[at])
            at += 1

    def _obey(self, private: str, number: int, final: str) -> None:
        if private and final in "hl":
            self.cursor_shown = final == "h"
        elif final == "A":
            self._row = max(0, self._row - number)
        elif final == "K":
            self._lines[self._row] = ""
        else:
            assert final == "m", (private, number, final)

    def _write(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
            return
        if letter == "\n" or self._column >= self.width:
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._lines):
                self._lines.append("")
        if letter != "\n":
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + letter + line[self._column + 1 :]
            self._column += 1


class Terminal:
    """A process whose standard streams are a terminal of this size; `pass_fds` it keeps."""

    def __init__(
        self, argv: Sequence[str], width: int, height: int, pass_fds: Sequence[int] = ()
    ) -> None:
        self._master, slave = os.openpty()
        self.resize(width, height)
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            pass_fds=pass_fds,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "", "COLUMNS": "", "LINES": ""},
        )
        os.close(slave)
        self._output: list[bytes] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def resize(self, width: int, height: int) -> None:
        self.width = width
        size = struct.pack("HHHH", height, width, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def screen(self) -> Screen:
        screen = Screen(self.width)
        screen.feed(b"".join(self._output).decode(errors="ignore"))
        return screen

    def forget(self) -> None:
        """Look only at what comes from now on."""
        self._output.clear()

    def shows(self, wanted: Callable[[list[str]], object]) -> list[str]:
        """The lines as soon as they are as wanted."""
        deadline = time.monotonic() + 30
        while not wanted(lines := self.screen().lines):
            assert time.monotonic() < deadline, "\n".join(lines)
            time.sleep(0.02)
        return lines

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the other end open
                return
            if not data:
                return
            self._output.append(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
        os.close(self._master)


def pipe() -> tuple[int, IO[str]]:
    """A pipe: the descriptor to read from, and a file that writes lines at once."""
    reading, writing = os.pipe()
    return reading, os.fdopen(writing, "w", buffering=1)
