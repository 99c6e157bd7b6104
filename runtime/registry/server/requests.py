"""What a request asks for: its path taken apart, its names and numbers validated.

The path is judged as it came over the wire: names allow no character that would need an
escape, so anything escaped within one is refused instead of decoded, and neither `..` nor
`%2e` can mean anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from aiohttp import web

from runtime.oci.digest import is_digest
from runtime.registry.server.refusals import Code, Refusal

_SEGMENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?\Z")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_MAX_NAME = 255


class Kind(StrEnum):
    BASE = "base"
    CATALOG = "catalog"
    MANIFEST = "manifest"
    BLOB = "blob"
    UPLOADS = "uploads"
    UPLOAD = "upload"
    TAGS = "tags"
    REFERRERS = "referrers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a path names; `argument` is a tag, a digest, or an upload's identifier."""

    kind: Kind
    repository: str = ""
    argument: str = ""


_ROUTES = (
    (Kind.UPLOADS, re.compile(r"(.+)/blobs/uploads/?\Z")),
    (Kind.UPLOAD, re.compile(r"(.+)/blobs/uploads/([^/]+)\Z")),
    (Kind.BLOB, re.compile(r"(.+)/blobs/([^/]+)\Z")),
    (Kind.MANIFEST, re.compile(r"(.+)/manifests/([^/]+)\Z")),
    (Kind.TAGS, re.compile(r"(.+)/tags/list\Z")),
    (Kind.REFERRERS, re.compile(r"(.+)/referrers/([^/]+)\Z")),
)


def parse_target(raw_path: str) -> Target | None:
    """The target of a path, None where there is none; raises the refusal of a bad name."""
    if raw_path in ("/v2", "/v2/"):
        return Target(kind=Kind.BASE)
    if not raw_path.startswith("/v2/"):
        return None
    rest = raw_path[len("/v2/") :]
    if rest == "_catalog":
        return Target(kind=Kind.CATALOG)
    for kind, pattern in _ROUTES:
        match = pattern.match(rest)
        if match is not None:
            argument = match[2] if pattern.groups > 1 else ""
            return Target(
                kind=kind, repository=check_name(match[1]), argument=_argument(kind, argument)
            )
    return None


def check_name(name: str) -> str:
    if len(name) > _MAX_NAME or not _NAME.match(name):
        raise Refusal(
            Code.NAME_INVALID, 400, "invalid repository name", detail={"name": name[:_MAX_NAME]}
        )
    return name


def check_tag(tag: str) -> str:
    if not _TAG.match(tag):
        raise Refusal(Code.MANIFEST_INVALID, 400, "invalid tag", detail={"tag": tag[:160]})
    return tag


def check_digest(digest: str) -> str:
    if not is_digest(digest):
        raise Refusal(Code.DIGEST_INVALID, 400, "invalid digest", detail={"digest": digest[:160]})
    return digest


def _argument(kind: Kind, text: str) -> str:
    # Only the colon of a digest is ever escaped by honest clients.
    plain = unquote(text) if re.fullmatch(r"sha\d+%3[aA][0-9a-f]+", text) else text
    if kind in (Kind.BLOB, Kind.REFERRERS):
        return check_digest(plain)
    if kind is Kind.MANIFEST:
        if ":" in plain:
            return check_digest(plain)
        if not _TAG.match(plain):
            raise Refusal(
                Code.MANIFEST_UNKNOWN, 404, "invalid tag", detail={"reference": plain[:160]}
            )
    if kind is Kind.UPLOAD and not _UPLOAD.match(plain):
        raise Refusal(Code.BLOB_UPLOAD_UNKNOWN, 404, "no such upload in the repository")
    return plain


def page_size(request: web.Request, longest: int) -> int:
    """`n` of a listing, bounded whatever is asked for (CVE-2023-2253)."""
    asked = request.query.get("n")
    if asked is None:
        return longest
    if not asked.isascii() or not asked.isdecimal():
        raise Refusal(Code.UNSUPPORTED, 400, "n is not a number")
    return min(int(asked[:12]), longest)


def content_range(request: web.Request) -> tuple[int, int] | None:
    """`Content-Range` of a chunk as (start, length), None where there is none."""
    header = request.headers.get("Content-Range")
    if header is None:
        return None
    match = _CONTENT_RANGE.match(header)
    if match is None:
        raise Refusal(Code.BLOB_UPLOAD_INVALID, 400, "Content-Range is not start-end")
    start, end = int(match[1]), int(match[2])
    length = request.content_length
    if end < start and not (length == 0 and end == start - 1):
        raise Refusal(Code.BLOB_UPLOAD_INVALID, 400, "Content-Range ends before it starts")
    if length is not None and length != end - start + 1:
        raise Refusal(Code.SIZE_INVALID, 400, "Content-Length and Content-Range do not agree")
    return start, end - start + 1


def blob_range(request: web.Request, size: int, tag: str) -> tuple[int, int] | None:
    """`Range` of a download as (offset, length), None for the whole.

    What cannot be satisfied raises 416; several ranges, and units that we do not know, get
    the whole (RFC 9110 section 14.2).
    """
    header = request.headers.get("Range")
    if header is None or request.headers.get("If-Range", tag) != tag:
        return None
    match = _RANGE.match(header.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
    else:
        first = max(0, size - int(match[2]))
        last = size - 1
    if first >= size or last < first:
        raise Refusal(
            Code.SIZE_INVALID,
            416,
            "the range lies outside of the blob",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, last - first + 1


def matches(request: web.Request, tag: str) -> bool:
    """True where `If-None-Match` names what would be sent."""
    header = request.headers.get("If-None-Match")
    if header is None:
        return False
    known = [each.strip().removeprefix("W/") for each in header.split(",")]
    return "*" in known or tag in known
