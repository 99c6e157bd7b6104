"""Manifests, tags, referrers and the catalogue over HTTP.

Source: OCI distribution-spec 1.1, end-3, end-7 to end-9, end-12; the catalogue is Docker's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from urllib.parse import urlencode

from aiohttp import web

from runtime.errors import ImageError
from runtime.oci.descriptor import INDEX
from runtime.oci.digest import algorithm, encoded, is_digest
from runtime.oci.documents import MAX_DOCUMENT
from runtime.oci.manifest import Index
from runtime.registry.repository import document_of
from runtime.registry.server.config import Limits
from runtime.registry.server.proxy import PullThrough
from runtime.registry.server.refusals import Code, Refusal, manifest_unknown
from runtime.registry.server.requests import Target, check_tag, matches, page_size
from runtime.registry.server.storage import MissingParts, Storage, Stored
from runtime.registry.transfer import in_thread

_STALE = '299 - "the remote registry cannot be reached: this is what it last had"'
_MOST_TAGS = 100


class ManifestCalls:
    def __init__(self, storage: Storage, limits: Limits, proxy: PullThrough | None) -> None:
        self._storage = storage
        self._limits = limits
        self._proxy = proxy

    async def get(self, request: web.Request, target: Target) -> web.StreamResponse:
        extra = {}
        if self._proxy is not None:
            found = await self._proxy.manifest(target.repository, target.argument)
            stored = found.stored if found is not None else None
            if found is not None and found.stale:
                extra["Warning"] = _STALE
        else:
            stored = await in_thread(
                self._storage.find_manifest, target.repository, target.argument
            )
        if stored is None:
            raise manifest_unknown(target.argument)
        headers = {**_headers(stored), **extra}
        if matches(request, headers["ETag"]):
            return web.Response(status=304, headers=headers)
        return web.Response(body=stored.content, headers=headers)

    async def put(self, request: web.Request, target: Target) -> web.StreamResponse:
        content = await _body(request)
        promised = request.headers.get("Content-Type", "").partition(";")[0].strip()
        try:
            document = document_of(content, promised)
        except ImageError as exc:
            raise Refusal(Code.MANIFEST_INVALID, 400, str(exc)) from exc
        reference = target.argument
        tags = request.query.getall("tag", [])
        if is_digest(reference):
            if hashlib.new(algorithm(reference), content).hexdigest() != encoded(reference):
                raise Refusal(
                    Code.DIGEST_INVALID,
                    400,
                    "the manifest has another digest",
                    detail={"digest": reference},
                )
            document = dataclasses.replace(document, digest=reference)
        else:
            tags = [reference, *tags]
        if len(tags) > _MOST_TAGS:
            raise Refusal(Code.MANIFEST_INVALID, 400, f"more than {_MOST_TAGS} tags")
        for tag in tags:
            check_tag(tag)
        try:
            subject = await in_thread(self._storage.put_manifest, target.repository, document, tags)
        except MissingParts as exc:
            raise Refusal(
                Code.MANIFEST_BLOB_UNKNOWN,
                404,
                "the manifest names what the repository does not have",
                detail=[{"digest": digest} for digest in exc.digests[:100]],
            ) from exc
        response = web.Response(
            status=201,
            headers={
                "Location": f"/v2/{target.repository}/manifests/{document.digest}",
                "Docker-Content-Digest": document.digest,
            },
        )
        if subject:
            response.headers["OCI-Subject"] = subject
        for tag in request.query.getall("tag", []):
            response.headers.add("OCI-Tag", tag)
        return response

    async def delete(self, _request: web.Request, target: Target) -> web.StreamResponse:
        remove = (
            self._storage.remove_manifest
            if is_digest(target.argument)
            else self._storage.remove_tag
        )
        if not await in_thread(remove, target.repository, target.argument):
            raise manifest_unknown(target.argument)
        return web.Response(status=202)

    # Listings

    async def tags(self, request: web.Request, target: Target) -> web.StreamResponse:
        count = page_size(request, self._limits.page)
        last = request.query.get("last", "")
        remote = await self._proxy.tags(target.repository) if self._proxy is not None else None
        if remote is not None:
            later = sorted(tag for tag in remote if tag > last)
            names, more = later[:count], len(later) > count
        elif await in_thread(self._storage.has_repository, target.repository):
            names, more = await in_thread(self._storage.tags, target.repository, last, count)
        else:
            raise Refusal(
                Code.NAME_UNKNOWN,
                404,
                "repository name not known to the registry",
                detail={"name": target.repository},
            )
        body = {"name": target.repository, "tags": names}
        return _listing(request, body, names, count, more)

    async def catalog(self, request: web.Request, _target: Target) -> web.StreamResponse:
        count = page_size(request, self._limits.page)
        last = request.query.get("last", "")
        names, more = await in_thread(self._storage.repositories, last, count)
        return _listing(request, {"repositories": names}, names, count, more)

    async def referrers(self, request: web.Request, target: Target) -> web.StreamResponse:
        kind = request.query.get("artifactType", "")
        count = page_size(request, self._limits.page)
        last = request.query.get("last", "")
        remote = None
        if self._proxy is not None:
            remote = await self._proxy.referrers(target.repository, target.argument)
        if remote is not None:
            fitting = [d for d in remote if kind in ("", d.artifact_type) and d.digest > last]
            fitting.sort(key=lambda descriptor: descriptor.digest)
            found, more = fitting[:count], len(fitting) > count
        else:
            found, more = await in_thread(
                self._storage.referrers, target.repository, target.argument, kind, last, count
            )
        headers = {"OCI-Filters-Applied": "artifactType"} if kind else {}
        if more and found:
            headers["Link"] = _link(request, {"last": found[-1].digest, "n": str(count)})
        return web.Response(
            body=Index(manifests=tuple(found)).to_bytes(), content_type=INDEX, headers=headers
        )


def _listing(
    request: web.Request, body: Mapping[str, object], names: list[str], count: int, more: bool
) -> web.Response:
    headers = {}
    if more and names:
        headers["Link"] = _link(request, {"last": names[-1], "n": str(count)})
    return web.Response(
        body=json.dumps(body).encode(), content_type="application/json", headers=headers
    )


def _link(request: web.Request, query: dict[str, str]) -> str:
    kind = request.query.get("artifactType")
    if kind:
        query = {**query, "artifactType": kind}
    return f'<{request.rel_url.raw_path}?{urlencode(query)}>; rel="next"'


def _headers(stored: Stored) -> dict[str, str]:
    return {
        "Content-Type": stored.media_type,
        "Docker-Content-Digest": stored.digest,
        "ETag": f'"{stored.digest}"',
    }


async def _body(request: web.Request) -> bytes:
    pieces: list[bytes] = []
    length = 0
    declared = request.content_length or 0
    async for piece in request.content.iter_any():
        length += len(piece)
        if max(length, declared) > MAX_DOCUMENT:
            raise Refusal(
                Code.SIZE_INVALID, 413, f"a manifest may have {MAX_DOCUMENT} bytes at most"
            )
        pieces.append(piece)
    return b"".join(pieces)
