"""What every command needs: the instance, the daemon, and the project meant.

A session reads its options once and does nothing until asked: no file is read and no
daemon is started by a command that needs neither.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Value
from orchestrator.cli.variables import Variables
from orchestrator.client import daemon
from orchestrator.client.http import Client, quote

if TYPE_CHECKING:
    from specs.loader import LoadedProject, LoadOptions

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
        self.value_files = _words(options["value_files"])
        self.settings = _words(options["settings"])
        self.strict = bool(options["strict"])
        self.variables = Variables(
            environ,
            cwd=cwd,
            directory=self.project_directory,
            files=self.files,
            env_files=self.env_files,
        )
        self.ansi = _text(options["ansi"]) or self.variables.get("COMPOSE_ANSI") or "auto"
        self.progress = (
            _text(options["progress"]) or self.variables.get("COMPOSE_PROGRESS") or "auto"
        )
        self.all_resources = bool(options["all_resources"])
        self.dry_run = bool(options["dry_run"])
        self.changes = False
        self._parallel = options["parallel"]
        if options["compatibility"] or self.variables.on("COMPOSE_COMPATIBILITY"):
            raise UsageError(
                "--compatibility (or COMPOSE_COMPATIBILITY) is not supported",
                hint="names of containers are joined by hyphens; container_name gives others",
            )
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

    @property
    def build_environ(self) -> dict[str, str]:
        """What builds may know of our environment."""
        names = ("SSH_AUTH_SOCK", "SOURCE_DATE_EPOCH", "DOCKER_DEFAULT_PLATFORM")
        return {name: self.environ[name] for name in names if self.environ.get(name)}

    @property
    def run_options(self) -> dict[str, str]:
        """What the global options ask of an operation, as the query of its request."""
        asked: dict[str, str] = {"dry_run": "1"} if self.dry_run else {}
        given = self._parallel
        if given is None:
            given = self.variables.get("COMPOSE_PARALLEL_LIMIT") or None
        if given is not None:
            asked["parallel"] = str(_parallel(given))
        return asked

    def load_options(self) -> dict[str, Any]:
        """The options that decide what a load gives, as they are noted beside its inputs."""
        return {
            "files": list(self.files),
            "project_directory": self.project_directory,
            "project_name": self.given_name,
            "profiles": list(self.profiles),
            "env_files": list(self.env_files),
            "value_files": list(self.value_files),
            "settings": list(self.settings),
            **({"all_resources": True} if self.all_resources else {}),
        }

    def remembered(self, services: tuple[str, ...] | None = None) -> dict[str, Any] | None:
        """The daemon's load of this very stack, when nothing it was made from has changed.

        `services` are those that were named on the command line, which enables their
        profiles; None takes a load whatever it was made for.
        """
        from orchestrator.cli import remembered

        if "-" in self.files or self.strict:
            return None
        return remembered.find(
            self.client,
            directory=self.cwd,
            options=self.load_options(),
            services=services,
            environ=self.environ,
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

    def load_request(
        self,
        services: tuple[str, ...] = (),
        **changes: Any,
    ) -> LoadOptions:
        """What the options of the command line mean to the loader; `changes` are switches of it."""
        from pathlib import Path

        from specs.loader import LoadOptions

        return LoadOptions(
            files=self.files,
            project_directory=self.project_directory,
            project_name=self.given_name,
            profiles=self.profiles,
            services=services,
            env_files=self.env_files,
            environ=dict(self.environ),
            cwd=Path(self.cwd),
            stdin=sys.stdin.read() if "-" in self.files else None,
            value_files=self.value_files,
            settings=self.settings,
            all_resources=self.all_resources,
            **changes,
        )

    def load(self, services: tuple[str, ...] = (), **changes: Any) -> LoadedProject:
        """Read the stack's files; prints the warnings, raises SpecError with all mistakes.

        What has no effect on this host is named in one line, or a mistake with `--strict`.
        """
        from orchestrator.cli.output import warn
        from specs.errors import SpecError
        from specs.loader import load_project

        loaded = load_project(self.load_request(services, **changes))
        if self.strict and loaded.unsupported:
            raise SpecError(loaded.unsupported)
        for issue in loaded.warnings:
            warn(str(issue))
        if loaded.unsupported:
            named = (f"{issue.path} {issue.message}" for issue in loaded.unsupported)
            warn(f"without effect: {'; '.join(named)}")
        return loaded

    def inputs(self, loaded: LoadedProject, services: tuple[str, ...]) -> dict[str, Any]:
        """What `loaded` was made from, for `remembered` to check a later time."""
        return {
            "directory": self.cwd,
            "options": self.load_options(),
            "services": list(services),
            "files": dict(loaded.inputs.files),
            "variables": dict(loaded.inputs.variables),
        }


_UNBOUNDED = 1_000_000


def _parallel(given: object) -> int:
    """--parallel as a number of actions; Compose's -1 is no bound."""
    try:
        number = int(float(str(given)))
    except ValueError:
        number = 0
    if number == 0 or number < -1:
        raise UsageError(f"--parallel {given}: it must be a number from 1 on, or -1")
    return _UNBOUNDED if number == -1 else number


def _text(value: Value) -> str | None:
    return None if value is None else str(value)


def _words(value: Value) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()
