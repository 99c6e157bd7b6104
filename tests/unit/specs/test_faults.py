"""What is wrong with a spec: all of it at once, where it stands, and what to do."""

from __future__ import annotations

import pytest

from specs.errors import SpecError, SpecIssue
from tests.unit.specs.conftest import Load


def refuse(load: Load, files: str | dict[str, str]) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load(files)
    return caught.value


def test_an_issue_shows_its_place_its_line_and_a_caret() -> None:
    issue = SpecIssue(
        message="published port 70000 is out of range 1–65535",
        path="services.web.ports[0]",
        file="compose.yaml",
        line=14,
        column=7,
        source_line='    - "70000:80"',
    )
    assert str(issue).splitlines() == [
        "compose.yaml:14:7: services.web.ports[0]: published port 70000 is out of range 1–65535",
        '        - "70000:80"',
        "          ^",
    ]


def test_a_long_line_is_cut_around_the_caret() -> None:
    issue = SpecIssue(message="m", file="f", line=1, column=300, source_line="x" * 299 + "!" * 300)
    line, caret = str(issue).splitlines()[1:]
    assert len(line) < 140
    assert line[caret.index("^")] == "!"


def test_several_faults_come_in_one_pass_sorted_by_position(load: Load) -> None:
    error = refuse(
        load,
        "services:\n  web:\n    imagee: x\n    ports: 80\n    tty: 3\n  db: {image: [1]}\n",
    )
    assert [(issue.line, issue.path) for issue in error.issues] == [
        (3, "services.web"),
        (4, "services.web.ports"),
        (5, "services.web.tty"),
        (6, "services.db.image"),
    ]


def test_an_unknown_key_is_refused_with_the_one_that_was_meant(load: Load) -> None:
    error = refuse(load, "services:\n  web:\n    imagee: x\n")
    assert error.issues[0].message == 'unknown key "imagee"'
    assert error.issues[0].column == 5
    assert error.hint == 'did you mean "image"?'


@pytest.mark.parametrize(
    ("spec", "path", "message", "hint"),
    [
        (
            "services:\n  a: {image: x, depends_on: [databse]}\n  database: {image: y}\n",
            "services.a.depends_on.databse",
            'service "databse" is not defined',
            'did you mean "database"?',
        ),
        (
            "services:\n  a: {image: x, networks: [frnt]}\nnetworks: {front: }\n",
            "services.a.networks.frnt",
            'network "frnt" is not defined',
            'did you mean "front"?',
        ),
        (
            "services:\n  a: {image: x, volumes: ['dat:/d']}\nvolumes: {data: }\n",
            "services.a.volumes[0]",
            'volume "dat" is not defined',
            'did you mean "data"?',
        ),
        (
            "services:\n  a: {image: x, restart: alway}\n",
            "services.a.restart",
            "'alway' is not one of no, always, on-failure, unless-stopped",
            'did you mean "always"?',
        ),
        (
            "services:\n  a: {image: x, extends: basee}\n  base: {image: y}\n",
            "services.a.extends",
            None,
            'did you mean "base"?',
        ),
    ],
)
def test_a_name_that_nothing_has_is_refused_with_the_one_that_was_meant(
    load: Load, spec: str, path: str, message: str | None, hint: str
) -> None:
    error = refuse(load, spec)
    assert error.issues[0].path == path
    if message is not None:
        assert error.issues[0].message == message
    assert error.hint == hint


def test_values_that_the_models_cannot_read_are_refused_at_their_place(load: Load) -> None:
    error = refuse(
        load, "services:\n  a:\n    image: x\n    mem_limit: lots\n    stop_grace_period: 10\n"
    )
    assert error.issues[0].line == 5  # the grammar speaks first: a duration is a string
    error = refuse(
        load,
        "services:\n  a:\n    image: x\n    mem_limit: lots\n    stop_grace_period: ten\n",
    )
    assert [(i.line, i.column) for i in error.issues] == [(4, 16), (5, 24)]


def test_a_wrong_port_is_refused_at_its_item(load: Load) -> None:
    error = refuse(load, 'services:\n  a:\n    image: x\n    ports:\n      - "70000:80"\n')
    issue = error.issues[0]
    assert (issue.line, issue.column, issue.path) == (5, 9, "services.a.ports[0]")
    assert issue.message == "published port 70000 is out of range 1–65535"


