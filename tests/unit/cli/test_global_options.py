"""Options that every command takes, and the variables that stand for them."""

from pathlib import Path

import pytest

from orchestrator.cli import app, dry
from orchestrator.cli.arguments import Line
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import GLOBAL_OPTIONS, Command, Group, Value
from orchestrator.cli.session import Session
from orchestrator.cli.table import find


def _session(cwd: Path, environ: dict[str, str] | None = None, **options: Value) -> Session:
    given = {option.name: option.default for option in GLOBAL_OPTIONS}
    return Session({**given, **options}, environ=environ or {}, cwd=str(cwd))


def test_variables_come_from_the_environment_and_else_from_the_projects_env_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "compose.yaml").touch()
    (tmp_path / ".env").write_text('COMPOSE_PROGRESS="plain" # how\nCOMPOSE_ANSI=never\n')
    below = tmp_path / "below" / "further"
    below.mkdir(parents=True)
    for place in (tmp_path, below):
        session = _session(place, {"COMPOSE_ANSI": "always"})
        assert (session.progress, session.ansi) == ("plain", "always")
    assert _session(below, progress="json").progress == "json"
    assert _session(tmp_path, {"COMPOSE_DISABLE_ENV_FILE": "1"}).progress == "auto"

    (tmp_path / "other.env").write_text("COMPOSE_PROGRESS=quiet\n")
    assert _session(tmp_path, env_files=("other.env",)).progress == "quiet"
    elsewhere = tmp_path.parent
    assert _session(elsewhere, files=(f"{tmp_path.name}/compose.yaml",)).progress == "plain"
    assert _session(elsewhere, project_directory=tmp_path.name).progress == "plain"


@pytest.mark.parametrize("text", ["COMPOSE_PROGRESS='", "\udcff COMPOSE_PROGRESS", ""])
def test_a_faulty_env_file_is_left_to_the_load_of_the_project(tmp_path: Path, text: str) -> None:
    (tmp_path / "compose.yaml").touch()
    (tmp_path / ".env").write_text(text, errors="surrogateescape")
    assert _session(tmp_path).progress == "auto"


@pytest.mark.parametrize(("value", "on"), [("1", True), ("True", True), ("0", False), ("", False)])
def test_switches_are_read_as_in_compose(tmp_path: Path, value: str, on: bool) -> None:
    session = _session(tmp_path, {"COMPOSE_REMOVE_ORPHANS": value})
    assert session.variables.on("COMPOSE_REMOVE_ORPHANS") is on


def test_an_operation_is_told_how_many_actions_it_may_do_at_once(tmp_path: Path) -> None:
    limit = {"COMPOSE_PARALLEL_LIMIT": "3"}
    assert _session(tmp_path).run_options == {}
    assert _session(tmp_path, limit).run_options == {"parallel": "3"}
    assert _session(tmp_path, limit, parallel=5.0).run_options == {"parallel": "5"}
    assert int(_session(tmp_path, parallel=-1.0).run_options["parallel"]) > 10_000
    assert _session(tmp_path, dry_run=True).run_options == {"dry_run": "1"}
    for wrong in ("0", "-2", "many"):
        with pytest.raises(UsageError, match="must be a number from 1 on, or -1"):
            _ = _session(tmp_path, {"COMPOSE_PARALLEL_LIMIT": wrong}).run_options


def test_names_of_the_old_kind_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--compatibility"):
        _session(tmp_path, compatibility=True)
    with pytest.raises(UsageError, match="COMPOSE_COMPATIBILITY"):
        _session(tmp_path, {"COMPOSE_COMPATIBILITY": "true"})


def _command(*words: str) -> Command:
    found = find(words[0])
    if isinstance(found, Group):
        found = found.find(words[1])
    assert isinstance(found, Command)
    return found


@pytest.mark.parametrize("words", [("up",), ("down",), ("rm",), ("ps",), ("config",)])
def test_what_plans_or_only_looks_has_a_dry_run(words: tuple[str, ...]) -> None:
    dry.check(_command(*words))


@pytest.mark.parametrize(
    "words", [("run",), ("exec",), ("pull",), ("cp",), ("watch",), ("volume", "rm"), ("pause",)]
)
def test_what_would_act_all_the_same_refuses_a_dry_run(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"{words[-1]} has no --dry-run"):
        dry.check(_command(*words))


@pytest.mark.parametrize("line", [["publish", "--with-env", "x"], ["bridge", "convert"], ["alpha"]])
def test_commands_of_compose_that_are_not_here_are_refused_by_name(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def never(line: Line) -> int:
        raise AssertionError(line)

    assert app.run(line, never) == 1
    said = capsys.readouterr().err.splitlines()[0]
    assert line[0] in said and "provided" in said
