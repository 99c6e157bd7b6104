"""The HTTP server, by what it makes of bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.serving import connection as connections
from orchestrator.serving import exchange as exchanges
from orchestrator.serving.messages import Answer, HttpError, Request, Response, json_response
from orchestrator.serving.routes import RouteTable
from orchestrator.serving.server import Server

LARGEST = 1000
PATIENCE = 20.0
GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
ROUTES = RouteTable()


class Scene:
    """What handlers do, and what became of them."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.proceed = asyncio.Event()
        self.canceled = asyncio.Event()
        self.written = 0
        self.faults: list[Exception] = []

    def explain(self, error: Exception, request: Request | None) -> Response:
        if not isinstance(error, HttpError):
            self.faults.append(error)
            return json_response({"error": repr(error)}, status=500)
        path = request.path if request is not None else None
        body = {"error": str(error), "path": path}
        return json_response(body, status=error.status, headers=error.headers)


@ROUTES.get("/hello")
async def hello(request: Request) -> Answer:
    return json_response({"hello": request.query.get("name", "you")})


@ROUTES.post("/echo/{name}")
async def echo(request: Request) -> Answer:
    return Response(request.parameters["name"].encode() + b":" + await request.read())


@ROUTES.post("/unread")
async def leave_unread(_request: Request) -> Answer:
    return Response(b"unread")


@ROUTES.get("/stream")
async def stream(request: Request) -> Answer:
    answer = await request.begin({"Content-Type": "text/plain"})
    for piece in (b"one\n", b"", b"two\n"):
        await answer.write(piece)
    return answer


@ROUTES.get("/wait")
async def wait(request: Request) -> Answer:
    scene: Scene = request.context
    answer = await request.begin({})
    scene.began.set()
    try:
        await scene.proceed.wait()
    except asyncio.CancelledError:
        scene.canceled.set()
        raise
    await answer.write(b"proceeded")
    return answer


@ROUTES.get("/flood")
async def flood(request: Request) -> Answer:
    scene: Scene = request.context
    answer = await request.begin({})
    try:
        while True:
            await answer.write(b"x" * 65536)
            scene.written += 65536
            scene.began.set()
    except (ConnectionError, asyncio.CancelledError):
        scene.canceled.set()
        raise


@ROUTES.get("/stubborn")
async def be_stubborn(request: Request) -> Answer:
    scene: Scene = request.context
    scene.began.set()
    with contextlib.suppress(asyncio.CancelledError):
        await scene.proceed.wait()
    scene.canceled.set()
    return Response(b"late")


@ROUTES.get("/fault")
async def fail(_request: Request) -> Answer:
    raise ValueError("no")


