"""Log files become lines of output: merged, cut to a window, prefixed, followed."""

import json
from pathlib import Path

import pytest

from orchestrator.cli.errors import UsageError
from orchestrator.cli.logs import Printer, Source, Window, label, moment, show, time_key


def _line(text: str, second: int, stream: str = "stdout") -> str:
    stamp = f"2026-01-02T03:04:{second:02d}.5Z"
    return json.dumps({"log": text, "stream": stream, "time": stamp}) + "\n"


def _source(path: Path, name: str = "shop-web-1") -> Source:
    return Source({"name": name, "log_path": str(path)})


def _printer(*, prefix: bool = False, colour: bool = False) -> Printer:
    return Printer(prefix=prefix, colour=colour, timestamps=False)


def test_containers_are_merged_by_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text(_line("one\n", 1) + _line("three\n", 3))
    (tmp_path / "b").write_text(_line("two\n", 2) + _line("four\n", 4))
    printer = _printer(prefix=True)
    printer.know(["shop-web-1", "shop-store-1"])

    sources = [_source(tmp_path / "a"), _source(tmp_path / "b", "shop-store-1")]
    show(sources, Window(), printer)

    assert capsys.readouterr().out.splitlines() == [
        "web-1    | one",
        "store-1  | two",
        "web-1    | three",
        "store-1  | four",
    ]


def test_older_files_come_first_and_the_tail_counts_across_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text(_line("3\n", 3))
    (tmp_path / "log.1").write_text(_line("2\n", 2))
    (tmp_path / "log.2").write_text(_line("1\n", 1))

    show([_source(tmp_path / "log")], Window(), _printer())
    show([_source(tmp_path / "log")], Window(tail=2), _printer())
    show([_source(tmp_path / "log")], Window(tail=0), _printer())

    assert capsys.readouterr().out.split() == ["1", "2", "3", "2", "3"]


def test_a_window_holds_from_since_up_to_until(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("".join(_line(f"{second}\n", second) for second in range(6)))
    window = Window(since=time_key("2026-01-02T03:04:02Z"), until=time_key("2026-01-02T03:04:04Z"))

    show([_source(tmp_path / "log")], window, _printer())

    assert capsys.readouterr().out.split() == ["2", "3"]


def test_parts_of_a_long_line_are_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text(
        _line("a", 1) + _line("x\n", 2, "stderr") + _line("b\n", 3) + _line("no end", 4)
    )

    show([_source(tmp_path / "log")], Window(), _printer())

    shown = capsys.readouterr()
    assert shown.out == "ab\nno end\n"
    assert shown.err == "x\n"


def test_following_goes_on_after_the_past_across_a_change_of_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    source = _source(path)
    assert list(source.past(Window())) == []
    path.write_text(_line("1\n", 1) + '{"log": "2\\n", "str')
    assert [entry.text for entry in source.new()] == ["1\n"]
    with path.open("a") as file:
        file.write('eam": "stdout", "time": "2026-01-02T03:04:05Z"}\n')
    path.rename(tmp_path / "log.1")
    path.write_text(_line("3\n", 6))

    assert [entry.text for entry in source.new()] == ["2\n", "3\n"]
    assert list(source.new()) == []
    source.close()


def test_prefixes_are_coloured_where_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text(_line("hello\n", 1))
    printer = _printer(prefix=True, colour=True)
    printer.know(["shop-web-1"])

    show([_source(tmp_path / "log")], Window(), printer)

    assert capsys.readouterr().out == "\x1b[36mweb-1  | \x1b[0mhello\n"


@pytest.mark.parametrize(
    ("name", "shown"), [("shop-web-1", "web-1"), ("my-shop", "my-shop"), ("db", "db")]
)
def test_labels_leave_out_the_project(name: str, shown: str) -> None:
    assert label(name) == shown


def test_times_may_be_ages_stamps_or_seconds() -> None:
    now = 1767323045.0  # 2026-01-02T03:04:05Z

    assert moment("10m", now) == time_key("2026-01-02T02:54:05Z")
    assert moment("1h30m", now) == time_key("2026-01-02T01:34:05Z")
    assert moment("1767323045", now) == time_key("2026-01-02T03:04:05Z")
    assert moment("2026-01-02T04:04:05+01:00", now) == time_key("2026-01-02T03:04:05Z")
    with pytest.raises(UsageError):
        moment("yesterday", now)


def test_times_of_any_precision_sort() -> None:
    assert time_key("2026-01-02T03:04:05.9Z") < time_key("2026-01-02T03:04:05.95Z")
    assert time_key("2026-01-02T03:04:05Z") < time_key("2026-01-02T03:04:05.000000001Z")
