"""Durations, sizes, ports, mounts, devices, commands and env files."""

from __future__ import annotations

import pytest

from specs import dotenv, notation, shellwords, units
from specs.errors import SpecError
from specs.golang import float32, format_float, json_number
from specs.source import Source


@pytest.mark.parametrize(
    ("text", "seconds", "printed"),
    [
        ("10s", 10, "10s"),
        ("1m30s", 90, "1m30s"),
        ("1h", 3600, "1h0m0s"),
        ("1.5s", 1.5, "1.5s"),
        ("250ms", 0.25, "250ms"),
        ("2d", 172800, "48h0m0s"),
        ("0", 0, "0s"),
    ],
)
def test_durations_are_read_and_printed(text: str, seconds: float, printed: str) -> None:
    assert units.parse_duration(text) == seconds * 10**9
    assert units.format_duration(units.parse_duration(text)) == printed


@pytest.mark.parametrize("text", ["", "10", "s", "1x", "1h30", "1 s", "--1s", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64m", 2**26), ("1.5gb", 3 * 2**29), ("512", 512), ("10 MiB", 10 * 2**20), ("2k", 2048)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "1x", "-1", "1mm", "1ibm", "9" * 40 + "g"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|digits"):
        units.parse_size(text)


def test_a_port_range_becomes_one_entry_for_each_port() -> None:
    entries = notation.parse_ports("127.0.0.1:8000-8001:80-81/udp")
    assert [(e["published"], e["target"]) for e in entries] == [("8000", 80), ("8001", 81)]
    assert {(e["host_ip"], e["protocol"]) for e in entries} == {("127.0.0.1", "udp")}


def test_one_container_port_may_be_published_on_any_of_a_range() -> None:
    assert notation.parse_ports("8000-8002:80")[0]["published"] == "8000-8002"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("70000:80", "published port 70000 is out of range 1–65535"),
        ("80:80/icmp", "protocol 'icmp'"),
        ("80-81:80-82", "ranges of different lengths"),
        ("82-80", "runs backwards"),
        ("host:80:80", "not an IP address"),
        ("80:", "no container port"),
        ("a", "is not a number"),
    ],
)
def test_a_wrong_port_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        notation.parse_ports(text)


def test_a_source_that_looks_like_a_path_is_a_bind_mount() -> None:
    assert notation.parse_mount("./a:/b:ro")[0] == {
        "type": "bind",
        "source": "./a",
        "target": "/b",
        "read_only": True,
        "bind": {"create_host_path": True},
    }
    assert notation.parse_mount("data:/d")[0]["type"] == "volume"
    assert "source" not in notation.parse_mount("/d")[0]


def test_mount_options_without_a_meaning_are_told() -> None:
    assert notation.parse_mount("a:/b:ro,fast")[1] == ["fast"]


@pytest.mark.parametrize("text", ["", ":/a", "a:", "a:b:c:d"])
def test_a_wrong_mount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"empty|colons"):
        notation.parse_mount(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("echo 'a b' \"c d\"", ("echo", "a b", "c d")),
        ("a\\ b c", ("a b", "c")),
        ("sh -c 'x && y'", ("sh", "-c", "x && y")),
        ("echo ''", ("echo", "")),
        ("a; b", ("a",)),
    ],
)
def test_commands_are_split_into_words(line: str, words: tuple[str, ...]) -> None:
    assert shellwords.split(line) == words


def test_a_command_that_ends_early_can_be_told() -> None:
    assert shellwords.ends_early("echo 'a;b'; c") == ";"
    assert shellwords.ends_early("echo 'a;b'") is None


def env(text: str, **surroundings: str) -> dict[str, str]:
    return dotenv.parse(Source(".env", text), surroundings.get)


def test_env_files_know_quotes_comments_export_and_several_lines() -> None:
    text = "export A=1 # c\nB='x # y'\nC=\"one\ntwo\"\nD: e\n# F=1\nG=a#b\n"
    assert env(text) == {"A": "1", "B": "x # y", "C": "one\ntwo", "D": "e", "G": "a#b"}


def test_env_files_refer_to_the_surroundings_first_and_then_to_themselves() -> None:
    assert env("A=1\nB=$A$C\n", C="c") == {"A": "1", "B": "1c"}
    assert env("A=1\nB=$A\n", A="shell")["B"] == "shell"


def test_single_quotes_are_literal_and_double_quotes_have_escapes() -> None:
    assert env("A='$X\\n'\nB=\"\\n\\$X\\x\"\n") == {"A": "$X\\n", "B": "\n$X\\x"}


def test_a_bare_key_takes_its_value_from_the_surroundings_or_is_left_out() -> None:
    assert env("A\nB\n", A="1") == {"A": "1"}


def test_a_fault_of_an_env_file_has_its_line() -> None:
    with pytest.raises(SpecError, match=r"\.env:2:3: unterminated quoted value"):
        env("A=1\nB='x\n")


def test_the_raw_format_takes_values_as_they_are() -> None:
    assert dotenv.parse_raw(Source("e", 'A="x" # c\n#B=1\n')) == {"A": '"x" # c'}


def test_numbers_are_printed_as_go_prints_them() -> None:
    values = (1.1, 1e21, 100000.0, 1e6, 0.0001, 0.00001)
    assert [format_float(v) for v in values] == [
        "1.1",
        "1e+21",
        "100000",
        "1e+06",
        "0.0001",
        "1e-05",
    ]
    assert [json_number(v) for v in (1e6, 1e21, 1e-7)] == ["1000000", "1e+21", "1e-7"]
    assert float32(0.1) == 0.1


def test_a_fault_of_an_env_file_does_not_show_its_text() -> None:
    for text in ("PASSWORD='hunter2\n", "PASSWORD=hunter2${\n"):
        with pytest.raises(SpecError) as caught:
            env(text)
        assert "hunter2" not in str(caught.value)
