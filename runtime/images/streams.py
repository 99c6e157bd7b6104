"""Byte streams of layers: hashed, compressed and decompressed in one pass.

Hashing, compression and file writes release the interpreter's lock, so a second thread
does one side of the work while the first does the other.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import queue
import threading
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, cast

from runtime.errors import ImageError, Unsupported
from runtime.images.tar_reader import Source
from runtime.oci.descriptor import LAYER, LAYER_GZIP, LAYER_ZSTD

CHUNK = 1024 * 1024
_INPUT = 128 * 1024
# A block of 4 bytes may stand for 128 KiB: this much makes 64 MiB at the worst.
_ZSTD_INPUT = 2 * 1024
_LEVEL = 1
_GZIP = 31  # zlib's wbits for a gzip wrapper
# What `xz -9` needs is 65 MiB; a header may ask for gigabytes.
_XZ_MEMORY = 256 * 1024 * 1024

BZIP2 = f"{LAYER}+bzip2"
XZ = f"{LAYER}+xz"
UNREGISTERED = frozenset({BZIP2, XZ})
"""Compressions that OCI does not know: read, but never written."""

_MAGIC = (
    (b"\x1f\x8b", LAYER_GZIP),
    (b"\x28\xb5\x2f\xfd", LAYER_ZSTD),
    (b"BZh", BZIP2),
    (b"\xfd7zXZ\0", XZ),
)
LONGEST_MAGIC = max(len(magic) for magic, _ in _MAGIC)
"""Bytes of a stream by which `media_type` knows it."""


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Decompressor(Protocol):
    """One compressed member; `decompress` gives at most `limit` bytes where it can."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, limit: int, /) -> bytes: ...


class _ZlibDecompressor:
    """zlib's decompressor with the interface of isal's and bz2's."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)
        self._tail = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, limit: int, /) -> bytes:
        output = self._inner.decompress(self._tail + data, limit)
        self._tail = self._inner.unconsumed_tail
        return output


def gzip_compressor() -> Compressor:
    """A gzip compressor, fast rather than small; the header carries no time and no name."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    compressor: Compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
    return compressor


def media_type(start: bytes) -> str:
    """The layer media type of a stream that starts with these bytes (at least 6)."""
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    return LAYER


class Prefixed:
    """A source whose first bytes were already read."""

    def __init__(self, start: bytes, source: Source) -> None:
        self._start = start
        self._source = source

    def read(self, size: int, /) -> bytes:
        if self._start:
            piece, self._start = self._start[:size], self._start[size:]
            return piece
        return self._source.read(size)


class Tapped:
    """A source that hands every piece to `tap` as it is read, and counts the bytes."""

    def __init__(self, source: Source, tap: Callable[[bytes], object]) -> None:
        self._source = source
        self._tap = tap
        self.count = 0

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        if piece:
            self.count += len(piece)
            self._tap(piece)
        return piece


class Guarded:
    """A source that calls `stop` before every read; what it raises ends the reader."""

    def __init__(self, source: Source, stop: Callable[[], object]) -> None:
        self._source = source
        self._stop = stop

    def read(self, size: int, /) -> bytes:
        self._stop()
        return self._source.read(size)


