"""Keeps containers: one process, one loop over descriptors, a monitor for each container.

Forked from the launcher, single-threaded. Containers of one group (a project, for whoever says
so) share a keeper, a few of them each, so that what a process costs is paid once; any other
container has one to itself. It needs nothing of the daemon and, once it was told what to start,
nothing of the launcher. When it is killed, the kernel kills its containers with it, so that none
runs that nobody looks after.

Nothing in the loop waits for anybody: starts, execs, and what is left to do when a container has
ended, are done by children, and output is taken in small portions, each container's in its turn.
An error in the code for one container ends that one alone. All modules are loaded before the
fork, as an upgrade replaces them on the disk.

The launcher's messages, over a connection that ends when it has no more to start here:
  {"op": "start", "id", …}  with the descriptor of a client, who gets the answer
It is told {"ended": N}, how many of those have ended so far.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from runtime.container.children import answer_error, become, close, report_fault
from runtime.container.ending import Ended, settle
from runtime.container.paths import is_id
from runtime.container.starting import Starting
from runtime.container.strays import Strays
from runtime.errors import NotFound
from runtime.linux import process, sockets

if TYPE_CHECKING:
    from runtime.container.kit import Kit
    from runtime.container.paths import Instance

Callback = Callable[[int], None]

# Seconds of each turn for output, with which one container may keep the others waiting.
_OUTPUT_TIME = 0.002


class Ward(Protocol):
    """A container that is being started, that runs, or that has just ended."""

    def patience(self) -> float | None:
        """How long it can wait for something to happen, in seconds; None for ever."""

    def tick(self) -> None:
        """Do what has become due."""

    def fail(self, error: Exception) -> None:
        """End it: our own code for it has failed with `error`."""

    def let_go(self) -> None:
        """Close all its descriptors."""


class OwnSelector:
    """The part of a keeper's selector that is one ward's, each descriptor with what to call."""

    def __init__(self, selector: selectors.BaseSelector, owner: Ward) -> None:
        self._selector = selector
        self._owner = owner
        self._own: dict[int, int | socket.socket] = {}

    def register(
        self, what: int | socket.socket, events: int, callback: Callback, *, bulk: bool = False
    ) -> None:
        """One in `bulk` gives without end, and may have to wait for the others."""
        key = self._selector.register(what, events, _Listener(self._owner, callback, bulk=bulk))
        self._own[key.fd] = what

    def unregister(self, what: int | socket.socket) -> None:
        """Raises KeyError where it is not registered."""
        del self._own[self._selector.unregister(what).fd]

    def discard(self, what: int | socket.socket) -> None:
        """Unregister it, where it is registered."""
        with contextlib.suppress(KeyError):
            self.unregister(what)

    def __contains__(self, fd: int) -> bool:
        return fd in self._own

    def __iter__(self) -> Iterator[int]:
        return iter(self._own)

    def clear(self) -> list[int | socket.socket]:
        """Unregister all, and give what that was."""
        all = list(self._own.values())
        for what in all:
            self.unregister(what)
        return all

    def close(self) -> None:
        """Let go of all that is registered; sockets are closed, other descriptors stay open."""
        for what in self.clear():
            if isinstance(what, socket.socket):
                what.close()

    def begin_anew(self) -> None:
        """In a child: forget what is registered, which is still the parent's."""
        self._selector = selectors.DefaultSelector()
        self._own = {}


class _Listener:
    """What is called when there is something on a descriptor; `served` is the last turn of one
    that is in bulk."""

    __slots__ = ("bulk", "callback", "owner", "served")

    def __init__(self, owner: Ward | None, callback: Callback, *, bulk: bool = False) -> None:
        self.owner = owner
        self.callback = callback
        self.bulk = bulk
        self.served = 0