def test_cycles_are_printed_as_a_path(load: Load) -> None:
    error = refuse(
        load,
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n"
        "  c: {image: x, links: [a]}\n",
    )
    assert error.issues[0].message == "dependency cycle: a → b → c → a"
    error = refuse(load, "services:\n  a: {extends: b}\n  b: {extends: a}\n")
    assert "extends cycle: " in error.issues[0].message
    files = {"compose.yaml": "include: [o.yaml]\n", "o.yaml": "include: [compose.yaml]\n"}
    assert "include cycle: " in refuse(load, files).issues[0].message


def test_a_fault_of_an_included_or_extended_file_stands_in_that_file(load: Load) -> None:
    files = {
        "compose.yaml": "include: [sub/o.yaml]\nservices:\n  a: {image: x}\n",
        "sub/o.yaml": "services:\n  b:\n    imagee: y\n",
    }
    issue = refuse(load, files).issues[0]
    assert issue.file is not None and issue.file.endswith("sub/o.yaml")
    assert issue.line == 3


def test_a_missing_file_is_told_where_it_was_asked_for(load: Load) -> None:
    issue = refuse(load, "services:\n  a: {extends: {file: no.yaml, service: b}}\n").issues[0]
    assert (issue.path, issue.line) == ("services.a.extends", 2)
    issue = refuse(load, "services:\n  a:\n    image: x\n    env_file: no.env\n").issues[0]
    assert (issue.path, issue.line) == ("services.a.env_file[0]", 4)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("network_mode: host, networks: [n]", "exclude each other"),
        ("scale: 2, deploy: {replicas: 3}", "scale and deploy.replicas differ"),
        ("scale: 2, container_name: cc", "can name one container only"),
        ("cpus: 1, deploy: {resources: {limits: {cpus: '2'}}}", "cpus and deploy"),
        ("tmpfs: [/a], volumes: ['./a:/a']", "already mounted by tmpfs"),
        ("healthcheck: {test: [curl, x]}", "test must start with one of"),
        ("develop: {watch: [{path: ., action: sync}]}", "needs a target"),
        ("build: {context: ., dockerfile: D, dockerfile_inline: F}", "exclude each other"),
        ("scale: -1", "must not be negative"),
    ],
)
def test_rules_between_attributes(load: Load, attributes: str, message: str) -> None:
    error = refuse(load, f"services:\n  a: {{image: x, {attributes}}}\nnetworks: {{n: }}\n")
    assert message in error.issues[0].message


def test_secrets_values_are_never_shown(load: Load) -> None:
    with pytest.raises(SpecError) as caught:
        load(
            "services:\n  a: {image: x, secrets: [s, t]}\nsecrets: {s: {environment: S}}\n",
            environ={"S": "hidden"},
        )
    assert "hidden" not in str(caught.value)


def test_a_warning_does_not_refuse(load: Load) -> None:
    loaded = load("version: '3'\nservices:\n  a: {image: 'x${NOPE}', volumes: ['./a:/a:quick']}\n")
    assert [warning.path for warning in loaded.warnings] == [
        "services.a.image",
        "version",
        "services.a.volumes[0]",
    ]


def test_each_of_several_faults_is_told_with_its_own_hint(load: Load) -> None:
    error = refuse(load, "services:\n  a: {imagee: x}\n  b: {portz: []}\n")
    assert error.hint is None
    assert 'unknown key "imagee" (did you mean "image"?)' in str(error)
    assert 'unknown key "portz" (did you mean "ports"?)' in str(error)


def test_a_command_that_ends_at_an_operator_warns(load: Load) -> None:
    loaded = load("services:\n  a: {image: x, command: echo a; echo b}\n")
    assert loaded.project.services["a"].command == ("echo", "a")
    assert "ends at its unquoted ';'" in loaded.warnings[0].message


@pytest.mark.parametrize(
    ("spec", "column", "where"),
    [
        ("include: [sub]", 11, "include[0]"),
        ("services: {a: {extends: {file: sub, service: x}}}", 25, "services.a.extends"),
        ("services: {a: {image: x, env_file: sub}}", 36, "services.a.env_file[0]"),
        ("services: {a: {image: x, label_file: sub}}", 38, "services.a.label_file[0]"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_where_it_was_asked_for(
    load: Load, spec: str, column: int, where: str
) -> None:
    error = refuse(load, {"compose.yaml": spec, "sub/file": ""})
    (issue,) = error.issues
    assert (issue.line, issue.column, issue.path) == (1, column, where)
    assert "is a directory" in issue.message


def test_a_namespace_of_a_service_that_is_not_there_is_told_once(load: Load) -> None:
    error = refuse(load, "services: {a: {image: x, network_mode: service:missing}}\n")
    assert [issue.path for issue in error.issues] == ["services.a.network_mode"]