class Decompressed:
    """The content of a compressed stream of one or more members; a cut stream is an error.

    `make` gives a decompressor for one member, `errors` are what it raises, `step` is how
    many bytes it is given at once.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        make: Callable[[], _Decompressor],
        errors: tuple[type[Exception], ...],
        step: int,
    ) -> None:
        self._source = source
        self._name = name
        self._make = make
        self._errors = errors
        self._step = step
        self._inner = make()
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        while True:
            if self._inner.eof:
                self._pending = self._inner.unused_data or self._source.read(self._step)
                if not self._pending.strip(b"\0"):
                    while self._source.read(self._step):
                        pass  # padding after the last member
                    return b""
                self._inner = self._make()
            if self._inner.needs_input and not self._pending:
                self._pending = self._source.read(self._step)
                if not self._pending:
                    raise ImageError(f"the {self._name} stream is cut")
            given, self._pending = self._pending, b""
            try:
                output = self._inner.decompress(given, size)
            except self._errors as exc:
                raise ImageError(f"the {self._name} stream is damaged") from exc
            if output:
                return output


def gunzip(source: Source) -> Source:
    """The content of a gzip stream."""
    try:
        from isal import igzip_lib
    except ImportError:
        return Decompressed(source, "gzip", _ZlibDecompressor, (zlib.error,), _INPUT)

    def make() -> _Decompressor:
        decompressor: _Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return decompressor

    # The library's type hints call its error class an instance.
    error = cast(type[Exception], igzip_lib.IsalError)
    return Decompressed(source, "gzip", make, (error,), _INPUT)


def unzstd(source: Source) -> Source:
    """The content of a zstd stream."""
    try:
        import zstandard
    except ImportError as exc:
        raise Unsupported(
            "cannot read a layer compressed with zstd", hint="install the package zstandard"
        ) from exc

    class Frame:
        """The library's decompressor, which cannot limit its output: it gets little input."""

        needs_input = True

        def __init__(self) -> None:
            self._inner = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()

        @property
        def eof(self) -> bool:
            return self._inner.eof

        @property
        def unused_data(self) -> bytes:
            return self._inner.unused_data

        def decompress(self, data: bytes, limit: int, /) -> bytes:
            return self._inner.decompress(data)

    return Decompressed(source, "zstd", Frame, (zstandard.ZstdError,), _ZSTD_INPUT)


def decompressed(source: Source, kind: str) -> Source:
    """The plain tar of a layer stream of the media type `kind`."""
    if kind.endswith(("+gzip", ".gzip")):
        return gunzip(source)
    if kind.endswith("+zstd"):
        return unzstd(source)
    if kind == BZIP2:
        errors = (OSError, ValueError, EOFError)
        return Decompressed(source, "bzip2", bz2.BZ2Decompressor, errors, _INPUT)
    if kind == XZ:
        return Decompressed(source, "xz", _xz_decompressor, (lzma.LZMAError, EOFError), _INPUT)
    return source


def _xz_decompressor() -> _Decompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


class Compressed:
    """Compresses pieces of any size into `write`, in blocks of one size.

    What a fast compressor makes of a stream depends on how it is fed; equal content must give
    equal blobs.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._compressor = gzip_compressor()
        self._held: list[bytes] = []
        self._size = 0

    def put(self, piece: bytes) -> None:
        self._held.append(piece)
        self._size += len(piece)
        if self._size < CHUNK:
            return
        joined = b"".join(self._held)
        whole = len(joined) - len(joined) % CHUNK
        for start in range(0, whole, CHUNK):
            self._write(self._compressor.compress(joined[start : start + CHUNK]))
        self._held = [joined[whole:]]
        self._size = len(joined) - whole

    def finish(self) -> None:
        self._write(self._compressor.compress(b"".join(self._held)) + self._compressor.flush())
        self._held.clear()


class Worker:
    """Calls `consume` with each piece in order, in a thread of its own where there are several:
    a single one is not worth it.

    `put` blocks when the thread is `depth` pieces behind. An error of `consume` is raised by
    the next `put` or by `finish`.
    """

    def __init__(self, consume: Callable[[bytes], object], *, depth: int = 8) -> None:
        self._consume = consume
        self._queue: queue.Queue[bytes | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._first: bytes | None = None
        self._thread: threading.Thread | None = None

    def put(self, piece: bytes) -> None:
        if self._error is not None:
            raise self._error
        if self._thread is None:
            if self._first is None:
                self._first = piece
                return
            self._thread = threading.Thread(target=self._run, name="layer stream", daemon=True)
            self._thread.start()
            self._queue.put(self._first)
        self._queue.put(piece)

    def finish(self) -> None:
        """Wait until everything is consumed."""
        if self._thread is None and self._first is not None:
            first, self._first = self._first, None
            self._consume(first)
        self._stop()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (piece := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._consume(piece)
                except BaseException as exc:
                    self._error = exc  # raised where the work is waited for


class Sha256:
    """A running digest."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, piece: bytes | memoryview) -> None:
        self._hash.update(piece)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()
