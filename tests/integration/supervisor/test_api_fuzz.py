"""Requests that make no sense, on every route that the daemon says it has.

Each is answered with a status below 500 or, where an operation was begun, with a result that
names an error of ours; the daemon's log has no traceback at the end.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator

import pytest

from tests.integration.supervisor.harbour import Harbour

NAMES = (
    "..%2f..%2fx",
    "%2e%2e",
    "a%00b",
    "a%0Ab",
    "-rf",
    "x" * 300,
    "%ff%fe",
    "%ed%a0%80",
    "%1b%5b31m",
)
LONG = "x" * 9000  # longer than a request's line may be

BODIES = (
    b"{",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 5_000,
    b"1" * 5_000,
    rb'{"services": ["\ud800"], "revision": "\ud800", "address": "\ud800"}',
    rb'{"services": ["\ud800"]}',
    rb'{"services": ["\u0000"]}',
    rb'{"project": {"version": 1, "name": "../x", "services": {}}}',
    rb'{"project": {"version": 1, "name": "\u0000"}, "inputs": {"directory": []}}',
    b'{"options": {"timeout": NaN, "signal": "-9"}}',
    b'{"options": {"scale": {"a": 99999999999999999999999}}}',
    rb'{"reference": "../../\u0000"}',
    b'{"revision": "' + b"9" * 5_000 + b'"}',
    rb'{"address": "\u0000:1"}',
    b'{"address": "' + b"a" * 290 + b':80"}',
    b'{"address": "127.0.0.1:99999999999999999999"}',
    rb'{"source": {"metadata": {"name": "x"}, "spec": {"url": "/tmp/\ud800"}}}',
    b'{"source": {"metadata": {"name": "../x"}, "spec": {"url": "ext::sh -c id"}}}',
    b'{"source": {"metadata": {"name": "x"}, "spec": {"url": "https://[::"}}}',
    b'{"source": {"metadata": [], "spec": []}}',
)
QUERIES = (
    "since=x",
    "since=nan&until=inf",
    "since=1e999",
    "from=9999999999999999999999&to=%ff",
    "project=%00&service=%ed%a0%80",
    "force=%00&directory=%00&keep=%ff",
)

OURS_ALONE = re.compile(
    rb'"type": ?"(?:Value|Type|Key|Index|Attribute|Recursion|Overflow|Assertion|UnicodeEncode|'
    rb'UnicodeDecode|OS|FileNotFound|Operational)Error"'
)


@pytest.fixture
def bare(harbour: Harbour) -> Iterator[Harbour]:
    """A daemon with nothing in it, which is one still when the test has ended."""
    yield harbour
    assert harbour.alive
    log = (harbour.run / "daemon.log").read_text(errors="replace")
    assert "Traceback" not in log


def answer(harbour: Harbour, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    head = f"{method} {target} HTTP/1.1\r\nHost: bayplan\r\nConnection: close\r\n"
    with harbour.client.connect() as connection:
        connection.settimeout(60)
        # It may have answered before it has read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        with connection.makefile("rb") as answer:
            start, _, rest = answer.read().partition(b"\r\n\r\n")
    assert start, (method, target[:100], body[:100])
    return int(start.split()[1]), rest


def test_no_request_is_a_fault_of_the_daemon(bare: Harbour) -> None:
    routes = [
        (method.upper(), path)
        for path, operations in bare.client.get("/v1/openapi.json")["paths"].items()
        for method in operations
        if path != "/v1/shutdown"
    ]
    assert len(routes) > 30
    faults = []
    for method, path in routes:
        named = [re.sub(r"\{\w+\}", name, path) for name in NAMES if "{" in path]
        plain = re.sub(r"\{\w+\}", "1", path)
        requests = [(target, b"{}") for target in named]
        requests += [(plain, body) for body in BODIES if method != "GET"]
        requests += [(f"{plain}?{query}", b"") for query in QUERIES if method == "GET"]
        for target, body in requests:
            if target.partition("?")[0].endswith("/stats"):
                continue  # it takes its second each time, and reads what the others read
            status, rest = answer(bare, method, target, body)
            if status >= 500 or OURS_ALONE.search(rest):
                faults.append((method, target[:80], body[:80], status, rest[:300]))
    assert faults == []
    assert answer(bare, "GET", f"/v1/projects/{LONG}/status")[0] == 400
    assert answer(bare, "GET", "/v1/\0")[0] == 400


def test_a_body_that_is_too_large_is_refused(bare: Harbour) -> None:
    body = json.dumps({"services": ["x" * (65 * 2**20)]}).encode()
    status, rest = answer(bare, "POST", "/v1/projects/shop/stop", body)
    assert status == 413
    assert b"too large" in rest


def test_only_root_may_connect(bare: Harbour) -> None:
    assert (bare.run / "bayplan.sock").stat().st_mode & 0o777 == 0o600