@ROUTES.get("/fault-in-a-stream")
async def fail_in_a_stream(request: Request) -> Answer:
    answer = await request.begin({})
    await answer.write(b"begun")
    raise ValueError("no")


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        start, *fields = text.strip().split("\r\n")
        pairs = (field.partition(":") for field in fields)
        return int(start.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        else:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return status, headers, body

    async def rest(self) -> bytes:
        """What comes until the server closes the connection."""
        return await self.reader.read()

    def close(self) -> None:
        self.writer.close()

    async def gone(self) -> None:
        self.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


Connect = Callable[[], Awaitable[Client]]
Play = Callable[[Connect, Server, Scene], Awaitable[None]]


def play(tmp_path: Path, body: Play, *, patience: float = PATIENCE) -> Scene:
    """Run `body` with a way to connect to a server of its own."""

    async def main() -> Scene:
        scene = Scene()
        server = Server(
            ROUTES,
            context=scene,
            explain=scene.explain,
            name="tester/1",
            largest_body=LARGEST,
            patience=patience,
        )
        path = str(tmp_path / "socket")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        await server.listen(listener)
        clients: list[Client] = []

        async def connect() -> Client:
            clients.append(Client(*await asyncio.open_unix_connection(path)))
            return clients[-1]

        try:
            async with asyncio.timeout(60):
                await body(connect, server, scene)
        finally:
            for client in clients:
                await client.gone()
            await server.close(5.0)
        return scene

    return asyncio.run(main())


def test_requests_share_a_connection(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        for name in ("a", "b", "%C3%BC"):
            client.send(b"GET /hello?name=%b HTTP/1.1\r\nHost: x\r\n\r\n" % name.encode())
            status, headers, text = await client.answer()
            assert (status, headers["server"]) == (200, "tester/1")
            assert headers["date"].endswith(" GMT")
            assert json.loads(text)["hello"] == name.replace("%C3%BC", "ü")

    play(tmp_path, body)


def test_a_client_can_end_its_connection_with_a_request(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        for request in (
            b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"GET /hello HTTP/1.0\r\n\r\n",
        ):
            client = await connect()
            client.send(request)
            assert (await client.answer())[0] == 200
            assert await client.rest() == b""

    play(tmp_path, body)


def test_pipelined_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        post = b"POST /echo/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        client.send(b"".join(post % number for number in range(200)))
        for number in range(200):
            assert (await client.answer())[2] == b"%d:abc" % number

    play(tmp_path, body)


def test_bytes_may_come_one_by_one(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        request = b"POST /echo/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        for byte in request + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: z\r\n\r\n":
            client.send(bytes((byte,)))
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.answer())[2] == b"a:abcde"

    play(tmp_path, body)


def test_head_has_the_headers_of_the_answer_alone(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.send(GET)
        _, whole, text = await client.answer()
        client.send(GET.replace(b"GET", b"HEAD"))
        status, headers = await client.head()
        assert (status, headers["content-length"]) == (200, str(len(text)))
        assert headers.keys() == whole.keys()
        client.send(b"HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.head())[0] == 200
        client.send(GET)
        assert (await client.answer())[2] == text

    play(tmp_path, body)


def test_a_refusal_of_head_has_no_body_either(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.send(b"HEAD * HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.head())[0] == 400
        assert await client.rest() == b""

    play(tmp_path, body)


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.send(b"GET /nothing%20here HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _, text = await client.answer()
        assert (status, json.loads(text)["path"]) == (404, "/nothing here")
        client.send(b"DELETE /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        client.send(GET)
        assert (await client.answer())[0] == 200

    play(tmp_path, body)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /hello\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET  /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT daemon:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na", 400),
        (b"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\na", 400),
        (
            b"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        (
            b"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
        ),
        (b"POST /echo/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 9000), 400),
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 90000), 431),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"x" * 16384), 431),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_gets_one_answer_and_no_other(
    tmp_path: Path, request_: bytes, status: int
) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.send(request_)
        told, headers, text = await client.answer()
        assert (told, headers["connection"], headers["server"]) == (status, "close", "tester/1")
        assert json.loads(text)["error"]
        assert await client.rest() == b""
        other = await connect()
        other.send(GET)
        assert (await other.answer())[0] == 200

    assert play(tmp_path, body).faults == []


@pytest.mark.parametrize(
    "sent",
    [
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdeXX3\r\nfgh\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n",
    ],
)
def test_a_malformed_body_is_refused(tmp_path: Path, sent: bytes) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.send(b"POST /echo/a HTTP/1.1\r\nHost: x\r\n" + sent + GET)
        status, headers, text = await client.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert "body" in json.loads(text)["error"]
        assert await client.rest() == b""

    play(tmp_path, body)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /hel", 400),
        (b"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc", 400),
        (
            b"POST /echo/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            400,
        ),
    ],
)
def test_a_request_that_is_cut_short_is_told_so_where_it_can_be(
    tmp_path: Path, sent: bytes, status: int
) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.send(sent)
        client.writer.write_eof()
        assert (await client.answer())[0] == status
        assert await client.rest() == b""

    play(tmp_path, body)


def test_a_connection_without_a_request_ends_without_an_answer(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.writer.write_eof()
        assert await client.rest() == b""

    play(tmp_path, body)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_that_is_too_large_is_refused_while_it_comes(tmp_path: Path, framing: str) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        size = 4 * 2**20
        head = b"POST /echo/a HTTP/1.1\r\nHost: x\r\n"
        if framing == "length":
            client.send(head + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
        else:
            client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
            client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
            client.send(b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n")
        # It may send everything, and finds its answer then.
        await client.writer.drain()
        status, headers, text = await client.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert "too large" in json.loads(text)["error"]
        assert await client.rest() == b""

    play(tmp_path, body)


def test_a_body_of_the_largest_size_is_taken(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        head = b"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        client.send(head % LARGEST + b"x" * LARGEST)
        assert (await client.answer())[2] == b"a:" + b"x" * LARGEST
        client.send(GET)
        assert (await client.answer())[0] == 200

    play(tmp_path, body)


def test_who_asks_before_sending_a_body_is_told_to_go_on_or_that_it_is_too_large(
    tmp_path: Path,
) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        head = b"POST /%b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        client.send(head % (b"echo/a", 3))
        assert (await client.head())[0] == 100
        client.send(b"abc")
        assert (await client.answer())[2] == b"a:abc"
        client.send(head % (b"echo/a", 2**30))
        assert (await client.answer())[0] == 413
        assert await client.rest() == b""
        client = await connect()
        client.send(head % (b"unread", 3))
        assert (await client.answer())[2] == b"unread"
        assert await client.rest() == b""

    play(tmp_path, body)


def test_a_body_that_nobody_reads_does_not_become_the_next_request(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        head = b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        client.send(head % len(GET) + GET + GET)
        assert (await client.answer())[2] == b"unread"
        assert json.loads((await client.answer())[2]) == {"hello": "you"}
        client.send(head % 2**20)
        assert (await client.answer())[1]["connection"] == "close"
        client.send(GET * 1000)
        assert await client.rest() == b""

    play(tmp_path, body)


def test_a_stream_comes_in_chunks_or_up_to_the_end_of_the_connection(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        for _ in range(2):
            client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            status, headers, text = await client.answer()
            assert (status, text) == (200, b"one\ntwo\n")
            assert headers["content-type"] == "text/plain"
        client.send(b"GET /stream HTTP/1.0\r\n\r\n")
        _, headers = await client.head()
        assert "transfer-encoding" not in headers
        assert await client.rest() == b"one\ntwo\n"

    play(tmp_path, body)


@pytest.mark.parametrize("how", ["close", "half"])
def test_a_client_that_goes_away_cancels_its_handler(tmp_path: Path, how: str) -> None:
    async def body(connect: Connect, _server: Server, scene: Scene) -> None:
        client = await connect()
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await scene.began.wait()
        if how == "half":
            client.writer.write_eof()
        else:
            client.close()
        await scene.canceled.wait()

    assert play(tmp_path, body).faults == []


def test_pipelining_hides_nobody_who_goes_away(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, scene: Scene) -> None:
        client = await connect()
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + GET * 3)
        await scene.began.wait()
        client.send(GET)
        await client.writer.drain()
        client.close()
        await scene.canceled.wait()

    play(tmp_path, body)


def test_who_reads_slowly_is_waited_for(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, scene: Scene) -> None:
        client = await connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        await scene.began.wait()
        before = -1
        while scene.written != before:
            before = scene.written
            other = await connect()
            for _ in range(20):
                other.send(GET)
                assert (await other.answer())[0] == 200
        assert scene.written < 2**22
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        received = 0
        while received <= before + 2**20:
            received += len(await client.reader.read(2**16))
        assert scene.written > before
        client.close()
        await scene.canceled.wait()

    play(tmp_path, body)


def test_who_stops_reading_and_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, scene: Scene) -> None:
        client = await connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        await scene.began.wait()
        client.writer.transport.abort()
        await scene.canceled.wait()

    play(tmp_path, body)


def test_a_fault_is_answered_and_a_stream_that_has_one_ends_early(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.send(b"GET /fault HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer())[0] == 500
        client.send(b"GET /fault-in-a-stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.head())[0] == 200
        assert await client.rest() == b"5\r\nbegun\r\n"

    scene = play(tmp_path, body)
    assert [str(fault) for fault in scene.faults] == ["no"]
    assert [record.getMessage() for record in caplog.records] == ["GET /fault-in-a-stream"]


@pytest.mark.parametrize("sent", [b"", b"GET /hello HTTP/1.1\r\nHo", GET])
def test_who_says_nothing_more_is_let_go(tmp_path: Path, sent: bytes) -> None:
    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.send(sent)
        if sent == GET:
            assert (await client.answer())[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert await client.rest() == b""

    play(tmp_path, body, patience=0.05)


def test_a_request_may_take_longer_than_a_silence(tmp_path: Path) -> None:
    async def body(connect: Connect, _server: Server, scene: Scene) -> None:
        client, idle = await connect(), await connect()
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await scene.began.wait()
        assert await idle.rest() == b""
        scene.proceed.set()
        assert (await client.answer())[2] == b"proceeded"

    play(tmp_path, body, patience=0.05)


def test_a_body_that_does_not_come_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "SILENCE", 0.05)
    monkeypatch.setattr(connections, "LINGER", 0.05)

    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        client = await connect()
        client.send(b"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc")
        assert (await client.answer())[0] == 408
        assert await client.rest() == b""

    play(tmp_path, body)


def test_an_end_waits_for_answers_and_for_nobody_who_is_idle(tmp_path: Path) -> None:
    async def body(connect: Connect, server: Server, scene: Scene) -> None:
        idle, busy = await connect(), await connect()
        busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        await scene.began.wait()
        ending = asyncio.create_task(server.close(30.0))
        assert await idle.rest() == b""
        with pytest.raises(OSError):
            await connect()
        assert not ending.done()
        scene.proceed.set()
        assert (await busy.answer())[2] == b"proceeded"
        assert await busy.rest() == b""
        await ending

    play(tmp_path, body)


def test_an_end_cancels_what_takes_too_long(tmp_path: Path) -> None:
    async def body(connect: Connect, server: Server, scene: Scene) -> None:
        client = await connect()
        client.send(b"GET /stubborn HTTP/1.1\r\nHost: x\r\n\r\n")
        await scene.began.wait()
        await server.close(0.05)
        assert scene.canceled.is_set()
        with contextlib.suppress(ConnectionResetError):
            await client.rest()

    play(tmp_path, body)


def test_a_listener_can_be_closed_under_connections_that_go_on(tmp_path: Path) -> None:
    async def body(connect: Connect, server: Server, _scene: Scene) -> None:
        client = await connect()
        other = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        other.bind(str(tmp_path / "other"))
        listening = await server.listen(other)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "other"))
        second = Client(reader, writer)
        second.send(GET)
        assert (await second.answer())[0] == 200
        listening.close()
        with pytest.raises(OSError):
            await asyncio.open_unix_connection(str(tmp_path / "other"))
        for one in (client, second):
            one.send(GET)
            assert (await one.answer())[0] == 200
        await second.gone()

    play(tmp_path, body)


def test_no_bytes_are_a_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(1)
    requests = [
        GET,
        GET.replace(b"GET", b"HEAD"),
        b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD /stream HTTP/1.0\r\nUpgrade: h2c\r\n\r\n",
        b"POST /echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST /echo/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /unread HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ]
    pieces = [b"\r\n", b"\n", b"\0", b" ", b":", b"%ff", b"-1", b"\xff", b"x" * 9000, b"HTTP/1.0"]
    pieces += [
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
    ]

    def mutated() -> bytes:
        data = bytearray(b"".join(dice.choices(requests, k=dice.randint(1, 3))))
        for _ in range(dice.randint(0, 3)):
            at = dice.randrange(len(data))
            data[at : at + dice.randint(0, 5)] = dice.choice([*pieces, b""])
        return bytes(data)

    async def visit(connect: Connect, data: bytes) -> None:
        client = await connect()
        at = dice.randint(0, len(data))
        for part in (data[:at], data[at:]):
            client.send(part)
            await asyncio.sleep(0)
        client.writer.write_eof()
        with contextlib.suppress(ConnectionResetError):
            told = await client.rest()
            assert not told or told.startswith(b"HTTP/1.1 ")
        await client.gone()

    async def body(connect: Connect, _server: Server, _scene: Scene) -> None:
        for _ in range(20):
            await asyncio.gather(*(visit(connect, mutated()) for _ in range(20)))

    assert play(tmp_path, body).faults == []
    assert caplog.records == []


def test_a_body_is_read_once_for_all_who_ask(tmp_path: Path) -> None:
    routes = RouteTable()

    @routes.post("/twice")
    async def twice(request: Request) -> Answer:
        first: Any = await request.read()
        kind = request.headers["content-type"].encode()
        return Response(kind + first + await request.read())

    async def main() -> None:
        scene = Scene()
        server = Server(routes, context=None, explain=scene.explain, name="t", largest_body=9)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(tmp_path / "socket"))
        await server.listen(listener)
        client = Client(*await asyncio.open_unix_connection(str(tmp_path / "socket")))
        client.send(
            b"POST /twice HTTP/1.1\r\nHost: x\r\nContent-Type: k\r\nContent-Length: 2\r\n\r\nab"
        )
        assert (await client.answer())[2] == b"kabab"
        await client.gone()
        await server.close(5.0)

    asyncio.run(main())
