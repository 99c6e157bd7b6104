"""Paths, names, ranges and page sizes that a registry server accepts."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from runtime.registry.server.refusals import Code, Refusal
from runtime.registry.server.requests import (
    Kind,
    Target,
    blob_range,
    content_range,
    matches,
    page_size,
    parse_target,
)

DIGEST = "sha256:" + "a" * 64
UPLOAD = "0" * 32


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v2/", Target(kind=Kind.BASE)),
        ("/v2", Target(kind=Kind.BASE)),
        ("/v2/_catalog", Target(kind=Kind.CATALOG)),
        ("/v2/a/manifests/v1", Target(kind=Kind.MANIFEST, repository="a", argument="v1")),
        (
            "/v2/a/manifests/b/manifests/v1",
            Target(kind=Kind.MANIFEST, repository="a/manifests/b", argument="v1"),
        ),
        (f"/v2/a/b/blobs/{DIGEST}", Target(kind=Kind.BLOB, repository="a/b", argument=DIGEST)),
        (
            f"/v2/a/blobs/{DIGEST.replace(':', '%3A')}",
            Target(kind=Kind.BLOB, repository="a", argument=DIGEST),
        ),
        ("/v2/a/blobs/uploads/", Target(kind=Kind.UPLOADS, repository="a")),
        (
            f"/v2/a/blobs/uploads/{UPLOAD}",
            Target(kind=Kind.UPLOAD, repository="a", argument=UPLOAD),
        ),
        ("/v2/a/tags/list", Target(kind=Kind.TAGS, repository="a")),
        (f"/v2/a/referrers/{DIGEST}", Target(kind=Kind.REFERRERS, repository="a", argument=DIGEST)),
        ("/v2/a", None),
        ("/v1/", None),
        ("/", None),
    ],
)
def test_paths_are_taken_apart(path: str, target: Target | None) -> None:
    assert parse_target(path) == target


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "a/../b",
        "a/..",
        "%2e%2e",
        "a%2fb",
        "A",
        "a//b",
        "/a",
        "a_",
        "-a",
        "a___b",
        "a" * 256,
        "_a",
    ],
)
def test_names_outside_of_the_grammar_are_refused(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(f"/v2/{name}/tags/list")
    assert (refused.value.code, refused.value.status) == (Code.NAME_INVALID, 400)


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:..%2f..%2fx",
        "sha256:abc",
        "md5:" + "a" * 32,
        "sha256:" + "A" * 64,
        "..",
        "sha256%3a..%2f",
    ],
)
def test_digests_are_checked_before_they_name_a_file(digest: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(f"/v2/a/blobs/{digest}")
    assert refused.value.status in (400, 404)


@pytest.mark.parametrize(
    ("header", "length", "expected"),
    [
        (None, "5", None),
        ("0-4", "5", (0, 5)),
        ("10-19", "10", (10, 10)),
        ("bytes 10-19/100", "10", (10, 10)),
        ("0-4", None, (0, 5)),
    ],
)
def test_chunk_ranges_are_read(
    header: str | None, length: str | None, expected: tuple[int, int] | None
) -> None:
    headers = {"Content-Range": header, "Content-Length": length}
    request = make_mocked_request("PATCH", "/", {k: v for k, v in headers.items() if v})
    assert content_range(request) == expected


@pytest.mark.parametrize("header", ["x", "5", "4-0", "0-4", "-1-3", "0-" + "9" * 30, "0-1,3-4"])
def test_chunk_ranges_that_lie_are_refused(header: str) -> None:
    request = make_mocked_request("PATCH", "/", {"Content-Range": header, "Content-Length": "3"})
    with pytest.raises(Refusal) as refused:
        content_range(request)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-", (2, 8)),
        ("bytes=2-99", (2, 8)),
        ("bytes=-3", (7, 3)),
        ("bytes=-99", (0, 10)),
        ("bytes=0-1,4-5", None),
        ("items=0-1", None),
        ("bytes=5-2", None),
        ("bytes=-", None),
    ],
)
def test_download_ranges(header: str, expected: tuple[int, int] | None) -> None:
    assert blob_range(make_mocked_request("GET", "/", {"Range": header}), 10, '"e"') == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_download_ranges_that_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(Refusal) as refused:
        blob_range(make_mocked_request("GET", "/", {"Range": header}), 10, '"e"')
    assert refused.value.status == 416
    assert refused.value.headers["Content-Range"] == "bytes */10"


def test_a_range_of_something_else_gets_the_whole() -> None:
    request = make_mocked_request("GET", "/", {"Range": "bytes=2-", "If-Range": '"other"'})
    assert blob_range(request, 10, '"e"') is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ('"e"', True),
        ('W/"e"', True),
        ('"x", "e"', True),
        ("*", True),
        ('"x"', False),
    ],
)
def test_conditional_requests(header: str | None, expected: bool) -> None:
    headers = {"If-None-Match": header} if header else {}
    assert matches(make_mocked_request("GET", "/", headers), '"e"') is expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", 100), ("?n=5", 5), ("?n=0", 0), ("?n=2147483648", 100), ("?n=" + "9" * 5000, 100)],
)
def test_pages_are_bounded_whatever_is_asked_for(query: str, expected: int) -> None:
    assert page_size(make_mocked_request("GET", f"/v2/_catalog{query}"), 100) == expected


@pytest.mark.parametrize("asked", ["-1", "x", "1.5", "%C2%B2"])
def test_a_page_size_that_is_no_number_is_refused(asked: str) -> None:
    with pytest.raises(Refusal):
        page_size(make_mocked_request("GET", f"/v2/_catalog?n={asked}"), 100)
