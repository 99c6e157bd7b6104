"""Where a project's files are, what it is called, and which variables it sees.

The rules of Compose: `-f`, else COMPOSE_FILE, else the first known name in this directory or
one above it with its override file; `.env` of the project directory; `-p`, else
COMPOSE_PROJECT_NAME, else `name:`, else the directory's name.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from typing import Protocol

from specs.errors import SpecError, SpecIssue

FILE_NAMES = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
)
TEMPLATE_NAMES = tuple(f"{name}.j2" for name in FILE_NAMES[:2])
OVERRIDE_NAMES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
STDIN = "-"

_DISALLOWED = re.compile(r"[^a-z0-9_-]")


class Directory(Protocol):
    """The little that discovery asks of the file system."""

    def is_file(self, path: str) -> bool:
        """Whether `path` is a file (or anything else that can be read)."""


def find_files(directory: str, files: Directory, warnings: list[SpecIssue]) -> list[str]:
    """The spec and its override in `directory` or the nearest one above; empty if none."""
    while True:
        found = [
            path
            for name in (*FILE_NAMES, *TEMPLATE_NAMES)
            if files.is_file(path := os.path.join(directory, name))
        ]
        if found:
            _warn_of_several(found, warnings)
            overrides = [
                path
                for name in OVERRIDE_NAMES
                if files.is_file(path := os.path.join(directory, name))
            ]
            _warn_of_several(overrides, warnings)
            return [*found[:1], *overrides[:1]]
        parent = os.path.dirname(directory)
        if parent == directory:
            return []
        directory = parent


def _warn_of_several(found: list[str], warnings: list[SpecIssue]) -> None:
    if len(found) > 1:
        listed = ", ".join(os.path.basename(path) for path in found)
        message = f"several files have a known name ({listed}), using the first"
        warnings.append(SpecIssue(message=message, file=found[0]))


def files_from_environment(environment: Mapping[str, str], directory: str) -> list[str]:
    """The files that COMPOSE_FILE names, absolute; empty when it is not set."""
    value = environment.get("COMPOSE_FILE")
    if not value:
        return []
    separator = environment.get("COMPOSE_PATH_SEPARATOR") or ":"
    return [
        name if name == STDIN else os.path.normpath(os.path.join(directory, name))
        for name in value.split(separator)
    ]


def is_true(text: str | None) -> bool:
    """Whether a COMPOSE_* switch is on."""
    return (text or "").lower() in ("1", "t", "true", "y", "yes", "on")


def normalise_name(text: str) -> str:
    """The project name that a directory's name makes."""
    return _DISALLOWED.sub("", text.lower()).lstrip("_-")


def check_name(name: str) -> str:
    """`name`, when it can be a project's. Raises SpecError."""
    if not name or normalise_name(name) != name:
        raise SpecError(
            [
                SpecIssue(
                    message=f"invalid project name {name!r}: it takes lower-case letters, digits, "
                    "- and _, and starts with a letter or digit",
                    hint=f"use {normalise_name(name)!r}" if normalise_name(name) else None,
                )
            ]
        )
    return name
