"""Removing a link without waiting for what the kernel does behind it.

RTM_DELLINK is answered 20 to 30 ms after the link has left the namespace (an RCU barrier, and
the wait for whoever still looks at it). That it has left is told to the group of links at once,
and then its name, its addresses and its parameters are gone (rtnetlink(7)).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading

from bridge.errors import LinkError
from bridge.netlink import split_messages
from bridge.rtnetlink import RouteSocket

_RTM_DELLINK = 17
_RTMGRP_LINK = 1


def see_off(index: int) -> None:
    """Remove the link `index` of this thread's namespace; one that is not there is as good.

    Returns once it is gone. Raises LinkError.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as news:
        news.bind((0, _RTMGRP_LINK))
        request = _Request(index)
        try:
            while not request.answered(news):
                if _has_left(news, index):
                    return
        finally:
            request.leave()
        request.check()


class _Request:
    """Asks the kernel in a thread, and may be left before the answer."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._route = RouteSocket()
        self._failure: LinkError | OSError | None = None
        self._done, self._end = os.pipe2(os.O_CLOEXEC)
        threading.Thread(target=self._run, name="departure", daemon=True).start()

    def _run(self) -> None:
        try:
            with self._route:
                self._route.delete_link(self._index)
        except (LinkError, OSError) as error:
            self._failure = error
        finally:
            os.close(self._end)

    def answered(self, other: socket.socket) -> bool:
        """Wait for the answer or for `other` to have something; whether it was the answer."""
        return self._done in select.select([self._done, other.fileno()], [], [])[0]

    def leave(self) -> None:
        os.close(self._done)

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure


def _has_left(news: socket.socket, index: int) -> bool:
    try:
        data = news.recv(1 << 16)
    except OSError:
        return False  # ENOBUFS: some news were lost; the answer comes in any case
    for kind, _flags, _sequence, payload in split_messages(data):
        family, _kind, found = struct.unpack_from("=BxHi", payload)
        # A port's leaving of its bridge is told under the same name, by family AF_BRIDGE.
        if kind == _RTM_DELLINK and family == socket.AF_UNSPEC and found == index:
            return True
    return False
