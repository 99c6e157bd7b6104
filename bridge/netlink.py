"""netlink(7): a socket, messages and attributes, whatever the family."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from bridge.errors import LinkError

# include/uapi/linux/netlink.h
HEADER_SIZE = 16
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED, _NLA_TYPE_MASK = 0x8000, 0x3FFF
_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12
_RECEIVE_SIZE = 1 << 16
_DUMP_ATTEMPTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request: `payload` is what follows the header."""

    kind: int
    flags: int
    payload: bytes


class NetlinkSocket:
    """A socket to the kernel of the calling thread's network namespace, for good.

    For any number of threads, one request at a time.
    """

    def __init__(self, family: int) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family
        )
        try:
            self._socket.bind((0, 0))
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.settimeout(10)  # the kernel always answers; never hang on a bug
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, messages: Sequence[Message], attempted: str) -> list[bytes]:
        """Send the messages in one datagram; the payload of each answer that is no mere receipt.

        Each of them is carried out, whatever becomes of the others. Raises LinkError for the
        first that failed: `attempted` says what for.
        """
        with self._lock:
            return self._request(messages, attempted)

    def _request(self, messages: Sequence[Message], attempted: str) -> list[bytes]:
        first = self._sequence + 1
        self._socket.send(b"".join(self._encode(message) for message in messages))
        waiting = set(range(first, self._sequence + 1))
        answers: list[bytes] = []
        failure: LinkError | None = None
        while waiting:
            for kind, flags, sequence, payload in split_messages(self._socket.recv(_RECEIVE_SIZE)):
                if sequence not in waiting:
                    continue
                waiting.discard(sequence)
                if kind != _NLMSG_ERROR:
                    answers.append(payload)
                elif failure is None:
                    failure = _failure(attempted, flags, payload)
        if failure is not None:
            raise failure
        return answers

    def dump(self, message: Message, attempted: str) -> list[bytes]:
        """The payload of every object that the request lists. Raises LinkError.

        A list that changed while it was told is asked for again.
        """
        with self._lock:
            for _attempt in range(_DUMP_ATTEMPTS):
                found, whole = self._dump(message, attempted)
                if whole:
                    break
            return found

    def _dump(self, message: Message, attempted: str) -> tuple[list[bytes], bool]:
        self._socket.send(self._encode(message, NLM_F_DUMP))
        sequence = self._sequence
        found: list[bytes] = []
        whole = True
        while True:
            for kind, flags, sequence_, payload in split_messages(self._socket.recv(_RECEIVE_SIZE)):
                if sequence_ != sequence:
                    continue
                whole = whole and not flags & _NLM_F_DUMP_INTR
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    failure = _failure(attempted, flags, payload)
                    if failure is not None:
                        raise failure
                    return found, whole
                found.append(payload)

    def _encode(self, message: Message, flags: int = 0) -> bytes:
        self._sequence += 1
        length = HEADER_SIZE + len(message.payload)
        flags |= message.flags | NLM_F_REQUEST
        header = struct.pack("=IHHII", length, message.kind, flags, self._sequence, 0)
        return header + message.payload + bytes(-length % 4)


def attributes(payload: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute from `offset` on."""
    while offset + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, offset)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    return attribute(kind | _NLA_F_NESTED, b"".join(inner))


def split_messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, payload) of each message in a datagram."""
    offset = 0
    while offset + HEADER_SIZE <= len(data):
        length, kind, flags, sequence, _port = struct.unpack_from("=IHHII", data, offset)
        if length < HEADER_SIZE:
            return
        yield kind, flags, sequence, data[offset + HEADER_SIZE : offset + length]
        offset += (length + 3) & ~3


def _failure(attempted: str, flags: int, payload: bytes) -> LinkError | None:
    """What a receipt says went wrong; None when it says that all is well."""
    (number,) = struct.unpack_from("=i", payload, 0)
    if number == 0:
        return None
    message = os.strerror(-number)
    if flags & _NLM_F_ACK_TLVS and len(payload) >= 8:
        # Behind the errno stands the header of the request, with its payload unless capped.
        (length,) = struct.unpack_from("=I", payload, 4)
        offset = 4 + (HEADER_SIZE if flags & _NLM_F_CAPPED else (length + 3) & ~3)
        text = dict(attributes(payload, offset)).get(_NLMSGERR_ATTR_MSG)
        if text:
            message = f"{message} ({text.rstrip(bytes(1)).decode(errors='replace')})"
    return LinkError(attempted, -number, message)
