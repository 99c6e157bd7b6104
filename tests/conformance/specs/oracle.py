"""The reference implementation, asked what it makes of a spec, and a comparison with ours.

The executable comes in a wheel; its `config` command needs no engine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specs import rendering, selection
from specs.errors import SpecError
from specs.loader import LoadOptions, load_project
from specs.project import Project

EXECUTABLE = Path(sys.executable).with_name("docker-compose")
CORPUS = (Path(__file__).parents[3] / "../shared/corpora/compose").resolve()

BASE_ENVIRONMENT = {"HOME": "/home/someone", "PATH": "/usr/bin:/bin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Files, and how they are loaded. `options` are those of LoadOptions, in short words."""

    name: str
    files: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**BASE_ENVIRONMENT, **self.options.get("env", {})}

    def write(self, directory: Path) -> None:
        for name, text in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the reference implementation printed; `output` None means that it refused."""

    output: str | None
    complaint: str


def ask(case: Case, directory: Path, *, form: str = "json") -> Answer:
    """The reference implementation's `config` for a case written into `directory`."""
    command = [str(EXECUTABLE)]
    for option, flag in (("files", "-f"), ("profiles", "--profile"), ("env_files", "--env-file")):
        for value in case.options.get(option, ()):
            command += [flag, value]
    if "name" in case.options:
        command += ["-p", case.options["name"]]
    if "directory" in case.options:
        command += ["--project-directory", case.options["directory"]]
    command += ["config", "--format", form, *case.options.get("services", ())]
    result = subprocess.run(
        command,
        cwd=directory,
        env=case.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = [line for line in result.stderr.splitlines() if "level=warning" not in line]
    return Answer(
        output=result.stdout if result.returncode == 0 else None,
        complaint=" ".join(lines[-2:]),
    )


def load(case: Case, directory: Path) -> Project:
    """Our project for the same case. Raises SpecError."""
    options = case.options
    loaded = load_project(
        LoadOptions(
            files=tuple(options.get("files", ())),
            profiles=tuple(options.get("profiles", ())),
            services=tuple(options.get("services", ())),
            env_files=tuple(options.get("env_files", ())),
            project_name=options.get("name"),
            project_directory=options.get("directory"),
            environ=case.environment,
            cwd=directory,
        )
    )
    return selection.select(loaded.project, options.get("services", ()))


def differences(case: Case, directory: Path, answer: Answer) -> list[str]:
    """Where our result and the reference implementation's differ; empty when they agree."""
    try:
        project = load(case, directory)
    except SpecError as exc:
        return [] if answer.output is None else [f"refused by us alone: {exc}"]
    if answer.output is None:
        return [f"refused by the reference implementation alone: {answer.complaint}"]
    return list(compare(json.loads(rendering.render_json(project)), json.loads(answer.output), ""))


def compare(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """The places at which two JSON documents differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            if key not in ours:
                yield f"{path}.{key}: only theirs: {theirs[key]!r}"
            elif key not in theirs:
                yield f"{path}.{key}: only ours: {ours[key]!r}"
            else:
                yield from compare(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            yield from compare(left, right, f"{path}[{index}]")
    elif isinstance(ours, bool) is not isinstance(theirs, bool) or ours != theirs:
        yield f"{path}: ours {ours!r}, theirs {theirs!r}"


def corpus_files() -> list[Path]:
    """Every file of the corpus, sorted; empty when it is not there."""
    return sorted(CORPUS.glob("*/*.y*ml")) + sorted(CORPUS.glob("*/*/*.y*ml"))