class Keeper:
    """`start` and `start_exec` do, in a child, what those of `runtime.container.starter` do."""

    def __init__(
        self,
        instance: Instance,
        launcher: socket.socket | None,
        *,
        start: Callable[[Instance, dict[str, Any], socket.socket], None],
        start_exec: Callable[[Instance, Kit, dict[str, Any], int, socket.socket, list[int]], None],
    ) -> None:
        self.instance = instance
        self.starts = start
        self.starts_exec = start_exec
        self._wards: set[Ward] = set()
        self.ended: list[Ended] = []
        self._ended = 0
        # Our children, and those of them that bring forth others and have yet to say so.
        self._children: set[int] = set()
        self._bearing: set[int] = set()
        self._strays = Strays()
        # Descriptors for an end, should clients have taken all others.
        self._spare: list[int] = []
        self._keep_spare()
        self._turns = 0
        self._selector = selectors.DefaultSelector()
        self._launcher = launcher
        if launcher is not None:
            launcher.setblocking(False)
            listener = _Listener(None, self._on_launcher)
            self._selector.register(launcher, selectors.EVENT_READ, listener)

    def run(self) -> None:
        """Stay until the launcher has let go and no container is left."""
        while self.busy or self._launcher is not None:
            self.turn(self._patience())

    @property
    def busy(self) -> bool:
        """Whether there is anything to look after."""
        return bool(self._wards)

    def turn(self, patience: float | None) -> None:
        """Wait for `patience` seconds at most, and do what has come."""
        registered = self._selector.get_map()
        bulk = []
        for key, _events in self._selector.select(patience):
            # What came before in this round may have closed it.
            if registered.get(key.fd) is not key:
                continue
            if key.data.bulk:
                bulk.append(key)
            else:
                self._attempt(key.data.owner, key.data.callback, key.fd)
        if bulk:
            self._serve_bulk(bulk)
        for ward in tuple(self._wards):
            self._attempt(ward, ward.tick)
        if self._strays.patience is not None:
            gone = self._strays.tick(self._children, quiet=not self._bearing)
            self._children -= gone
            self._bearing -= gone
        if self.ended:
            self._settle()

    def _serve_bulk(self, keys: list[selectors.SelectorKey]) -> None:
        """One of them at least, and that which has waited longest."""
        registered = self._selector.get_map()
        end = time.monotonic() + _OUTPUT_TIME
        for key in sorted(keys, key=lambda key: key.data.served):
            if registered.get(key.fd) is not key:
                continue
            self._turns += 1
            key.data.served = self._turns
            self._attempt(key.data.owner, key.data.callback, key.fd)
            if time.monotonic() >= end:
                return

    def _attempt(self, ward: Ward | None, work: Callable[..., None], *arguments: int) -> None:
        """Do what may fail for this ward, and may not for any other."""
        try:
            work(*arguments)
        except Exception as error:
            report_fault(error)
            if ward is None:
                self._leave_launcher()
                return
            try:
                ward.fail(error)
            except Exception as further:
                report_fault(further)

    def _settle(self) -> None:
        now = time.monotonic()
        due = [one for one in self.ended if one.due <= now]
        if not due:
            return
        self.ended = [one for one in self.ended if one.due > now]
        settle(self, due)
        self._keep_spare()

    def _patience(self) -> float | None:
        times = [wait for ward in self._wards if (wait := ward.patience()) is not None]
        if self._strays.patience is not None:
            times.append(self._strays.patience)
        if self.ended:
            times.append(max(0.0, min(one.due for one in self.ended) - time.monotonic()))
        return min(times) if times else None

    def close(self) -> None:
        """Let go of all descriptors; only where no container runs."""
        for ward in self._wards:
            ward.let_go()
        self._selector.close()
        close(self._spare)

    # --- wards ---------------------------------------------------------------------------

    def selector_of(self, ward: Ward) -> OwnSelector:
        return OwnSelector(self._selector, ward)

    def start(self, request: dict[str, Any], client: socket.socket) -> None:
        """Begin to start a container; `client` is answered once it runs or has failed."""
        id = str(request.get("id"))
        try:
            if not is_id(id):
                raise NotFound("container", id)
            self.take(Starting(self, id, request, client))
        except Exception as error:
            answer_error(client, error)
            self._count_end()

    def take(self, ward: Ward, instead: Ward | None = None) -> None:
        self._wards.add(ward)
        if instead is not None:
            self._wards.discard(instead)

    def drop(self, ward: Ward) -> None:
        """There is nothing left to do for it."""
        if ward in self._wards:
            self._wards.discard(ward)
            self._count_end()

    def _count_end(self) -> None:
        self._ended += 1
        if self._launcher is not None:
            # One that has gone says so by the end of its connection.
            with contextlib.suppress(OSError):
                sockets.send(self._launcher, {"ended": self._ended})

    def _on_launcher(self, _fd: int) -> None:
        assert self._launcher is not None
        try:
            request, fds = sockets.receive(self._launcher)
        except BlockingIOError:
            return
        except (EOFError, OSError, ValueError):
            self._leave_launcher()
            return
        if not fds:
            # No descriptor was free for the client, who sees the end of its connection.
            self._count_end()
            return
        client = socket.socket(fileno=fds[0])
        # It gets one answer, for which there is room.
        client.setblocking(False)
        self.start(request, client)

    def _leave_launcher(self) -> None:
        if self._launcher is not None:
            self._selector.unregister(self._launcher)
            self._launcher.close()
            self._launcher = None

    # --- children ------------------------------------------------------------------------

    def spawn(
        self,
        body: Callable[[socket.socket], None],
        *,
        kept: Iterable[int] = (),
        into: int | None = None,
        bearing: bool = False,
        at_any_rate: bool = False,
    ) -> tuple[int, socket.socket]:
        """Fork, into a control group where one is given; the child runs `body` with no other
        descriptors than `kept`. One that is `bearing` brings forth siblings, which are then to be
        adopted before it is waited for. One that is wanted `at_any_rate` has descriptors kept for
        it.

        The socket that is returned gives what the child reports and then its end.
        """
        if at_any_rate:
            close(self._spare)
            self._spare.clear()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = process.fork(into=into)
        except OSError:
            ours.close()
            raise
        else:
            if pid == 0:
                process.close_others((theirs.fileno(), *kept))
                become(body, theirs)
            self._children.add(pid)
            if bearing:
                self._bearing.add(pid)
            return pid, ours
        finally:
            theirs.close()

    def _keep_spare(self) -> None:
        """Have the two that a socketpair takes, where there are two."""
        with contextlib.suppress(OSError):
            while len(self._spare) < 2:
                self._spare.append(os.dup(0))

    def adopt(self, pid: int) -> None:
        """A child of ours that another one has brought forth."""
        self._children.add(pid)

    def has(self, pid: int) -> bool:
        """Whether it is a child of ours that was not waited for yet."""
        return pid in self._children

    def wait(self, pid: int) -> int:
        """The status of a child that has ended, or is about to."""
        status = os.waitpid(pid, 0)[1]
        self._children.discard(pid)
        self._bearing.discard(pid)
        return status

    def take_status(self, pid: int) -> int | None:
        """That of a child which should have ended; None where it has not, and is disowned."""
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self.disown(pid)
            return None
        return self.wait(pid)

    def disown(self, pid: int) -> None:
        """A child that nobody will wait for: it is killed."""
        self._strays.add(pid)

    def suspect_stray(self) -> None:
        """What brings forth others has ended without a word."""
        self._strays.suspect()
