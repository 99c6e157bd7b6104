"""The COMPOSE_* variables that the command itself heeds: of the environment, else of the project's
`.env`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

_ON = ("1", "true", "t", "yes", "y", "on")


class Variables:
    """Looks variables up; the `.env` is read at the first one that the environment lacks.

    `files` and `env_files` are those named on the command line, `directory` the project's where
    one is given; all may be relative to `cwd`.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        cwd: str,
        directory: str | None,
        files: Sequence[str],
        env_files: Sequence[str],
    ) -> None:
        self._environ = environ
        self._cwd = cwd
        self._directory = directory
        self._files = files
        self._env_files = env_files
        self._read: Mapping[str, str] | None = None

    def get(self, name: str) -> str:
        """The variable's value, empty where it is not set."""
        if name in self._environ:
            return self._environ[name]
        if self._read is None:
            self._read = self._of_files()
        return self._read.get(name, "")

    def on(self, name: str) -> bool:
        return self.get(name).strip().lower() in _ON

    def _of_files(self) -> dict[str, str]:
        if not self._env_files and self._environ.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in _ON:
            return {}
        values: dict[str, str] = {}
        for path in self._env_files or (os.path.join(self._project_directory(), ".env"),):
            try:
                with open(os.path.join(self._cwd, path), encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError):
                continue  # a load of the project says what is wrong with it
            if "COMPOSE_" in text:
                values |= _parse(path, text, self._environ)
        return values

    def _project_directory(self) -> str:
        """Where the `.env` lies: beside the first file, which may be above the directory."""
        if self._directory:
            return self._directory
        named = self._files or self._environ.get("COMPOSE_FILE", "").split(":")
        if named[0] and named[0] != "-":
            return os.path.dirname(os.path.join(self._cwd, named[0]))
        place = self._cwd
        while not any(os.path.exists(os.path.join(place, name)) for name in _NAMES):
            above = os.path.dirname(place)
            if above == place:
                return self._cwd
            place = above
        return place


# Those of specs.discovery, which costs more to import than most commands take.
_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")


def _parse(path: str, text: str, environ: Mapping[str, str]) -> dict[str, str]:
    from specs import dotenv
    from specs.errors import SpecError
    from specs.source import Source

    try:
        return dotenv.parse(Source(path, text), environ.get)
    except SpecError:
        return {}  # a load of the project says what is wrong with it
