"""The HTTP client against a server that answers byte for byte what a test says."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.client import daemon, http
from orchestrator.client.errors import ApiError, DaemonUnreachable, ProtocolError
from orchestrator.client.http import Client, quote

Serve = Callable[[list[bytes]], Client]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server of one connection; `requests` of the client collects what it got."""
    listener = socket.socket(socket.AF_UNIX)
    path = tmp_path / "api.sock"
    listener.bind(str(path))
    listener.listen()
    threads: list[threading.Thread] = []

    def start(pieces: list[bytes]) -> Client:
        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                (tmp_path / "request").write_bytes(request)
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=answer)
        thread.start()
        threads.append(thread)
        return Client(str(path))

    yield start
    for thread in threads:
        thread.join(5)
    listener.close()


def _answer(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _chunks(*chunks: bytes) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    framed = [b"%x;note=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return [head, *framed, b"0\r\n\r\n"]


def test_a_body_with_a_length_is_read_whole(serve: Serve, tmp_path: Path) -> None:
    answer = _answer(b'{"name": "bay"}')
    client = serve([answer[:20], answer[20:40], answer[40:]])

    assert client.get("/v1/version", project="a b", all=None) == {"name": "bay"}
    request = (tmp_path / "request").read_bytes()
    assert request.startswith(b"GET /v1/version?project=a%20b HTTP/1.1\r\nHost: ")


def test_events_come_line_by_line_however_they_are_cut(serve: Serve) -> None:
    lines = b'{"type":"a"}\n{"type":"b"}\n\n{"type":"c"}'
    client = serve(_chunks(*(lines[start : start + 7] for start in range(0, len(lines), 7))))

    events = list(client.stream("POST", "/v1/x", {"a": 1}).events())

    assert [event["type"] for event in events] == ["a", "b", "c"]


def test_a_failure_carries_the_words_of_the_daemon(serve: Serve) -> None:
    error = {"type": "ImageNotFound", "message": "no such image: x", "hint": "build it"}
    client = serve([_answer(json.dumps({"error": error}).encode(), "404 Not Found")])

    with pytest.raises(ApiError, match="no such image: x") as caught:
        client.get("/v1/images/x")
    assert (caught.value.type, caught.value.hint, caught.value.status) == (
        "ImageNotFound",
        "build it",
        404,
    )


def test_events_of_a_failed_request_raise_too(serve: Serve) -> None:
    client = serve([_answer(b'{"error": {"message": "no"}}', "500 Oh")])

    with pytest.raises(ApiError, match="no"):
        list(client.stream("POST", "/v1/x").events())


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(serve: Serve) -> None:
    client = serve([*_chunks(b'{"type":"a"}\n')[:2], b"5\r\nab"])

    events = client.stream("GET", "/v1/x").events()

    assert next(events) == {"type": "a"}
    with pytest.raises(DaemonUnreachable, match="lost"):
        next(events)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", _answer(b"<html>")])
def test_what_is_not_the_api_is_named_so(serve: Serve, answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        serve([answer]).get("/v1/x")


def test_nobody_listening_is_said_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match="no daemon answers") as caught:
        Client(str(tmp_path / "none.sock")).get("/v1/version")
    assert caught.value.hint


def test_a_socket_may_lie_deeper_than_an_address_can_say(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        fd_path = f"/proc/self/fd/{_open_directory(deep)}/api.sock"
        listener.bind(fd_path)
        listener.listen()
        Client(str(deep / "api.sock")).connect().close()


def _open_directory(path: Path) -> int:

    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def test_path_segments_are_quoted() -> None:
    assert quote("debian:bookworm/ä") == "debian%3Abookworm%2F%C3%A4"


def test_the_daemon_gets_no_variable_of_the_person_but_the_needed_ones() -> None:
    kept = daemon.environment({"PATH": "/bin", "SECRET": "x", "LANG": "C.UTF-8", "PYTHONPATH": "."})

    assert kept == {"PATH": "/bin", "LANG": "C.UTF-8"}
    assert "PATH" in daemon.environment({})


def test_a_daemon_of_another_version_is_renewed_once_and_asked_again(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    heads = iter([b"Server: bayplan/0\r\n", b"Server: bayplan/1\r\n"])
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        for head in heads:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: 2\r\n\r\n[]")

    thread = threading.Thread(target=serve)
    thread.start()
    renewed: list[str] = []

    assert Client(path, server="bayplan/1", renew=renewed.append).get("/v1/projects") == []

    thread.join()
    listener.close()
    assert renewed == ["bayplan/0"]


def test_a_daemon_that_was_stopped_is_told_instead_of_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_PATIENCE", 10)
    place = tmp_path / "bayplan.sock"
    program = (
        "import os, signal, socket, sys\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(sys.argv[1])\n"
        "listener.listen()\n"
        "print('ready', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    argv = [sys.executable, "-c", program, str(place)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            with pytest.raises(
                DaemonUnreachable, match=f"process {server.pid}. is stopped"
            ) as told:
                Client(str(place)).get("/v1/version")
            assert told.value.hint == f"kill -CONT {server.pid} lets it go on"
        finally:
            server.kill()
