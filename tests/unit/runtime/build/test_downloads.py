"""ADD of what a server gives."""

from __future__ import annotations

import http.server
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import BuildError
from runtime.oci.digest import digest_of
from tests.unit.runtime.build.workshop import Workshop

CONTENT = b"content from a server"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/there"):
            self.send_response(200)
            self.send_header("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
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


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("ftp://127.0.0.1/x", "only http and https"),
        ("git@example:x/y.git", "git repository"),
        ("https://127.0.0.1:1/x/y.git", "git repository"),
        ("http://127.0.0.1:1/x", "cannot fetch"),
    ],
)
def test_other_sources_are_refused(shop: Workshop, source: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        shop.build(f"FROM scratch\nADD {source} /x\n")


def test_a_url_without_a_name_needs_a_file_as_destination(shop: Workshop, url: str) -> None:
    with pytest.raises(BuildError, match="gives no name"):
        shop.build(f"FROM scratch\nADD {url}/there/ /d/\n")
