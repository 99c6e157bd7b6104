"""ADD of a URL, and contexts: fetched by HTTP or HTTPS, checked where a checksum is given.

Source: BuildKit reference.md ("Adding files from a URL"): mode 0600, the time is the answer's
Last-Modified.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
import posixpath
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.build.copying import CopyRefused
from runtime.build.git import is_git

_TIMEOUT = 60.0
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A fetched file; `mtime` in seconds since the epoch, 0 where the server says nothing."""

    path: Path
    name: str
    digest: str
    mtime: int


def is_remote(word: str) -> bool:
    """True for a source that is no path."""
    return "://" in word or is_git(word)


def fetch(
    url: str,
    target: Path,
    *,
    checksum: str | None,
    stop: Callable[[], object] | None = None,
    limit: int | None = None,
) -> Download:
    """Fetch `url` to the new file `target`; raises CopyRefused, also for more than `limit` bytes.

    What `stop` raises, which is called again and again, ends it. A name and a password in the
    URL go to its own host alone, and into no message.
    """
    shown = without_credentials(url)
    try:
        split = urllib.parse.urlsplit(url)
    except ValueError as exc:
        raise CopyRefused(f"{shown} is not an address: {exc}") from exc
    if split.scheme not in ("http", "https"):
        raise CopyRefused(f"{shown}: only http and https can be fetched")
    name = posixpath.basename(urllib.parse.unquote(split.path))
    if name in ("", ".", "..") or "/" in name:
        name = ""
    running = hashlib.sha256()
    try:
        with (
            _opener().open(_request(url), timeout=_TIMEOUT) as answer,
            open(target, "xb") as file,
        ):
            while piece := answer.read1(_CHUNK):
                if stop is not None:
                    stop()
                if limit is not None and file.tell() + len(piece) > limit:
                    raise ValueError(f"it is larger than {limit} bytes")
                running.update(piece)
                file.write(piece)
            promised = answer.headers.get("Content-Length")
            if promised is not None and int(promised) != file.tell():
                raise ValueError(f"{file.tell()} of {promised} bytes arrived")
            modified = email.utils.parsedate_tz(answer.headers.get("Last-Modified", ""))
    except (OSError, http.client.HTTPException, ValueError) as exc:
        reason: object = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        if isinstance(exc, urllib.error.HTTPError):
            reason = f"{exc.code} {exc.reason}"
            exc.close()  # it holds the answer
        raise CopyRefused(f"cannot fetch {shown}: {reason}") from None
    digest = f"sha256:{running.hexdigest()}"
    if checksum is not None and digest != checksum:
        raise CopyRefused(f"{shown} has the checksum {digest}, not {checksum}")
    mtime = int(email.utils.mktime_tz(modified)) if modified is not None else 0
    return Download(path=target, name=name, digest=digest, mtime=max(mtime, 0))


def without_credentials(url: str) -> str:
    """An address for messages and logs."""
    try:
        split = urllib.parse.urlsplit(url)
    except ValueError:
        return url
    _, at, host = split.netloc.rpartition("@")
    return split._replace(netloc=host).geturl() if at else url


def _request(url: str) -> urllib.request.Request:
    request = urllib.request.Request(without_credentials(url))
    split = urllib.parse.urlsplit(url)
    if split.username is not None:
        pair = f"{split.username}:{split.password or ''}"
        word = base64.b64encode(urllib.parse.unquote_to_bytes(pair)).decode()
        # Not for the host that a redirect leads to.
        request.add_unredirected_header("Authorization", f"Basic {word}")
    return request


def _opener() -> urllib.request.OpenerDirector:
    """As urllib's own, without its other protocols, to which a redirect may lead."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
