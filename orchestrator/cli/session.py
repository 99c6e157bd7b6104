"""What every command needs: the instance, the daemon, and the project meant.

A session reads its options once and does nothing until asked: no file is read and no
daemon is started by a command that needs neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.cli.options import Value
from orchestrator.client import daemon
from orchestrator.client.http import Client, quote

if TYPE_CHECKING:
    from specs.loader import LoadedProject

DEFAULT_ROOT = "/var/lib/bayplan"
DEFAULT_RUN = "/run/bayplan"


class Session:
    """One command's view of the world; `options` are the global options' values."""

    def __init__(
        self, options: Mapping[str, Value], *, environ: Mapping[str, str], cwd: str
    ) -> None:
        self.environ = environ
        self.cwd = cwd
        self.root = self._directory(options["root"], "BAYPLAN_ROOT", DEFAULT_ROOT)
        self.run = self._directory(options["run"], "BAYPLAN_RUN", DEFAULT_RUN)
        self.files = _words(options["files"])
        self.given_name = _text(options["project_name"])
        self.project_directory = _text(options["project_directory"])
        self.profiles = _words(options["profiles"])
        self.env_files = _words(options["env_files"])
        self.ansi = _text(options["ansi"]) or environ.get("COMPOSE_ANSI") or "auto"
        self.progress = _text(options["progress"]) or environ.get("COMPOSE_PROGRESS") or "auto"
        self._client: Client | None = None

    def _directory(self, given: Value, variable: str, default: str) -> str:
        chosen = _text(given) or self.environ.get(variable) or default
        return os.path.normpath(os.path.join(self.cwd, chosen))

    @property
    def client(self) -> Client:
        """The daemon's client; starts the daemon when none answers."""
        if self._client is None:
            self._client = daemon.ensure(self.root, self.run)
        return self._client

    def load_options(self) -> dict[str, Any]:
        """The options that decide what a load gives, as they are noted beside its inputs."""
        return {
            "files": list(self.files),
            "project_directory": self.project_directory,
            "project_name": self.given_name,
            "profiles": list(self.profiles),
            "env_files": list(self.env_files),
        }

    def remembered(self) -> dict[str, Any] | None:
        """The daemon's load of this very stack, when nothing it was made from has changed."""
        from orchestrator.cli import remembered

        return remembered.find(
            self.client, directory=self.cwd, options=self.load_options(), environ=self.environ
        )

    def project_name(self) -> str:
        """The project meant: as given, else as remembered, else as the files say."""
        given = self.given_name or self.environ.get("COMPOSE_PROJECT_NAME")
        if given:
            return given
        load = self.remembered()
        return str(load["project"]) if load else str(self.load().project.name)

    def project_path(self, suffix: str, name: str | None = None) -> str:
        return f"/v1/projects/{quote(name or self.project_name())}/{suffix}"

    def load(self) -> LoadedProject:
        """Read the stack's files; prints the warnings, raises SpecError with all mistakes."""
        from pathlib import Path

        from orchestrator.cli.output import warn
        from specs.loader import LoadOptions, load_project

        loaded = load_project(
            LoadOptions(
                files=self.files,
                project_directory=self.project_directory,
                project_name=self.given_name,
                profiles=self.profiles,
                env_files=self.env_files,
                environ=dict(self.environ),
                cwd=Path(self.cwd),
            )
        )
        for issue in loaded.warnings:
            warn(str(issue))
        return loaded

    def inputs(self, loaded: LoadedProject) -> dict[str, Any]:
        """What `loaded` was made from, for `remembered` to check a later time."""
        return {
            "directory": self.cwd,
            "options": self.load_options(),
            "files": dict(loaded.inputs.files),
            "variables": dict(loaded.inputs.variables),
        }


def _text(value: Value) -> str | None:
    return None if value is None else str(value)


def _words(value: Value) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()
