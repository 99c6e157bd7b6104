"""ADD of what a server gives."""

from __future__ import annotations

import http.server
import io
import shutil
import stat
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.build import git
from runtime.errors import BuildError
from runtime.oci.digest import digest_of
from tests.unit.runtime.build.workshop import Workshop

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
CONTENT = b"content from a server"


def _archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as tar:
        info = tarfile.TarInfo("top/f")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    return content.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/there"):
            self.send_response(200)
            self.send_header("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
        elif self.path == "/archive":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(_archive())
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"short")
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on the tests' output."""


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_a_file_is_fetched_with_the_servers_time(shop: Workshop, url: str) -> None:
    image = shop.build(f"FROM scratch\nADD {url}/there/f.txt?x=1 /d/\nADD {url}/there /named\n")
    assert shop.files(image) == {"d/f.txt": CONTENT.decode(), "named": CONTENT.decode()}
    status = shop.status(image, "/d/f.txt")
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o600, 1_000_000_000)


def test_an_archive_is_unpacked_where_that_is_asked_for(shop: Workshop, url: str) -> None:
    assert set(shop.files(shop.build(f"FROM scratch\nADD {url}/archive /d/\n"))) == {"d/archive"}
    image = shop.build(f"FROM scratch\nADD --unpack {url}/archive /d/\n")
    assert shop.files(image) == {"d/top/f": "abc"}
    image = shop.build(f"FROM scratch\nADD --unpack=true {url}/there/f /d/\n")
    assert shop.files(image) == {"d/f": CONTENT.decode()}


def test_a_checksum_is_checked(shop: Workshop, url: str) -> None:
    right = digest_of(CONTENT)
    shop.build(f"FROM scratch\nADD --checksum={right} {url}/there/f /\n")
    with pytest.raises(BuildError, match=f"has the checksum {right}, not sha256:00"):
        shop.build(f"FROM scratch\nADD --checksum=sha256:00 {url}/there/f /\n")
    with pytest.raises(BuildError, match="exactly one source"):
        shop.build("FROM scratch\nADD --checksum=sha256:00 local /\n")


@pytest.mark.parametrize("path", ["missing", "cut"])
def test_a_failing_server_is_told(shop: Workshop, url: str, path: str) -> None:
    with pytest.raises(BuildError, match="cannot fetch"):
        shop.build(f"FROM scratch\nADD {url}/{path} /\n")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository with two commits, the first one tagged."""
    monkeypatch.setattr(git, "_PROTOCOLS", "file")
    path = tmp_path / "repo.git"

    def call(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example")
        subprocess.run(("git", "-C", str(path), *identity, *words), check=True)

    path.mkdir()
    call("init", "-q", "-b", "main")
    for content in ("one", "two"):
        (path / "sub").mkdir(exist_ok=True)
        (path / "sub/f").write_text(content)
        (path / "top").write_text(content)
        call("add", ".")
        call("commit", "-q", "-m", content)
        if content == "one":
            call("tag", "-a", "v1", "-m", "first")
    return f"file://{path}"


@needs_git
def test_a_repository_is_checked_out(shop: Workshop, repository: str) -> None:
    dockerfile = (
        f"FROM scratch\nADD {repository} /head\nADD {repository}#v1:sub /tag/\n"
        f"ADD --keep-git-dir=true {repository}#main /kept\n"
    )
    image = shop.build(dockerfile)
    files = shop.files(image)
    assert {path: text for path, text in files.items() if ".git/" not in path} == {
        "head/sub/f": "two", "head/top": "two", "tag/f": "one",
        "kept/sub/f": "two", "kept/top": "two",
    }  # fmt: skip
    assert "kept/.git/HEAD" in files and "head/.git/HEAD" not in files
    assert shop.build(dockerfile).id == image.id


def test_a_directory_of_the_context_may_be_called_as_a_repository(shop: Workshop) -> None:
    shop.write({"bare.git/HEAD": "ref: refs/heads/main"})
    image = shop.build("FROM scratch\nADD bare.git /kept\n")
    assert shop.files(image) == {"kept/HEAD": "ref: refs/heads/main"}


@needs_git
def test_a_commit_is_checked(shop: Workshop, repository: str) -> None:
    with pytest.raises(BuildError, match=r"is the commit [0-9a-f]{40}, not 000"):
        shop.build(f"FROM scratch\nADD --checksum=000 {repository} /\n")
    with pytest.raises(BuildError, match="has no 'nothing'"):
        shop.build(f"FROM scratch\nADD {repository}#nothing /\n")
    with pytest.raises(BuildError, match="is not a git source"):
        shop.build(f"FROM scratch\nADD {repository}#--upload-pack=x /\n")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("ftp://127.0.0.1/x", "only http and https"),
        ("file:///x/y.git", "git: .*not allowed"),
        ("https://127.0.0.1:1/x/y.git", "git: .*unable to access"),
        ("http://127.0.0.1:1/x", "cannot fetch"),
    ],
)
def test_other_sources_are_refused(shop: Workshop, source: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        shop.build(f"FROM scratch\nADD {source} /x\n")


def test_a_url_without_a_name_needs_a_file_as_destination(shop: Workshop, url: str) -> None:
    with pytest.raises(BuildError, match="gives no name"):
        shop.build(f"FROM scratch\nADD {url}/there/ /d/\n")
