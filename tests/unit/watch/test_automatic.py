"""Rules from a Dockerfile and mounts, for services that declare none."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.engine.build_files import BuildError, copied
from orchestrator.watch.errors import WatchError
from orchestrator.watch.rules import Action
from tests.unit.watch.test_rules import follow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "src" / "static").mkdir(parents=True)
    for name in ("requirements.txt", "package.json", "package-lock.json", "app.py", "b.py"):
        (tmp_path / name).write_text("")
    return tmp_path


def copies(here: Path, dockerfile: str, **build: object) -> list[tuple[str, str, str | None]]:
    """Source, pattern and target of what the Dockerfile copies."""
    (here / "Dockerfile").write_text(dockerfile)
    found = copied({"context": str(here), **build}, lambda image: "/base")
    return [(one.source, one.include, one.target) for one in found]


def test_what_a_run_comes_after_is_input_of_the_build(here: Path) -> None:
    assert copies(
        here,
        "FROM python\nWORKDIR /app\nCOPY requirements.txt .\nRUN pip install\nCOPY src ./src\n",
    ) == [("requirements.txt", "", None), ("src", "", "/app/src")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("COPY . .", ("", "", "/base")),
        ("COPY app.py .", ("app.py", "", "/base/app.py")),
        ("COPY app.py /opt/", ("app.py", "", "/opt/app.py")),
        ("COPY app.py /opt/main.py", ("app.py", "", "/opt/main.py")),
        ("COPY ./src /srv/", ("src", "", "/srv")),
        ("COPY --chown=1:1 src/ /srv", ("src", "", "/srv")),
        ("COPY *.py /srv/", ("", "*.py", "/srv")),
        ("COPY src/* /srv/", ("src", "*", None)),
        ("COPY --parents src/static /srv/", ("src/static", "", None)),
        ("ADD app.py /srv/", ("app.py", "", "/srv/app.py")),
        ("COPY ${DIR}/static /srv", ("src/static", "", "/srv")),
    ],
)
def test_copies_end_up_where_docker_puts_them(
    here: Path, line: str, expected: tuple[str, str, str | None]
) -> None:
    assert copies(here, f"FROM x\nARG DIR\nENV A=1\n{line}\n", args={"DIR": "src"}) == [expected]


def test_other_stages_and_addresses_are_told_apart(here: Path) -> None:
    dockerfile = (
        "FROM node AS build\nCOPY package*.json ./\nRUN npm ci\nCOPY src ./src\n"
        "FROM x AS unused\nCOPY app.py /\n"
        "FROM x AS base\nWORKDIR /srv\n"
        "FROM base\nCOPY --from=build /dist ./\nADD https://example.org/a.tar /\n"
        "COPY <<text /made\nmade\ntext\nCOPY b.py ./\n"
    )
    assert copies(here, dockerfile) == [
        ("", "package*.json", None),
        ("src", "", None),
        ("b.py", "", "/srv/b.py"),
    ]


def test_what_a_run_mounts_is_input_of_the_build(here: Path) -> None:
    dockerfile = "FROM x\nRUN --mount=type=bind,source=src,target=/s make\nCOPY app.py /\n"
    assert copies(here, dockerfile) == [("src", "", None), ("app.py", "", "/app.py")]


def test_an_archive_that_is_unpacked_means_a_rebuild(here: Path) -> None:
    import tarfile

    with tarfile.open(here / "a.tar", "w") as archive:
        archive.add(here / "app.py", "app.py")
    assert copies(here, "FROM x\nADD a.tar /srv/\n") == [("a.tar", "", None)]


def test_a_damaged_dockerfile_is_named(here: Path) -> None:
    with pytest.raises(BuildError):
        copies(here, "COPY a b\n")
    with pytest.raises(WatchError, match="service web: no rules can be derived"):
        follow(here, "services: {web: {build: .}}\n", auto=True)


def test_services_get_rules_of_their_own_where_they_declare_none(here: Path) -> None:
    (here / "Dockerfile").write_text(
        "FROM x\nWORKDIR /app\nCOPY requirements.txt .\nRUN pip\nCOPY src ./\n"
    )
    text = (
        "services:\n"
        "  web: {build: .}\n"
        "  own: {build: ., develop: {watch: [{action: rebuild, path: ./src}]}}\n"
        "  store: {image: y, volumes: ['./app.py:/a:ro', './src:/data', './b.py:/b']}\n"
    )
    found = follow(here, text, auto=True).rules

    shown = {(rule.service, rule.action, Path(rule.path).name, rule.target) for rule in found.rules}
    assert shown == {
        ("web", Action.REBUILD, "Dockerfile", ""),
        ("web", Action.REBUILD, "Dockerfile.dockerignore", ""),
        ("web", Action.REBUILD, ".dockerignore", ""),
        ("web", Action.REBUILD, "requirements.txt", ""),
        ("web", Action.SYNC, "src", "/app"),
        ("own", Action.REBUILD, "src", ""),
        ("store", Action.RESTART, "app.py", ""),
        ("store", Action.RESTART, "b.py", ""),
    }
    assert any("is mounted writable" in remark for remark in found.remarks)
    restarting = follow(here, text, auto=True, restart=True).rules
    assert {rule.action for rule in restarting.of("web")} == {Action.REBUILD, Action.SYNC_RESTART}
