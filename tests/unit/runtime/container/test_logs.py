"""The log: written, rotated, torn, read, followed."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from runtime.container.config import LogConfig
from runtime.container.log_reader import LogEntry, LogFollower, parse_line, read_log
from runtime.container.logs import LONGEST_LINE, LogWriter, timestamp


def writer(directory: Path, *, size: int = 1 << 20, files: int = 3) -> LogWriter:
    return LogWriter(directory, LogConfig(max_size=size, max_files=files))


def texts(directory: Path) -> list[str]:
    return [entry.text for entry in read_log(directory / "container.log")]


def test_lines_carry_stream_and_time(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.write("stdout", b"one\ntwo\n")
    log.write("stderr", b"three\n")
    log.close()
    entries = list(read_log(tmp_path / "container.log"))
    assert [(entry.stream, entry.text) for entry in entries] == [
        ("stdout", "one\n"), ("stdout", "two\n"), ("stderr", "three\n"),
    ]  # fmt: skip
    assert [entry.time for entry in entries] == sorted(entry.time for entry in entries)
    first = json.loads((tmp_path / "container.log").read_text().splitlines()[0])
    assert set(first) == {"log", "stream", "time"}


def test_times_are_utc_with_nanoseconds() -> None:
    assert timestamp(1_700_000_000_000_000_007) == "2023-11-14T22:13:20.000000007Z"


def test_half_lines_wait_for_their_end_each_in_its_stream(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.write("stdout", b"be")
    log.write("stderr", b"other\n")
    log.write("stdout", b"gin\nrest")
    assert texts(tmp_path) == ["other\n", "begin\n"]
    log.close()
    assert texts(tmp_path) == ["other\n", "begin\n", "rest"]


def test_long_lines_are_split_and_join_to_the_same(tmp_path: Path) -> None:
    log = writer(tmp_path)
    line = "".join(chr(97 + number % 26) for number in range(50_000)) + "\n"
    for start in range(0, len(line), 7777):
        log.write("stdout", line[start : start + 7777].encode())
    log.close()
    parts = texts(tmp_path)
    assert "".join(parts) == line and len(parts) == 4
    assert all(len(part) <= LONGEST_LINE for part in parts)
    assert all(not part.endswith("\n") for part in parts[:-1])


def test_no_character_is_cut(tmp_path: Path) -> None:
    log = writer(tmp_path)
    text = "x" + "€😀ü" * 9000 + "\n"
    raw = text.encode()
    for start in range(0, len(raw), 65536):
        log.write("stdout", raw[start : start + 65536])
    log.close()
    assert "".join(texts(tmp_path)) == text


def test_bytes_that_are_no_text_are_kept_as_marks(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.write("stdout", b"\xff\xfe bad\n" + b"\x80" * (LONGEST_LINE + 5) + b"\n\0\x1b[1m\n")
    log.close()
    first, *_middle, last = texts(tmp_path)
    assert first == "\ufffd\ufffd bad\n" and last == "\0\x1b[1m\n"


def test_files_rotate_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    log = writer(tmp_path, size=1000, files=3)
    for number in range(100):
        log.write("stdout", f"line {number}\n".encode())
    log.close()
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["container.log", "container.log.1", "container.log.2"]
    assert all(entry.stat().st_size <= 1000 for entry in tmp_path.iterdir())
    kept = texts(tmp_path)
    assert kept[-1] == "line 99\n"
    assert kept == [f"line {number}\n" for number in range(100 - len(kept), 100)]


def test_one_chunk_fills_several_files(tmp_path: Path) -> None:
    log = writer(tmp_path, size=1000, files=50)
    log.write("stdout", b"\n" * 300)
    log.close()
    assert len(texts(tmp_path)) == 300
    assert all(entry.stat().st_size <= 1000 for entry in tmp_path.iterdir())


def test_a_single_file_begins_anew(tmp_path: Path) -> None:
    log = writer(tmp_path, size=500, files=1)
    for number in range(50):
        log.write("stdout", f"{number}\n".encode())
    log.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["container.log"]
    assert texts(tmp_path)[-1] == "49\n" and (tmp_path / "container.log").stat().st_size <= 500


def test_nothing_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, LogConfig(driver="none"))
    log.write("stdout", b"x\n")
    log.close()
    assert texts(tmp_path) == []


def test_a_torn_line_is_passed_over_and_the_next_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    log = writer(tmp_path)
    log.write("stdout", b"whole\n")
    log.close()
    with path.open("ab") as file:
        file.write(b'{"log":"to')
    log = writer(tmp_path)
    log.write("stdout", b"next\n")
    log.close()
    assert texts(tmp_path) == ["whole\n", "next\n"]


def test_a_write_that_ends_half_way_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = writer(tmp_path)
    room = 20
    real = os.write

    def write(fd: int, raw: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        written = real(fd, raw[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", write)
    log.write("stdout", b"lost\n")
    log.write("stdout", b"lost too\n")
    monkeypatch.setattr(os, "write", real)
    log.write("stdout", b"kept\n")
    log.close()
    assert texts(tmp_path) == ["kept\n"]


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b"{}", b'{"log":"x"}', b"\xff"])
def test_a_line_that_is_no_entry_is_none(line: bytes) -> None:
    assert parse_line(line) is None


@pytest.fixture
def three_files(tmp_path: Path) -> Path:
    for number, name in enumerate(("container.log.2", "container.log.1", "container.log")):
        lines = [
            json.dumps(
                {
                    "log": f"{number}{part}\n",
                    "stream": "stdout",
                    "time": f"2026-01-0{number + 1}T0{part}",
                }
            )
            for part in range(3)
        ]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    (tmp_path / "container.log.new").touch()
    return tmp_path / "container.log"


def read(
    path: Path, tail: int | None = None, since: str | None = None, until: str | None = None
) -> list[str]:
    return [entry.text.strip() for entry in read_log(path, tail=tail, since=since, until=until)]


def test_all_files_are_read_oldest_first(three_files: Path) -> None:
    assert read(three_files) == ["00", "01", "02", "10", "11", "12", "20", "21", "22"]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(0, []), (1, ["22"]), (4, ["12", "20", "21", "22"]), (99, None)],
)
def test_the_tail_reaches_over_files(
    three_files: Path, tail: int, expected: list[str] | None
) -> None:
    assert read(three_files, tail=tail) == (read(three_files) if expected is None else expected)


def test_a_span_of_time_is_read(three_files: Path) -> None:
    assert read(three_files, since="2026-01-02T01") == ["11", "12", "20", "21", "22"]
    assert read(three_files, until="2026-01-01T02") == ["00", "01"]
    assert read(three_files, since="2026-01-01T02", until="2026-01-02T01") == ["02", "10"]
    assert read(three_files, tail=1, until="2026-01-02T01") == ["10"]


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "container.log") == read(tmp_path / "container.log", tail=3) == []


def test_a_follower_sees_what_comes_after_it(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.write("stdout", b"before\n")
    with LogFollower(tmp_path / "container.log") as follower:
        assert follower.read() == []
        log.write("stdout", b"after\n")
        assert follower.wait(5)
        assert [entry.text for entry in follower.read()] == ["after\n"]
        assert not follower.wait(0)
    log.close()


def test_a_follower_waits_for_the_file_and_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    with LogFollower(path) as follower:
        assert follower.read() == []
        whole = json.dumps({"log": "x\n", "stream": "stdout", "time": "t"}).encode() + b"\n"
        with path.open("ab", buffering=0) as file:
            file.write(whole[:10])
            assert follower.read() == []
            file.write(whole[10:])
        assert follower.read() == [LogEntry("t", "stdout", "x\n")]


def test_a_follower_that_came_first_begins_with_the_oldest_file(tmp_path: Path) -> None:
    with LogFollower(tmp_path / "container.log", from_start=True) as follower:
        log = writer(tmp_path, size=200, files=100)
        for number in range(20):
            log.write("stdout", f"{number}\n".encode())
        log.close()

        assert [entry.text for entry in follower.read()] == [f"{number}\n" for number in range(20)]


def test_a_follower_goes_on_with_what_is_left_when_its_file_is_deleted(tmp_path: Path) -> None:
    log = writer(tmp_path, size=200, files=3)
    log.write("stdout", b"first\n")
    with LogFollower(tmp_path / "container.log", from_start=True) as follower:
        assert [entry.text for entry in follower.read()] == ["first\n"]
        for number in range(20):
            log.write("stdout", f"{number}\n".encode())
        log.close()

        kept = [entry.text for entry in read_log(tmp_path / "container.log")]
        assert [entry.text for entry in follower.read()][-len(kept) :] == kept


def test_a_follower_loses_nothing_over_many_rotations(tmp_path: Path) -> None:
    log = writer(tmp_path, size=2000, files=100)
    seen: list[str] = []
    with LogFollower(tmp_path / "container.log", from_start=True) as follower:
        thread = threading.Thread(
            target=lambda: seen.extend(entry.text for entry in follower.follow())
        )
        thread.start()
        for number in range(2000):
            log.write("stdout", f"{number}\n".encode())
        log.close()
        (tmp_path / "exit.json").touch()
        thread.join(20)
        assert not thread.is_alive()
    assert seen == [f"{number}\n" for number in range(2000)]


def test_a_follower_ends_when_the_directory_goes(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    log = writer(directory)
    log.write("stdout", b"last\n")
    with LogFollower(directory / "container.log", from_start=True) as follower:
        entries = follower.follow()
        assert next(entries).text == "last\n"
        log.close()
        directory.rename(tmp_path / "doomed")
        (tmp_path / "doomed/container.log").unlink()
        (tmp_path / "doomed").rmdir()
        assert list(entries) == []
