"""Which change of which file concerns which service, and where it belongs in the container."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.watch.errors import WatchError
from orchestrator.watch.forest import Change
from orchestrator.watch.rules import Action, Rules
from orchestrator.watch.spec import Course, Spec, Wishes, course
from orchestrator.watch.work import Work, divide
from tests.unit.watch.stacks import load


def follow(directory: Path, text: str, **wishes: object) -> Course:
    project = load(directory, text)
    spec = Spec(project=project, inputs={"files": {str(directory / "compose.yaml"): ""}})
    return course(spec, Wishes(**wishes), lambda image: "/base")  # type: ignore[arg-type]


def rules(directory: Path, watch: str, more: str = "build: .") -> Rules:
    return follow(
        directory, f"services: {{web: {{{more}, develop: {{watch: [{watch}]}}}}}}\n"
    ).rules


def work(found: Rules, *changed: Path, gone: tuple[Path, ...] = ()) -> Work:
    """What these changes ask of the service web."""
    changes = [Change(str(path), "file", there=False) for path in gone]
    changes += [
        Change(str(path), "directory" if path.is_dir() else "file", there=True) for path in changed
    ]
    return divide(changes, found.rules, 1.0).get("web", Work(since=1.0))


def targets(found: Rules, *changed: Path, gone: tuple[Path, ...] = ()) -> list[str]:
    return [change.target for change in work(found, *changed, gone=gone).files.values()]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def test_a_path_belongs_below_the_target(here: Path) -> None:
    found = rules(here, "{action: sync, path: ./src, target: /srv/app}")

    assert targets(found, here / "src" / "deep" / "a.py") == ["/srv/app/deep/a.py"]
    assert targets(found, here / "src") == ["/srv/app"]
    assert targets(found, here / "elsewhere.py", here / "srcs" / "a.py") == []


@pytest.mark.parametrize(
    ("target", "expected"), [("/etc/app.conf", "/etc/app.conf"), ("/etc/", "/etc/a.conf")]
)
def test_a_single_file_may_be_named(here: Path, target: str, expected: str) -> None:
    found = rules(here, f"{{action: sync, path: ./a.conf, target: {target}}}")

    assert targets(found, here / "a.conf") == [expected]


def test_ignored_files_are_left_out_in_the_syntax_of_dockerignore(here: Path) -> None:
    found = rules(
        here,
        "{action: sync, path: ./src, target: /srv, ignore: ['*.log', tmp/, '!tmp/keep.txt']}",
    )
    source = here / "src"

    assert targets(found, source / "a.log", source / "tmp" / "x") == []
    assert targets(found, source / "deep" / "a.log") == ["/srv/deep/a.log"]
    assert targets(found, source / "tmp" / "keep.txt") == ["/srv/tmp/keep.txt"]
    assert found.wanted(str(source / "tmp"), True)
    assert not found.wanted(str(source / "a.log"), True)


def test_what_the_build_context_leaves_out_is_left_out(here: Path) -> None:
    (here / ".dockerignore").write_text("# not these\nsrc/secret\nDockerfile\n")
    found = rules(
        here,
        "{action: sync, path: ./src, target: /srv}, {action: rebuild, path: ./Dockerfile}",
    )

    assert targets(found, here / "src" / "secret" / "key") == []
    # What a rule names itself is meant.
    assert work(found, here / "Dockerfile").rebuild


def test_a_rule_for_what_is_left_out_is_remarked_on(here: Path) -> None:
    (here / ".dockerignore").write_text("src\n")
    found = rules(here, "{action: sync, path: ./src, target: /srv}")

    assert "left out by the ignore file" in found.remarks[0]


def test_included_files_alone_count_where_they_are_named(here: Path) -> None:
    found = rules(here, "{action: sync, path: ./src, target: /srv, include: '**/*.py'}")

    assert targets(found, here / "src" / "a.js") == []
    assert targets(found, here / "src" / "deep" / "a.py") == ["/srv/deep/a.py"]


@pytest.mark.parametrize(
    "name",
    [
        *(".git/index", ".idea/x.xml", "a.py~", ".a.py.swp", "4913", ".#a.py", "#a.py#"),
        *("deep/__pycache__/a.pyc", "a.py___jb_tmp___", ".goutputstream-XYZ", ".bayplan-0123"),
    ],
)
def test_what_editors_and_repositories_leave_behind_never_counts(here: Path, name: str) -> None:
    found = rules(here, "{action: sync, path: ./src, target: /srv}")

    assert targets(found, here / "src" / name) == []


def test_several_rules_make_one_piece_of_work(here: Path) -> None:
    found = rules(
        here,
        "{action: sync+restart, path: ./src, target: /srv}, {action: restart, path: ./src}, "
        "{action: sync, path: ./src, target: /copy}, "
        "{action: sync+exec, path: ./src/deep, target: /d, exec: {command: reload}}",
    )
    one = work(found, here / "src" / "deep" / "a.py")

    assert one.action is Action.SYNC_RESTART
    assert sorted(change.target for change in one.files.values()) == [
        "/copy/deep/a.py",
        "/d/a.py",
        "/srv/deep/a.py",
    ]
    assert [command.argv for command in one.commands] == [("reload",)]


def test_a_new_empty_directory_restarts_nothing(here: Path) -> None:
    found = rules(here, "{action: sync+restart, path: ./src, target: /srv}")
    one = work(found, here / "src" / "deep")

    assert targets(found, here / "src" / "deep") == ["/srv/deep"]
    assert not one.restart


def test_files_of_fall_back_on_mean_a_rebuild_in_place_of_a_sync(here: Path) -> None:
    found = rules(
        here,
        "{action: sync, path: ./src, target: /srv}",
        "build: ., x-bayplan: {fall_back_on: src/requirements.txt}",
    )

    assert work(found, here / "src" / "requirements.txt").action is Action.REBUILD
    assert work(found, here / "src" / "a.py").action is Action.SYNC


def test_nothing_is_copied_to_where_it_is_mounted(here: Path) -> None:
    found = rules(
        here,
        "{action: sync+restart, path: ./src, target: /srv}",
        "image: x, volumes: ['./src:/srv']",
    )
    one = work(found, here / "src" / "a.py")

    assert (one.restart, one.files) == (True, {})
    assert "is mounted into the container" in found.remarks[0]


@pytest.mark.parametrize(
    ("watch", "more", "message"),
    [
        ("{action: rebuild, path: .}", "image: x", "no build section"),
        ("{action: sync, path: ., target: /x, ignore: ['[']}", "image: x", "open character class"),
        ("{action: sync+exec, path: ., target: /x}", "image: x", "sync+exec needs exec.command"),
        (
            "{action: restart, path: .}",
            "image: x, x-bayplan: {fall_back_on: [a]}",
            "fall_back_on: the service has no build section",
        ),
        (
            "{action: restart, path: .}",
            "build: ., x-bayplan: {fall_back_on: {a: b}}",
            "fall_back_on must be a list of paths",
        ),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(
    here: Path, watch: str, more: str, message: str
) -> None:
    with pytest.raises(WatchError, match=message.replace("+", "[+]")):
        rules(here, watch, more)


def test_nothing_to_watch_is_an_error_with_a_way_out(here: Path) -> None:
    with pytest.raises(WatchError, match="none of the services") as caught:
        follow(here, "services: {web: {image: x}}\n")
    assert "--auto" in str(caught.value.hint)
    with pytest.raises(WatchError, match="no such service: other"):
        follow(here, "services: {web: {image: x}}\n", services=("other",))


def test_the_files_that_rules_are_made_from_are_watched_too(here: Path) -> None:
    found = follow(
        here, "services: {web: {build: ., develop: {watch: [{action: rebuild, path: ./src}]}}}\n"
    )

    assert {str(here / name) for name in ("compose.yaml", ".dockerignore", "Dockerfile")} <= (
        found.files
    )


def test_a_removal_and_what_comes_after_it_keep_their_order(here: Path) -> None:
    found = rules(here, "{action: sync, path: ./src, target: /srv}")
    path = str(here / "src" / "a")
    changes = [
        Change(path, "directory", there=False),
        Change(path, "file", there=True),
    ]
    one = divide(changes, found.rules, 1.0)["web"]
    assert [type(change).__name__ for change in one.files.values()] == ["Delete", "Put"]
    # What comes later makes both void.
    one.merge(divide([Change(path, "file", there=False)], found.rules, 2.0)["web"])
    assert [type(change).__name__ for change in one.files.values()] == ["Delete"]
    assert one.since == 1.0
