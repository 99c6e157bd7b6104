"""ADD of a URL: fetched by HTTP or HTTPS, checked where a checksum is given.

Source: BuildKit reference.md ("Adding files from a URL"): mode 0600, the time is the answer's
Last-Modified.
"""

from __future__ import annotations

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
) -> Download:
    """Fetch `url` to the new file `target`; raises CopyRefused.

    What `stop` raises, which is called again and again, ends it.
    """
    split = urllib.parse.urlsplit(url)
    if split.scheme not in ("http", "https"):
        raise CopyRefused(f"{url}: only http and https can be fetched")
    name = posixpath.basename(urllib.parse.unquote(split.path))
    if name in ("", ".", "..") or "/" in name:
        name = ""
    running = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, open(target, "xb") as file:
            while piece := answer.read(_CHUNK):
                if stop is not None:
                    stop()
                running.update(piece)
                file.write(piece)
            promised = answer.headers.get("Content-Length")
            if promised is not None and int(promised) != file.tell():
                raise ValueError(f"{file.tell()} of {promised} bytes arrived")
            modified = email.utils.parsedate_tz(answer.headers.get("Last-Modified", ""))
    except (OSError, http.client.HTTPException, ValueError) as exc:
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        raise CopyRefused(f"cannot fetch {url}: {reason}") from exc
    digest = f"sha256:{running.hexdigest()}"
    if checksum is not None and digest != checksum:
        raise CopyRefused(f"{url} has the checksum {digest}, not {checksum}")
    mtime = int(email.utils.mktime_tz(modified)) if modified is not None else 0
    return Download(path=target, name=name, digest=digest, mtime=max(mtime, 0))
