"""The guest book's page and its JSON interface.

GET  /             the page
POST /             a form with `name` and `message`; back to the page
GET  /api/entries  {"entries": [...], "counted": what the worker has counted}
POST /api/entries  {"name": ..., "message": ...}; answers 201 and the entry
GET  /health       200 when the store answers
"""

import html
import json
import os
import signal
import sys
import urllib.parse
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import redis

PORT = 8000
LONGEST = 1000  # characters of a message
LARGEST = 64 * 1024  # bytes of a request body
TITLE = os.environ.get("TITLE", "Guest book")
PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
STORE = redis.Redis(os.environ.get("STORE", "localhost"), socket_timeout=2, decode_responses=True)


class BadEntry(ValueError):
    """An entry without a name or a message, or one that is too long."""


def write(name: str, message: str) -> dict[str, str]:
    """Keep an entry, and tell the worker about it; both or neither."""
    if not name.strip() or not message.strip():
        raise BadEntry("an entry needs a name and a message")
    if len(name) > LONGEST or len(message) > LONGEST:
        raise BadEntry(f"an entry has at most {LONGEST} characters")
    entry = {
        "name": name.strip(),
        "message": message.strip(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with STORE.pipeline() as transaction:
        transaction.lpush("entries", json.dumps(entry))
        transaction.rpush("to-count", entry["name"])
        transaction.execute()
    return entry


def read() -> dict[str, object]:
    with STORE.pipeline() as transaction:
        transaction.lrange("entries", 0, 99)
        transaction.get("counted")
        entries, counted = transaction.execute()
    return {"entries": [json.loads(entry) for entry in entries], "counted": int(counted or 0)}


def page() -> str:
    book = read()
    items = "".join(
        "<li><p>{message}</p><small>{name}, {at}</small></li>".format(
            **{key: html.escape(value) for key, value in entry.items()}
        )
        for entry in book["entries"]
    )
    filled = PAGE.replace("{{title}}", html.escape(TITLE))
    return filled.replace("{{counted}}", str(book["counted"])).replace("{{entries}}", items)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "guestbook"

    def do_GET(self) -> None:
        self._answering({"/": self._page, "/api/entries": self._entries, "/health": self._health})

    def do_POST(self) -> None:
        self._answering({"/": self._form, "/api/entries": self._json})

    def _answering(self, routes) -> None:
        route = routes.get(urllib.parse.urlsplit(self.path).path)
        try:
            if route is None:
                self._send(HTTPStatus.NOT_FOUND, {"error": "there is nothing here"})
            else:
                route()
        except BadEntry as exc:
            self._send(HTTPStatus.BAD_REQUEST, {"error": str(exc)})
        except redis.RedisError as exc:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, {"error": f"the store: {exc}"})

    def _page(self) -> None:
        self._send(HTTPStatus.OK, page())

    def _entries(self) -> None:
        self._send(HTTPStatus.OK, read())

    def _health(self) -> None:
        STORE.ping()
        self._send(HTTPStatus.OK, {"ok": True})

    def _form(self) -> None:
        fields = urllib.parse.parse_qs(self._body().decode(errors="replace"))
        write(fields.get("name", [""])[0], fields.get("message", [""])[0])
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self) -> None:
        try:
            given = json.loads(self._body())
            entry = write(str(given["name"]), str(given["message"]))
        except (json.JSONDecodeError, KeyError, TypeError):
            raise BadEntry('the body must be {"name": …, "message": …}') from None
        self._send(HTTPStatus.CREATED, entry)

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= LARGEST:
            self.close_connection = True
            raise BadEntry(f"a request has at most {LARGEST} bytes")
        return self.rfile.read(length)

    def _send(self, status: HTTPStatus, content: object) -> None:
        if isinstance(content, str):
            kind, body = "text/html; charset=utf-8", content.encode()
        else:
            kind, body = "application/json", json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-") -> None:
        if self.path != "/health":
            super().log_request(code, size)


def main() -> None:
    # The first process of a container ignores signals that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = ThreadingHTTPServer(("", PORT), Handler)
    server.daemon_threads = True
    print(f"the guest book is open on port {PORT}")
    server.serve_forever()


main()
