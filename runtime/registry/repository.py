"""One repository of a registry: the calls of the distribution specification.

Source: OCI distribution-spec 1.1. A manifest is judged by its bytes: their digest, and
their own media type, which must be the one that the answer and a descriptor promise
(CVE-2021-41190).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from runtime.errors import ImageError, ImageNotFound
from runtime.oci.descriptor import INDEX, INDEXES, MANIFEST, MANIFESTS, Descriptor
from runtime.oci.digest import algorithm, digest_of, encoded, is_digest
from runtime.oci.documents import MAX_DOCUMENT, parse_object, text
from runtime.oci.manifest import Index, Manifest
from runtime.registry.client import BROKEN, Body, RegistryClient, read_bounded
from runtime.registry.endpoints import Endpoint
from runtime.registry.errors import RegistryError, Unreachable

_ACCEPT = ", ".join(sorted(INDEXES | MANIFESTS))
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_PAGES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A manifest or index as a registry keeps it: its exact bytes and what they are."""

    content: bytes
    media_type: str
    digest: str

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEXES

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.content))

    def manifest(self) -> Manifest:
        return Manifest.from_bytes(self.content)

    def index(self) -> Index:
        return Index.from_bytes(self.content)


def document_of(content: bytes, promised: str = "") -> Document:
    """Read what kind of document some bytes are; `promised` is the media type said of them."""
    fields = parse_object(content, "manifest")
    own = text(fields, "mediaType", "manifest")
    media_type = own or promised
    if media_type.startswith(_SCHEMA_1) or fields.get("schemaVersion") == 1:
        raise ImageError(
            "the image has a manifest of schema 1, which is not supported",
            hint="push it again with a current client",
        )
    if not media_type:
        media_type = INDEX if "manifests" in fields else MANIFEST
    if own and promised and own != promised:
        raise ImageError(f"the manifest calls itself {own!r} but is served as {promised!r}")
    if media_type in INDEXES:
        Index.from_document(fields)
    elif media_type in MANIFESTS:
        Manifest.from_document(fields)
    else:
        raise ImageError(f"{media_type[:160]!r} is not the media type of an image")
    return Document(content=content, media_type=media_type, digest=digest_of(content))


