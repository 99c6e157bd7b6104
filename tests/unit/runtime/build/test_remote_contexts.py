"""Contexts that a web server gives."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runtime.build import remote_contexts
from runtime.build.checkouts import is_repository
from runtime.build.remote_contexts import fetched, is_address
from runtime.errors import BuildError
from runtime.images.unpack import Limits
from runtime.oci.digest import digest_of
from tests.unit.runtime.images.archives import archive, directory, member, symlink


@dataclass
class Site:
    """A web server: contents by path, and the Authorization that requests came with."""

    url: str = ""
    pages: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.headers.get("Authorization"))
            if self.path in site.moved:
                self.send_response(302)
                self.send_header("Location", site.moved[self.path])
                self.end_headers()
            elif self.path in site.pages:
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(site.pages[self.path])
            else:
                self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing on the tests' output."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as served:
        yield served


def packed(mode: str, **files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size, info.uid = len(text), 1234
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_is_unpacked_whatever_its_address_says(
    tmp_path: Path, site: Site, kind: str
) -> None:
    content = site.pages["/x?token=1"] = packed(kind, Dockerfile="FROM scratch", d__f="1")
    with fetched(f"{site.url}/x?token=1", tmp_path / "scratch") as found:
        assert found.is_archive and found.digest == digest_of(content)
        assert (found.directory / "d/f").read_text() == "1"
        assert (found.directory / "d/f").stat().st_uid == os.geteuid()
        assert sorted(os.listdir(found.directory)) == ["Dockerfile", "d"]
    assert os.listdir(tmp_path / "scratch") == []


def test_a_single_file_is_called_as_asked_or_as_the_address_says(
    tmp_path: Path, site: Site
) -> None:
    site.pages = {"/a/some.txt": b"FROM scratch\n", "/": b"x"}
    for path, name, expected in (
        ("/a/some.txt", "Dockerfile", "Dockerfile"),
        ("/a/some.txt", None, "some.txt"),
        ("/", None, "context"),
    ):
        with fetched(site.url + path, tmp_path, name=name) as found:
            assert not found.is_archive
            assert os.listdir(found.directory) == [expected]


def test_a_hostile_archive_stays_in_its_directory(tmp_path: Path, site: Site) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    hostile = {
        "/up": [member("../outside/x")],
        "/link": [symlink("l", str(outside)), member("l/x")],
        "/deep": [directory("d/" * 300)],
    }
    for path, members in hostile.items():
        site.pages[path] = archive(*members).read(-1)
        with (
            pytest.raises(BuildError, match=r"layer entry .* is refused"),
            fetched(site.url + path, tmp_path / "scratch"),
        ):
            pytest.fail("it was taken")
    assert os.listdir(outside) == os.listdir(tmp_path / "scratch") == []


def test_sizes_are_bounded(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages = {"/bomb": packed("w:gz", f="0" * 1_000_000), "/big": bytes(5_000_000)}
    monkeypatch.setattr(remote_contexts, "_LIMITS", Limits(stored=999_999))
    monkeypatch.setattr(remote_contexts, "_LARGEST", 4_000_000)
    for path, message in (("/bomb", "more than 999999 bytes"), ("/big", "larger than 4000000")):
        with pytest.raises(BuildError, match=message), fetched(site.url + path, tmp_path):
            pytest.fail("it was taken")
    assert os.listdir(tmp_path) == []


def test_a_name_and_password_go_to_their_own_host_and_into_no_message(
    tmp_path: Path, site: Site
) -> None:
    with serving(Site()) as other:
        other.pages["/there"] = b"x"
        site.moved["/here"] = f"{other.url}/there"
        address = site.url.replace("://", "://me:s%40cret@")
        with fetched(f"{address}/here", tmp_path) as found:
            assert os.listdir(found.directory) == ["here"]
        word = base64.b64encode(b"me:s@cret").decode()
        assert site.asked == [f"Basic {word}"] and other.asked == [None]
    with pytest.raises(BuildError) as caught, fetched(f"{address}/absent", tmp_path):
        pytest.fail("it was taken")
    assert "s%40cret" not in str(caught.value) and "404" in str(caught.value)


def test_a_redirect_leads_to_no_other_protocol(tmp_path: Path, site: Site) -> None:
    site.moved = {"/file": "file:///etc/passwd", "/ftp": "ftp://127.0.0.1/x"}
    for path in site.moved:
        with pytest.raises(BuildError, match="cannot fetch"), fetched(site.url + path, tmp_path):
            pytest.fail("it was taken")


def test_a_download_can_be_ended(tmp_path: Path, site: Site) -> None:
    site.pages["/x"] = bytes(1000)

    def stop() -> None:
        raise BuildError("the build was canceled")

    with pytest.raises(BuildError, match="canceled"), fetched(f"{site.url}/x", tmp_path, stop=stop):
        pytest.fail("it was taken")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("address", ["ftp://host/x", "oci-layout://x", "https:///x", "http://[x/"])
def test_what_cannot_be_fetched_is_said_in_one_line(tmp_path: Path, address: str) -> None:
    assert is_address(address)
    with pytest.raises(BuildError) as caught, fetched(address, tmp_path):
        pytest.fail("it was taken")
    assert "\n" not in str(caught.value) and address[:3] in str(caught.value)


@pytest.mark.parametrize("path", ["/a", "a:b", "./http", "/srv/project.git", "project.git"])
def test_a_path_is_no_address(path: str) -> None:
    assert not is_address(path)


@pytest.mark.parametrize(
    "address",
    ["github.com/team/shop", "github.com/team/shop.git#v1:web", "https://host/shop.git#main"],
)
def test_an_address_of_a_repository_is_one_also_without_a_scheme(address: str) -> None:
    assert is_address(address)
    assert is_repository(address)
