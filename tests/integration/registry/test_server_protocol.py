"""The distribution specification, call by call, over the wire."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from runtime.oci.descriptor import INDEX, MANIFEST
from tests.integration.registry.wire import Wire, digest_of, wired

CONTENT = bytes(range(256)) * 40
DIGEST = digest_of(CONTENT)
ABSENT = "sha256:" + "0" * 64

Scenario = Callable[[Wire], Awaitable[None]]


def run(directory: Path, scenario: Scenario, **changes: object) -> None:
    async def main() -> None:
        async with wired(directory, **changes) as wire:
            await scenario(wire)

    asyncio.run(main())


def test_the_base_says_which_api_this_is(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        reply = await wire("GET", "/v2/")
        assert reply.status == 200
        assert reply.headers["Docker-Distribution-API-Version"] == "registry/2.0"
        assert (await wire("GET", "/v2/nothing")).status == 404
        reply = await wire("POST", "/v2/a/tags/list")
        assert (reply.status, reply.code) == (405, "UNSUPPORTED")

    run(tmp_path, scenario)


def test_a_blob_goes_up_in_one_request(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        reply = await wire("POST", f"/v2/a/b/blobs/uploads/?digest={DIGEST}", CONTENT)
        assert reply.status == 201
        assert reply.location() == f"/v2/a/b/blobs/{DIGEST}"
        reply = await wire("GET", reply.location())
        assert (reply.status, reply.body) == (200, CONTENT)
        assert reply.headers["Docker-Content-Digest"] == DIGEST
        reply = await wire("HEAD", f"/v2/a/b/blobs/{DIGEST}")
        assert (reply.status, reply.body) == (200, b"")
        assert reply.headers["Content-Length"] == str(len(CONTENT))

    run(tmp_path, scenario)


def test_a_blob_goes_up_with_post_then_put(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        reply = await wire("POST", "/v2/a/blobs/uploads/", b"")
        assert reply.status == 202
        reply = await wire("PUT", f"{reply.location()}?digest={DIGEST}", CONTENT)
        assert reply.status == 201
        assert (await wire("GET", f"/v2/a/blobs/{DIGEST}")).body == CONTENT
        assert (await wire("GET", f"/v2/b/blobs/{DIGEST}")).code == "BLOB_UNKNOWN"

    run(tmp_path, scenario)


def test_a_blob_goes_up_in_chunks_that_follow_each_other(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
        reply = await wire("PATCH", place, CONTENT[:100], Content_Range="0-99")
        assert (reply.status, reply.headers["Range"]) == (202, "0-99")
        for wrong in ("0-99", "50-149", "101-200"):
            reply = await wire("PATCH", place, CONTENT[:100], Content_Range=wrong)
            assert (reply.status, reply.code) == (416, "BLOB_UPLOAD_INVALID")
            assert reply.headers["Range"] == "0-99"
        reply = await wire("GET", place)
        assert (reply.status, reply.headers["Range"]) == (204, "0-99")
        assert reply.location() == place
        reply = await wire("PATCH", place, CONTENT[100:5000], Content_Range="100-4999")
        assert reply.headers["Range"] == "0-4999"
        reply = await wire("PATCH", place, CONTENT[5000:6000])
        assert reply.headers["Range"] == "0-5999", "a chunk without a range is the next one"
        reply = await wire(
            "PUT", f"{place}?digest={DIGEST}", CONTENT[6000:], Content_Range="5999-10238"
        )
        assert reply.status == 416
        reply = await wire(
            "PUT", f"{place}?digest={DIGEST}", CONTENT[6000:], Content_Range="6000-10239"
        )
        assert reply.status == 201
        assert (await wire("GET", place)).code == "BLOB_UPLOAD_UNKNOWN"
        assert (await wire("GET", f"/v2/a/blobs/{DIGEST}")).body == CONTENT

    run(tmp_path, scenario)


def test_chunks_whose_range_and_length_differ_are_refused(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
        reply = await wire("PATCH", place, b"12345", Content_Range="0-9")
        assert (reply.status, reply.code) == (400, "SIZE_INVALID")
        assert (await wire("GET", place)).headers["Range"] == "0-0"

    run(tmp_path, scenario)


def test_a_chunk_without_a_length_must_have_that_of_its_range(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"12345"

    async def scenario(wire: Wire) -> None:
        place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
        reply = await wire("PATCH", place, pieces(), Content_Range="0-9")
        assert (reply.status, reply.code) == (400, "SIZE_INVALID")
        assert (await wire("GET", place)).headers["Range"] == "0-4"

    run(tmp_path, scenario)


def test_a_blob_of_another_digest_is_refused(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        reply = await wire("POST", f"/v2/a/blobs/uploads/?digest={ABSENT}", CONTENT)
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
        place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
        reply = await wire("PUT", f"{place}?digest=sha256:nothing", CONTENT)
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
        reply = await wire("PUT", f"{place}?digest={ABSENT}", CONTENT)
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
        assert (await wire("GET", f"/v2/a/blobs/{ABSENT}")).status == 404

    run(tmp_path, scenario)


@pytest.mark.parametrize("query", ["", "?digest-algorithm=sha512"])
def test_blobs_and_manifests_may_have_sha512_digests(tmp_path: Path, query: str) -> None:
    async def scenario(wire: Wire) -> None:
        digest = "sha512:" + hashlib.sha512(CONTENT).hexdigest()
        place = (await wire("POST", f"/v2/a/blobs/uploads/{query}", b"")).location()
        assert (await wire("PUT", f"{place}?digest={digest}", CONTENT)).status == 201
        assert (await wire("GET", f"/v2/a/blobs/{digest}")).body == CONTENT
        manifest, _reply = await wire.push_image("a", "v1")
        long = "sha512:" + hashlib.sha512(manifest).hexdigest()
        reply = await wire("PUT", f"/v2/a/manifests/{long}", manifest, Content_Type=MANIFEST)
        assert (reply.status, reply.headers["Docker-Content-Digest"]) == (201, long)
        assert (await wire("GET", f"/v2/a/manifests/{long}")).body == manifest

    run(tmp_path, scenario)


def test_an_upload_can_be_cancelled(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
        assert (await wire("GET", place.replace("/a/", "/b/"))).status == 404
        assert (await wire("DELETE", place)).status == 204
        for method in ("GET", "DELETE", "PATCH"):
            reply = await wire(method, place)
            assert (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert list((tmp_path / "registry" / "uploads").iterdir()) == []

    run(tmp_path, scenario)


def test_an_upload_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    place = ""

    async def before(wire: Wire) -> None:
        nonlocal place
        place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
        await wire("PATCH", place, CONTENT[:3000])

    async def after(wire: Wire) -> None:
        assert (await wire("GET", place)).headers["Range"] == "0-2999"
        reply = await wire("PUT", f"{place}?digest={DIGEST}", CONTENT[3000:])
        assert reply.status == 201

    run(tmp_path, before)
    run(tmp_path, after)


def test_a_blob_is_mounted_from_where_it_is(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        await wire.push_blob("a", CONTENT)
        reply = await wire("POST", f"/v2/b/blobs/uploads/?mount={DIGEST}&from=a", b"")
        assert (reply.status, reply.location()) == (201, f"/v2/b/blobs/{DIGEST}")
        reply = await wire("POST", f"/v2/c/blobs/uploads/?mount={DIGEST}&from=nowhere", b"")
        assert reply.status == 202
        assert "/blobs/uploads/" in reply.location()
        reply = await wire("POST", f"/v2/c/blobs/uploads/?mount={DIGEST}", b"")
        assert reply.status == 201, "without from, wherever it is"
        reply = await wire("POST", f"/v2/c/blobs/uploads/?mount={ABSENT}", b"")
        assert reply.status == 202
        reply = await wire("POST", "/v2/c/blobs/uploads/?mount=x&from=a", b"")
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")

    run(tmp_path, scenario)


def test_downloads_may_be_partial_and_conditional(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        await wire.push_blob("a", CONTENT)
        path = f"/v2/a/blobs/{DIGEST}"
        reply = await wire("GET", path, None, Range="bytes=100-199")
        assert (reply.status, reply.body) == (206, CONTENT[100:200])
        assert reply.headers["Content-Range"] == f"bytes 100-199/{len(CONTENT)}"
        reply = await wire("GET", path, None, Range="bytes=-10")
        assert reply.body == CONTENT[-10:]
        reply = await wire("GET", path, None, Range=f"bytes={len(CONTENT)}-")
        assert (reply.status, reply.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")
        reply = await wire("GET", path, None, If_None_Match=f'"{DIGEST}"')
        assert (reply.status, reply.body) == (304, b"")
        reply = await wire("HEAD", path, None, Range="bytes=0-0")
        assert (reply.status, reply.headers["Content-Length"]) == (206, "1")

    run(tmp_path, scenario)


def test_an_empty_blob_is_a_blob(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        digest = digest_of(b"")
        place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
        assert (await wire("PUT", f"{place}?digest={digest}", b"")).status == 201
        reply = await wire("GET", f"/v2/a/blobs/{digest}")
        assert (reply.status, reply.body) == (200, b"")

    run(tmp_path, scenario)


def test_a_manifest_is_stored_exactly_and_found_by_tag_and_digest(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        manifest, reply = await wire.push_image("a", "v1")
        digest = digest_of(manifest)
        assert reply.status == 201
        assert reply.headers["Docker-Content-Digest"] == digest
        assert reply.location() == f"/v2/a/manifests/{digest}"
        for reference in ("v1", digest, digest.replace(":", "%3a")):
            reply = await wire("GET", f"/v2/a/manifests/{reference}")
            assert (reply.status, reply.body) == (200, manifest)
            assert reply.headers["Content-Type"] == MANIFEST
        reply = await wire("HEAD", "/v2/a/manifests/v1")
        assert (reply.headers["Content-Length"], reply.body) == (str(len(manifest)), b"")
        reply = await wire("GET", "/v2/a/manifests/v1", None, If_None_Match=f'"{digest}"')
        assert reply.status == 304
        assert (await wire("GET", "/v2/a/manifests/v2")).code == "MANIFEST_UNKNOWN"

    run(tmp_path, scenario)


def test_manifests_that_are_none_are_refused(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        manifest, _reply = await wire.push_image("a", "v1")
        both = json.dumps({**json.loads(manifest), "manifests": [{"x": 1}]}).encode()
        for body, media_type in (
            (b"", MANIFEST),
            (b"[]", MANIFEST),
            (b"{}", MANIFEST),
            (b"[" * 100_000, MANIFEST),
            (both, MANIFEST),
            (manifest, INDEX),
            (manifest, "text/plain"),
            (b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+json"),
        ):
            reply = await wire("PUT", "/v2/a/manifests/v2", body, Content_Type=media_type)
            assert (reply.status, reply.code) == (400, "MANIFEST_INVALID"), body[:80]
        reply = await wire("PUT", f"/v2/a/manifests/{ABSENT}", manifest, Content_Type=MANIFEST)
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
        reply = await wire("PUT", "/v2/b/manifests/v1", manifest, Content_Type=MANIFEST)
        assert (reply.status, reply.code) == (404, "MANIFEST_BLOB_UNKNOWN")
        reply = await wire("PUT", "/v2/a/manifests/v2", b" " * 4_194_305, Content_Type=MANIFEST)
        assert (reply.status, reply.code) == (413, "SIZE_INVALID")

    run(tmp_path, scenario)


def test_one_push_may_set_several_tags(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        manifest, _reply = await wire.push_image("a", "v1")
        path = f"/v2/a/manifests/{digest_of(manifest)}?tag=x&tag=y"
        reply = await wire("PUT", path, manifest, Content_Type=MANIFEST)
        assert reply.headers.getall("OCI-Tag") == ["x", "y"]
        reply = await wire("GET", "/v2/a/tags/list")
        assert reply.document == {"name": "a", "tags": ["v1", "x", "y"]}

    run(tmp_path, scenario)


def test_what_refers_to_an_image_is_listed(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        reply = await wire("GET", f"/v2/a/referrers/{ABSENT}")
        assert (reply.status, reply.document["manifests"]) == (200, []), "never 404"
        assert reply.headers["Content-Type"] == INDEX
        image, _reply = await wire.push_image("a", "v1")
        subject = {"mediaType": MANIFEST, "digest": digest_of(image), "size": len(image)}
        found = []
        for number, kind in enumerate(("test/one", "test/two", "test/one")):
            manifest, reply = await wire.push_image(
                "a",
                f"r{number}",
                subject=subject,
                artifactType=kind,
                annotations={"n": str(number)},
            )
            assert reply.headers["OCI-Subject"] == digest_of(image)
            found.append(digest_of(manifest))
        path = f"/v2/a/referrers/{digest_of(image)}"
        reply = await wire("GET", path)
        assert {each["digest"] for each in reply.document["manifests"]} == set(found)
        assert "OCI-Filters-Applied" not in reply.headers
        reply = await wire("GET", f"{path}?artifactType=test/two")
        assert reply.headers["OCI-Filters-Applied"] == "artifactType"
        (only,) = reply.document["manifests"]
        assert (only["digest"], only["annotations"]) == (found[1], {"n": "1"})
        reply = await wire("GET", f"{path}?n=2&artifactType=test/one")
        assert "Link" not in reply.headers
        reply = await wire("GET", f"{path}?n=2")
        assert len(reply.document["manifests"]) == 2
        following = reply.headers["Link"].partition("<")[2].partition(">")[0]
        assert len((await wire("GET", following)).document["manifests"]) == 1
        await wire("DELETE", f"/v2/a/manifests/{found[1]}")
        reply = await wire("GET", f"{path}?artifactType=test/two")
        assert reply.document["manifests"] == []

    run(tmp_path, scenario)


def test_a_subject_need_not_be_there(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        subject = {"mediaType": MANIFEST, "digest": ABSENT, "size": 5}
        _manifest, reply = await wire.push_image("a", "v1", subject=subject)
        assert (reply.status, reply.headers["OCI-Subject"]) == (201, ABSENT)
        reply = await wire("GET", f"/v2/a/referrers/{ABSENT}")
        assert len(reply.document["manifests"]) == 1

    run(tmp_path, scenario)


def test_tags_come_in_pages_in_the_order_of_bytes(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        reply = await wire("GET", "/v2/a/tags/list")
        assert (reply.status, reply.code) == (404, "NAME_UNKNOWN")
        for tag in ("b", "a", "B", "10", "9"):
            await wire.push_image("a", tag)
        seen: list[str] = []
        path = "/v2/a/tags/list?n=2"
        while path:
            reply = await wire("GET", path)
            assert len(reply.document["tags"]) <= 2
            seen += reply.document["tags"]
            path = reply.headers.get("Link", "").partition("<")[2].partition(">")[0]
        assert seen == ["10", "9", "B", "a", "b"]
        reply = await wire("GET", "/v2/a/tags/list?n=0")
        assert (reply.document["tags"], "Link" in reply.headers) == ([], False)
        reply = await wire("GET", "/v2/a/tags/list?last=B")
        assert reply.document["tags"] == ["a", "b"]

    run(tmp_path, scenario)


def test_the_catalogue_comes_in_pages(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        for name in ("b", "a/x", "a"):
            await wire.push_image(name, "v1")
        reply = await wire("GET", "/v2/_catalog?n=2")
        assert reply.document == {"repositories": ["a", "a/x"]}
        following = reply.headers["Link"].partition("<")[2].partition(">")[0]
        assert (await wire("GET", following)).document == {"repositories": ["b"]}

    run(tmp_path, scenario)


def test_tags_manifests_and_blobs_are_deleted(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        manifest, _reply = await wire.push_image("a", "v1")
        digest = digest_of(manifest)
        await wire("PUT", "/v2/a/manifests/v2", manifest, Content_Type=MANIFEST)
        assert (await wire("DELETE", "/v2/a/manifests/v1")).status == 202
        assert (await wire("GET", "/v2/a/manifests/v1")).status == 404
        assert (await wire("GET", "/v2/a/manifests/v2")).status == 200
        assert (await wire("DELETE", f"/v2/a/manifests/{digest}")).status == 202
        assert (await wire("GET", "/v2/a/manifests/v2")).status == 404
        assert (await wire("DELETE", f"/v2/a/manifests/{digest}")).code == "MANIFEST_UNKNOWN"
        layer = json.loads(manifest)["layers"][0]["digest"]
        assert (await wire("DELETE", f"/v2/a/blobs/{layer}")).status == 202
        assert (await wire("DELETE", f"/v2/a/blobs/{layer}")).code == "BLOB_UNKNOWN"
        assert (await wire("GET", "/v2/a/tags/list")).status == 200

    run(tmp_path, scenario)


def test_a_read_only_server_serves_and_takes_nothing(tmp_path: Path) -> None:
    async def before(wire: Wire) -> None:
        await wire.push_image("a", "v1")

    async def after(wire: Wire) -> None:
        assert (await wire("GET", "/v2/a/manifests/v1")).status == 200
        for method, path in (
            ("POST", "/v2/a/blobs/uploads/"),
            ("PUT", "/v2/a/manifests/v2"),
            ("DELETE", "/v2/a/manifests/v1"),
        ):
            reply = await wire(method, path, b"")
            assert (reply.status, reply.code) == (405, "UNSUPPORTED")

    run(tmp_path, before)
    run(tmp_path, after, read_only=True)


def test_deleting_can_be_forbidden(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        await wire.push_image("a", "v1")
        assert (await wire("DELETE", "/v2/a/manifests/v1")).status == 405
        place = (await wire("POST", "/v2/a/blobs/uploads/", b"")).location()
        assert (await wire("DELETE", place)).status == 204, "an upload is not content yet"

    run(tmp_path, scenario, delete=False)


def test_metrics_count_what_happens(tmp_path: Path) -> None:
    async def scenario(wire: Wire) -> None:
        await wire.push_image("a", "v1")
        await wire("GET", "/v2/a/manifests/v9")
        text = (await wire("GET", "/metrics")).body.decode()
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        prefix = "bayplan_registry"
        labels = 'method="GET",kind="manifest",code="404"'
        assert lines[f"{prefix}_requests_total{{{labels}}}"] == "1"
        assert lines[f"{prefix}_received_bytes_total"] == str(2 * len(b"layer") + 2)
        assert (lines[f"{prefix}_blobs"], lines[f"{prefix}_tags"]) == ("2", "1")

    run(tmp_path, scenario)


def test_one_storage_is_served_by_one_server(tmp_path: Path) -> None:
    async def scenario(_wire: Wire) -> None:
        with pytest.raises(Exception, match="in use by another"):
            async with wired(tmp_path):
                pass

    run(tmp_path, scenario)
