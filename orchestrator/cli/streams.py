"""Carries bytes between this terminal and a process in a container, until the process ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator

from orchestrator.cli.detach import DetachKeys
from orchestrator.engine.monitors import AttachSession, ExecSession

_CHUNK = 64 * 1024
_PROXIED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def carry(session: ExecSession) -> int | None:
    """Copy pipes both ways; gives the process's exit status."""
    assert session.stdout is not None and session.stderr is not None
    outputs = {session.stdout: sys.stdout.fileno(), session.stderr: sys.stderr.fileno()}
    return _Copy(session, outputs, session.stdin).run()


def carry_terminal(session: ExecSession) -> int | None:
    """The same over the process's terminal, with ours in raw mode and its size kept equal."""
    terminal = session.terminal
    assert terminal is not None
    with _raw(sys.stdin.fileno()), _sizes(terminal):
        return _Copy(session, {terminal: sys.stdout.fileno()}, terminal).run()


def carry_attached(
    session: AttachSession,
    *,
    keys: DetachKeys | None,
    proxy: bool,
    typing: bool,
    end_input: bool,
) -> int | None:
    """The same for a container's first process; None when the detach keys were typed.

    `proxy` passes our signals on to it, `typing` our input; `end_input` lets it see its end.
    """
    assert session.stdout is not None
    outputs = {session.stdout: sys.stdout.fileno()}
    if session.stderr is not None:
        outputs[session.stderr] = sys.stderr.fileno()
    on_terminal = session.terminal is not None and typing and sys.stdin.isatty()
    with contextlib.ExitStack() as stack:
        if session.terminal is not None and sys.stdout.isatty():
            stack.enter_context(_sizes(session.terminal))
        if on_terminal:
            stack.enter_context(_raw(sys.stdin.fileno()))
        if proxy:
            stack.enter_context(_proxied(session))
        to_process = session.stdin if session.terminal is None else session.terminal
        if not typing:
            to_process = None
        return _Copy(session, outputs, to_process, keys=keys, end_input=end_input).run()


class _Detached(Exception):
    """The detach keys were typed."""


class _Copy:
    """One loop: input waits in a buffer, so that a process that does not read blocks nothing."""

    def __init__(
        self,
        session: ExecSession,
        outputs: dict[int, int],
        to_process: int | None,
        *,
        keys: DetachKeys | None = None,
        end_input: bool = False,
    ) -> None:
        self._session = session
        self._outputs = outputs
        self._to_process = to_process
        self._keys = keys
        self._pass_end = end_input
        self._waiting = b""
        self._ended = to_process is None
        self._poll = select.poll()
        for fd in outputs:
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)
        self._poll.register(session.fileno(), select.POLLIN)
        if to_process is not None:
            os.set_blocking(to_process, False)

    def run(self) -> int | None:
        try:
            return self._run()
        except _Detached:
            return None

    def _run(self) -> int:
        stdin = sys.stdin.fileno()
        while True:
            self._expect(stdin)
            ready = dict(self._poll.poll())
            for fd in list(self._outputs):
                if fd in ready:
                    self._pass_on(fd)
            if stdin in ready:
                self._take(stdin)
            if self._waiting:
                self._give()
            elif ready.get(self._to_process or -1, 0) & self._lost():
                self._end_input()  # nobody reads it any more
            if self._session.fileno() in ready:
                for fd in list(self._outputs):
                    self._pass_on(fd, drain=True)
                return self._session.wait()

    def _lost(self) -> int:
        """What tells that nobody reads the input: a terminal that is read too tells it there."""
        both_ways = self._to_process in self._outputs
        return select.POLLERR if both_ways else select.POLLERR | select.POLLHUP

    def _expect(self, stdin: int) -> None:
        """Listen to our input only while what it gave has been taken."""
        with contextlib.suppress(KeyError):
            self._poll.unregister(stdin)
        if not self._ended and not self._waiting:
            self._poll.register(stdin, select.POLLIN)
        if self._to_process is not None:
            wanted = select.POLLIN if self._to_process in self._outputs else 0
            if self._waiting:
                wanted |= select.POLLOUT
            self._poll.register(self._to_process, wanted)

    def _take(self, stdin: int) -> None:
        try:
            self._waiting = os.read(stdin, _CHUNK)
        except OSError:
            self._waiting = b""  # closed, or a terminal that we may not read
        if not self._waiting:
            self._end_input()
        elif self._keys is not None:
            self._waiting, detached = self._keys.feed(self._waiting)
            if detached:
                raise _Detached

    def _end_input(self) -> None:
        self._ended = True
        if self._to_process is not None and self._to_process not in self._outputs:
            self._poll.unregister(self._to_process)
            self._to_process = None
            if self._session.stdin is not None:
                os.close(self._session.stdin)
                self._session.stdin = None
                if self._pass_end and isinstance(self._session, AttachSession):
                    self._session.end_input()

    def _give(self) -> None:
        assert self._to_process is not None
        try:
            written = os.write(self._to_process, self._waiting)
        except BlockingIOError:
            return
        except OSError:
            # The process does not read any more; what is left of the input is for nobody.
            self._waiting = b""
            self._end_input()
            return
        self._waiting = self._waiting[written:]

    def _pass_on(self, fd: int, *, drain: bool = False) -> None:
        while True:
            try:
                chunk = os.read(fd, _CHUNK)
            except BlockingIOError:
                return
            except OSError:
                chunk = b""  # EIO: the last holder of the terminal has gone
            if not chunk:
                self._poll.unregister(fd)
                del self._outputs[fd]
                if fd == self._to_process:
                    self._to_process, self._ended, self._waiting = None, True, b""
                return
            _write_all(self._outputs[fd], chunk)
            if not drain:
                return


def _write_all(fd: int, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(fd, chunk) :]


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    import termios
    import tty

    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSADRAIN)  # what was typed ahead is kept
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _sizes(terminal: int) -> Iterator[None]:
    """Give the process's terminal our size, now and whenever ours changes."""
    import fcntl
    import termios

    def resize(*_: object) -> None:
        with contextlib.suppress(OSError):
            size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)

    before = signal.signal(signal.SIGWINCH, resize)
    resize()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextlib.contextmanager
def _proxied(session: AttachSession) -> Iterator[None]:
    """Pass the signals that we get on to the process, instead of ending by them."""

    def pass_on(number: int, _frame: object) -> None:
        session.signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PROXIED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
