"""DNS messages (RFC 1035, RFC 6891): reading questions and packing answers, by hand.

Only what a resolver for container names needs; what is passed on is passed on as it came.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

A, NS, PTR, AAAA, OPT, ANY = 1, 2, 12, 28, 41, 255
CLASS_IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

SMALLEST_UDP = 512
LARGEST_UDP = 1232  # what passes everywhere unfragmented (DNS flag day 2020)

_HEADER = struct.Struct("!HHHHHH")
_QR, _OPCODE, _AA, _TC, _RD, _RA = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080
_CD = 0x0010
_POINTER_TO_QUESTION = 0xC00C
_LONGEST_NAME = 255
_REVERSE = (b"in-addr", b"arpa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question: `name` in lower case without the last dot, `question` the section's bytes.

    `udp_size` is how many bytes an answer by UDP may have; `edns` whether that was said.
    """

    id: int
    flags: int
    name: str
    type: int
    class_: int
    question: bytes
    udp_size: int
    edns: bool

    @property
    def opcode(self) -> int:
        return (self.flags & _OPCODE) >> 11


def parse_query(message: bytes) -> Query | None:
    """The question in `message`; None for whatever is none, which deserves no answer."""
    if len(message) < _HEADER.size:
        return None
    id_, flags, questions, _answers, _authorities, additional = _HEADER.unpack_from(message)
    if flags & _QR or questions != 1:
        return None
    read = _read_labels(message, _HEADER.size)
    if read is None:
        return None
    labels, offset = read
    if offset + 4 > len(message):
        return None
    type_, class_ = struct.unpack_from("!HH", message, offset)
    offset += 4
    size = _edns_size(message, offset) if additional else None
    return Query(
        id=id_,
        flags=flags,
        name=b".".join(labels).lower().decode("latin-1"),
        type=type_,
        class_=class_,
        question=message[_HEADER.size : offset],
        udp_size=SMALLEST_UDP if size is None else max(SMALLEST_UDP, min(size, LARGEST_UDP)),
        edns=size is not None,
    )


def answer(query: Query, addresses: Sequence[str], ttl: int, *, limit: int | None = None) -> bytes:
    """An answer of A records; with `limit` bytes, fewer of them and the mark for "ask by TCP"."""
    records = [
        struct.pack("!HHHIH", _POINTER_TO_QUESTION, A, CLASS_IN, ttl, 4) + IPv4Address(a).packed
        for a in addresses
    ]
    return _pack(query, NOERROR, records, limit)


def pointer_answer(query: Query, name: str, ttl: int) -> bytes:
    """An answer of one PTR record."""
    target = encode_name(name)
    head = struct.pack("!HHHIH", _POINTER_TO_QUESTION, PTR, CLASS_IN, ttl, len(target))
    return _pack(query, NOERROR, [head + target], None)


def no_answer(query: Query, code: int) -> bytes:
    """An answer without records: NOERROR for "known, but not of this type"."""
    return _pack(query, code, [], None)


def fit(response: bytes, query: Query) -> bytes:
    """`response` where it fits what the asker takes by UDP, else only its mark for TCP."""
    if len(response) <= query.udp_size:
        return response
    id_, flags, *_counts = _HEADER.unpack_from(response)
    return _HEADER.pack(id_, flags | _TC, 1, 0, 0, 0) + query.question


def with_id(message: bytes, id_: int) -> bytes:
    return struct.pack("!H", id_) + message[2:]


def answers_to(response: bytes, query: Query, id_: int) -> bool:
    """Whether `response` answers `query` as it was passed on under `id_`."""
    if len(response) < _HEADER.size:
        return False
    got, flags, questions, *_counts = _HEADER.unpack_from(response)
    if got != id_ or not flags & _QR or questions != 1:
        return False
    start = _HEADER.size
    return response[start : start + len(query.question)].lower() == query.question.lower()


def response_code(response: bytes) -> int:
    return response[3] & 0x0F


def is_truncated(response: bytes) -> bool:
    return bool(response[2] << 8 & _TC)


def encode_name(name: str) -> bytes:
    """A name in the form of messages; raises ValueError for what is no name."""
    labels = name.rstrip(".").encode().split(b".")
    if any(not 0 < len(label) < 64 for label in labels):
        raise ValueError(f"{name!r} is not a domain name")
    encoded = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(encoded) > _LONGEST_NAME:
        raise ValueError(f"{name!r} is too long for a domain name")
    return encoded


def reverse_address(name: str) -> IPv4Address | None:
    """The address that a name below in-addr.arpa stands for."""
    labels = name.encode("latin-1").split(b".")
    if len(labels) != 6 or tuple(labels[4:]) != _REVERSE:
        return None
    try:
        return IPv4Address(b".".join(reversed(labels[:4])).decode("latin-1"))
    except AddressValueError:
        return None


def _pack(query: Query, code: int, records: Sequence[bytes], limit: int | None) -> bytes:
    flags = _QR | query.flags & (_OPCODE | _RD | _CD) | _RA | code
    if code in (NOERROR, NXDOMAIN):
        flags |= _AA
    extra = b""
    if query.edns:
        extra = struct.pack("!BHHIH", 0, OPT, LARGEST_UDP, 0, 0)
    room = 65535 if limit is None else limit
    room -= _HEADER.size + len(query.question) + len(extra)
    kept: list[bytes] = []
    for record in records:
        if len(record) > room:
            flags |= _TC
            break
        room -= len(record)
        kept.append(record)
    header = _HEADER.pack(query.id, flags, 1, len(kept), 0, 1 if extra else 0)
    return header + query.question + b"".join(kept) + extra


def _read_labels(message: bytes, offset: int) -> tuple[list[bytes], int] | None:
    """A name without compression, which a question has no use for."""
    labels: list[bytes] = []
    start = offset
    while offset < len(message):
        length = message[offset]
        offset += 1
        if length == 0:
            return labels, offset
        if length > 63 or offset + length > len(message) or offset - start > _LONGEST_NAME:
            return None
        labels.append(message[offset : offset + length])
        offset += length
    return None


def _edns_size(message: bytes, offset: int) -> int | None:
    """The UDP size in an OPT record that comes right behind the question, as all clients do."""
    if offset + 11 > len(message) or message[offset] != 0:
        return None
    type_, size = struct.unpack_from("!HH", message, offset + 1)
    return int(size) if type_ == OPT else None