class Repository:
    """A repository at one endpoint, for reading, or also for writing."""

    def __init__(
        self, client: RegistryClient, endpoint: Endpoint, path: str, *, write: bool = False
    ) -> None:
        self.client = client
        self.endpoint = endpoint
        self.path = endpoint.repository(path)
        self.name = f"{endpoint.domain}/{self.path}"
        actions = "pull,push" if write else "pull"
        self.scopes = frozenset({f"repository:{self.path}:{actions}"})

    async def url(self, tail: str, query: Mapping[str, str] | None = None) -> URL:
        base = await self.client.base(self.endpoint)
        url = base.joinpath(*self.path.split("/"), *tail.strip("/").split("/"))
        if tail.endswith("/"):
            url = url.joinpath("")
        return url.with_query(query or {})

    # Manifests

    async def manifest(self, reference: str, *, expected: Descriptor | None = None) -> Document:
        """The manifest or index of a tag or digest, verified; raises ImageNotFound."""
        what = f"fetch the manifest {reference} of {self.name}"
        for attempt in range(1, self.client.config.attempts + 1):
            try:
                async with self.client.request(
                    self.endpoint,
                    "GET",
                    await self.url(f"manifests/{reference}"),
                    scopes=self.scopes,
                    headers={"Accept": _ACCEPT},
                    expect=(200, 404),
                    what=what,
                ) as response:
                    if response.status == 404:
                        raise self._missing(reference)
                    content = await read_bounded(response, MAX_DOCUMENT)
                    promised = _media_type(response)
                    told = response.headers.get("Docker-Content-Digest")
                break
            except BROKEN as exc:
                if attempt == self.client.config.attempts:
                    raise Unreachable(f"{what}: the connection breaks") from exc
                await self.client.pause(attempt)
        return _verified(content, promised, told, reference, expected)

    async def find_manifest(self, reference: str) -> Descriptor | None:
        """What a tag points to (HEAD), or None; falls back to GET where HEAD says too little."""
        async with self.client.request(
            self.endpoint,
            "HEAD",
            await self.url(f"manifests/{reference}"),
            scopes=self.scopes,
            headers={"Accept": _ACCEPT},
            expect=(200, 404, 405),
            what=f"look up {reference} in {self.name}",
        ) as response:
            if response.status == 404:
                return None
            digest = response.headers.get("Docker-Content-Digest", "")
            size = response.headers.get("Content-Length", "")
            media_type = _media_type(response)
        if is_digest(digest) and size.isdecimal() and media_type in INDEXES | MANIFESTS:
            return Descriptor(media_type=media_type, digest=digest, size=int(size))
        try:
            return (await self.manifest(reference)).descriptor
        except ImageNotFound:
            return None

    async def put_manifest(self, reference: str, document: Document) -> None:
        """Store a manifest under a tag or under its digest; what it names must be there."""
        what = f"push the manifest {reference} to {self.name}"
        body = Body(
            pieces=lambda: document.content,
            length=len(document.content),
            media_type=document.media_type,
        )
        async with self.client.request(
            self.endpoint,
            "PUT",
            await self.url(f"manifests/{reference}"),
            scopes=self.scopes,
            body=body,
            expect=(200, 201, 202),
            what=what,
        ) as response:
            told = response.headers.get("Docker-Content-Digest", document.digest)
        if told.startswith("sha256:") and told != document.digest:
            raise RegistryError(f"{what}: the registry stored {told}, not {document.digest}")
        subject = document.index().subject if document.is_index else document.manifest().subject
        if subject is not None and "OCI-Subject" not in response.headers:
            await self._add_to_fallback(subject, document)

    async def delete_manifest(self, reference: str) -> None:
        """Delete a tag, or a manifest by its digest; raises ImageNotFound."""
        async with self.client.request(
            self.endpoint,
            "DELETE",
            await self.url(f"manifests/{reference}"),
            scopes=self.scopes | {f"repository:{self.path}:delete"},
            expect=(200, 202, 404),
            what=f"delete {reference} from {self.name}",
        ) as response:
            if response.status == 404:
                raise self._missing(reference)

    # Blobs

    async def has_blob(self, digest: str) -> int | None:
        """A blob's size in bytes, None where the repository does not have it."""
        async with self.client.request(
            self.endpoint,
            "HEAD",
            await self.url(f"blobs/{digest}"),
            scopes=self.scopes,
            expect=(200, 404),
            what=f"look up blob {digest} in {self.name}",
        ) as response:
            if response.status == 404:
                return None
            size = response.headers.get("Content-Length", "")
            return int(size) if size.isdecimal() else 0

    @contextlib.asynccontextmanager
    async def blob(self, digest: str, offset: int = 0) -> AsyncIterator[aiohttp.ClientResponse]:
        """A blob's content from `offset`: 206, or 200 where the registry sends it whole."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self.client.request(
            self.endpoint,
            "GET",
            await self.url(f"blobs/{digest}"),
            scopes=self.scopes,
            headers=headers,
            expect=(200, 206, 404, 416),
            what=f"fetch blob {digest} of {self.name}",
        ) as response:
            if response.status == 404:
                raise ImageNotFound(f"{self.name}@{digest}", hint="the blob is not in the registry")
            yield response

    # Listings

    async def tags(self) -> tuple[str, ...]:
        """All tags, page by page."""
        found: list[str] = []
        url = (await self.url("tags/list")).with_query({"n": "1000"})
        for _page in range(_PAGES):
            async with self.client.request(
                self.endpoint,
                "GET",
                url,
                scopes=self.scopes,
                expect=(200, 404),
                what=f"list the tags of {self.name}",
            ) as response:
                if response.status == 404:
                    raise self._missing("")
                names = _tags(await read_bounded(response, MAX_DOCUMENT))
                following = response.links.get("next")
            found += names
            if following is None:
                return tuple(found)
            target = self.client.target(self.endpoint, url, str(following["url"]))
            if target.origin() != url.origin() or target == url:
                raise RegistryError(f"list the tags of {self.name}: the next page is elsewhere")
            url = target
        raise RegistryError(f"list the tags of {self.name}: more than {_PAGES} pages")

    async def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """What refers to a manifest; by the tag schema where the registry has no such call."""
        query = {"artifactType": artifact_type} if artifact_type else {}
        async with self.client.request(
            self.endpoint,
            "GET",
            await self.url(f"referrers/{digest}", query),
            scopes=self.scopes,
            headers={"Accept": INDEX},
            expect=(200, 404),
            what=f"list the referrers of {digest} in {self.name}",
        ) as response:
            content = await read_bounded(response, MAX_DOCUMENT) if response.status == 200 else b""
        if content:
            manifests = Index.from_bytes(content).manifests
        else:
            manifests = await self._fallback(digest)
        return tuple(m for m in manifests if artifact_type in ("", m.artifact_type))

    # Source: distribution-spec "Unavailable Referrers API", "Referrers Tag Schema"

    async def _fallback(self, digest: str) -> tuple[Descriptor, ...]:
        try:
            document = await self.manifest(_fallback_tag(digest))
        except ImageNotFound:
            return ()
        return document.index().manifests if document.is_index else ()

    async def _add_to_fallback(self, subject: Descriptor, document: Document) -> None:
        parsed = document.index() if document.is_index else document.manifest()
        kind = parsed.artifact_type
        if not kind and isinstance(parsed, Manifest):
            kind = parsed.config.media_type
        entry = dataclasses.replace(
            document.descriptor, artifact_type=kind, annotations=parsed.annotations
        )
        known = await self._fallback(subject.digest)
        if all(other.digest != entry.digest for other in known):
            content = Index(manifests=(*known, entry)).to_bytes()
            await self.put_manifest(_fallback_tag(subject.digest), document_of(content, INDEX))

    def _missing(self, reference: str) -> ImageNotFound:
        joint = "@" if is_digest(reference) else ":" if reference else ""
        return ImageNotFound(
            f"{self.name}{joint}{reference}", hint=f"{self.endpoint.host} does not have it"
        )


def _verified(
    content: bytes, promised: str, told: str | None, reference: str, expected: Descriptor | None
) -> Document:
    document = document_of(content, promised)
    # The header is a promise too; a reference by digest is the one that counts.
    for digest in (told, reference if is_digest(reference) else None):
        if digest is None:
            continue
        if not is_digest(digest):
            raise RegistryError("the registry answers with something that is no digest")
        if hashlib.new(algorithm(digest), content).hexdigest() != encoded(digest):
            raise ImageError(f"the manifest that was sent is not {digest}")
        if digest == reference:
            document = dataclasses.replace(document, digest=digest)
    if expected is not None:
        if expected.media_type != document.media_type:
            raise ImageError(
                f"manifest {expected.digest} is {document.media_type!r}, "
                f"not {expected.media_type!r} as its index says"
            )
        if expected.size != len(content):
            raise ImageError(
                f"manifest {expected.digest} has {len(content)} bytes, not {expected.size}"
            )
    return document


def _media_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip()


def _fallback_tag(digest: str) -> str:
    return f"{algorithm(digest)}-{encoded(digest)[:64]}"


def _tags(content: bytes) -> list[str]:
    try:
        names = json.loads(content)["tags"] or []
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise RegistryError("the registry's list of tags cannot be read") from exc
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RegistryError("the registry's list of tags is not a list of names")
    return names
