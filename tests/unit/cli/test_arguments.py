"""How command lines are read."""

import pytest

from orchestrator.cli.arguments import Line, NotUnderstood, parse
from orchestrator.cli.options import Argument, Command, Group, flag, number, repeated, text
from orchestrator.cli.session import Session


def _nothing(session: Session, **_: object) -> int:
    return 0


_LOGS = Command(
    "logs",
    _nothing,
    summary="",
    options=(
        flag("-f", "--follow", help=""),
        flag("-t", "--timestamps", help=""),
        text("-n", "--tail", help=""),
        number("--since", help=""),
        repeated("-e", "--env", help=""),
    ),
    arguments=(Argument("service", many=True, required=False, help=""),),
)
_EXEC = Command(
    "exec",
    _nothing,
    summary="",
    options=(flag("-T", name="no_tty", help=""),),
    arguments=(
        Argument("service", help=""),
        Argument("command", many=True, help=""),
    ),
    passthrough=True,
)
_RUN = Command("run", _nothing, summary="")
_LS = Command("ls", _nothing, summary="")
_DAEMON = Group("daemon", _LS, summary="", default=_RUN)
_VERBS: dict[str, Command | Group] = {"logs": _LOGS, "exec": _EXEC, "daemon": _DAEMON}


def _parse(line: str) -> Line:
    return parse(line.split(), _VERBS.get)


def test_flags_may_be_joined_and_values_may_stick_to_their_option() -> None:
    line = _parse("logs -ftn5 --since=2.5 -e A=1 --env B=2 web store")

    assert line.values == {
        "follow": True,
        "timestamps": True,
        "tail": "5",
        "since": 2.5,
        "env": ("A=1", "B=2"),
        "service": ("web", "store"),
    }


def test_global_options_stand_before_the_command_or_after_it() -> None:
    before = _parse("-f a.yaml --file b.yaml -p shop logs")
    after = _parse("logs -p shop --profile dev")

    assert before.options["files"] == ("a.yaml", "b.yaml")
    assert before.options["project_name"] == after.options["project_name"] == "shop"
    assert after.options["profiles"] == ("dev",)


def test_after_the_command_its_own_options_win_over_global_ones() -> None:
    line = _parse("-f a.yaml logs -f")

    assert line.options["files"] == ("a.yaml",)
    assert line.values["follow"] is True


def test_nothing_after_the_service_of_exec_is_an_option() -> None:
    line = _parse("exec -T web ls -l --all")

    assert line.values == {"no_tty": True, "service": "web", "command": ("ls", "-l", "--all")}


def test_two_dashes_end_the_options() -> None:
    assert _parse("logs -- -f").values["service"] == ("-f",)


def test_flags_take_true_and_false() -> None:
    assert _parse("logs --follow=false").values["follow"] is False
    assert _parse("logs --follow=true").values["follow"] is True


def test_a_group_has_verbs_and_may_run_without_one() -> None:
    assert _parse("daemon ls").command is _LS
    assert _parse("daemon").command is _RUN
    assert _parse("daemon --root /x").options["root"] == "/x"
    assert _parse("daemon --root /x ls").command is _LS


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-p",
        "nosuch",
        "logs --nosuch",
        "logs -x",
        "logs -n",
        "logs --since soon",
        "logs --follow=maybe",
        "logs --help",
        "exec",
        "exec web",
        "daemon ls more",
        "--ansi sometimes logs",
    ],
)
def test_what_is_not_understood_is_left_to_typer(line: str) -> None:
    with pytest.raises(NotUnderstood):
        _parse(line)
