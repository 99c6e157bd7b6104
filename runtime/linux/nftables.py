"""Packet filter rules by libnftables(3), the library behind nft(8).

A text in nft's language is one transaction: all of it or nothing. The library keeps one
netlink socket, which belongs to the network namespace of the thread that makes the context.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from ctypes import c_bool, c_char_p, c_int, c_uint, c_uint32, c_void_p
from functools import cache

_LIBRARY = "libnftables.so.1"
_STATELESS = 1 << 2  # NFT_CTX_OUTPUT_STATELESS: no counters
_NUMERIC = 0b1111 << 7  # NFT_CTX_OUTPUT_NUMERIC_ALL: no names that depend on the host

# include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h
_NETLINK_NETFILTER = 12
_NFT_MSG_GETGEN = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_NFTA_GEN_ID = 1
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2


class RulesRefused(Exception):
    """The kernel or the library refused a text of rules; nothing of it was done."""


@cache
def _library() -> ctypes.CDLL:
    """libnftables with its prototypes bound; raises OSError when it is not installed."""
    library = ctypes.CDLL(_LIBRARY)
    for name, restype, *argtypes in (
        ("nft_ctx_new", c_void_p, c_uint32),
        ("nft_ctx_free", None, c_void_p),
        ("nft_ctx_buffer_output", c_int, c_void_p),
        ("nft_ctx_buffer_error", c_int, c_void_p),
        ("nft_ctx_get_output_buffer", c_char_p, c_void_p),
        ("nft_ctx_get_error_buffer", c_char_p, c_void_p),
        ("nft_ctx_output_set_flags", None, c_void_p, c_uint),
        ("nft_ctx_set_dry_run", None, c_void_p, c_bool),
        ("nft_run_cmd_from_buffer", c_int, c_void_p, c_char_p),
    ):
        function = getattr(library, name)
        function.restype = restype
        function.argtypes = argtypes
    return library


class Nftables:
    """A library context; for any thread, one at a time. Use as a context manager or `close()`."""

    def __init__(self) -> None:
        self._library = _library()
        self._lock = threading.Lock()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise MemoryError("nft_ctx_new")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, _STATELESS | _NUMERIC)
        # Kept open: when such a socket is closed after something was deleted, the kernel
        # waits for all of it to be gone, ten milliseconds and more (nft_rcv_nl_event).
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))

    def __enter__(self) -> Nftables:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None
                self._socket.close()

    def run(self, text: str) -> str:
        """Run `text` as one transaction and give what it printed, without counters.

        Raises RulesRefused with the library's explanation.
        """
        with self._lock:
            if not self._context:
                raise ValueError("the context is closed")
            failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
            output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
            error: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise RulesRefused(error.decode(errors="replace").strip() or "no reason given")
        return output.decode(errors="replace")

    def generation(self) -> int:
        """The number of the ruleset of the context's network namespace.

        Every transaction of anybody changes it, so equal numbers mean that nobody touched
        anything: the cheap half of finding drift. Raises OSError.
        """
        request = struct.pack("=IHHIIBBH", 20, _NFT_MSG_GETGEN, _NLM_F_REQUEST, 1, 0, 0, 0, 0)
        with self._lock:
            self._socket.send(request)
            reply = self._socket.recv(4096)
        (kind,) = struct.unpack_from("=H", reply, 4)
        if kind == _NLMSG_ERROR:
            (number,) = struct.unpack_from("=i", reply, 16)
            raise OSError(-number, os.strerror(-number))
        offset = 20  # nlmsghdr and nfgenmsg
        while offset + 4 <= len(reply):
            length, attribute = struct.unpack_from("=HH", reply, offset)
            if attribute == _NFTA_GEN_ID:
                (value,) = struct.unpack_from("!I", reply, offset + 4)
                return int(value)
            offset += max(4, (length + 3) & ~3)
        raise OSError(errno.EPROTO, "no generation in the kernel's answer")
