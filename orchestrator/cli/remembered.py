"""Knows the project of a directory again without reading its YAML.

The daemon keeps, of every load, the digest of each file and variable that it
consulted. As long as all of them are what they were, a load would give the same
project, so its name (and, to the daemon, the whole of it) is known for the price of a
few hashes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.client.http import Client

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha256 import sha256  # Python 3.11; hashlib loads OpenSSL first, in 2 ms of 30
    except ImportError:
        from hashlib import sha256


def find(
    client: Client,
    *,
    directory: str,
    options: Mapping[str, Any],
    services: tuple[str, ...] | None,
    environ: Mapping[str, str],
) -> dict[str, Any] | None:
    """The remembered load of `directory` made with `options`, if nothing it read has changed.

    `services` must be those that the load was made for; None takes any.
    """
    for load in client.get("/v1/loads", directory=directory):
        inputs = load.get("inputs") or {}
        if inputs.get("options") != options:
            continue
        if services is not None and tuple(inputs.get("services", ())) != services:
            continue
        if unchanged(inputs, environ):
            return dict(load)
    return None


def unchanged(inputs: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """Whether every variable and file of `inputs` still has the digest noted there."""
    variables = inputs.get("variables", {})
    files = inputs.get("files", {})
    return all(
        variable_digest(environ, name) == digest for name, digest in variables.items()
    ) and all(file_digest(path) == digest for path, digest in files.items())


def variable_digest(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name)
    return None if value is None else sha256(os.fsencode(value)).hexdigest()


def file_digest(path: str) -> str | None:
    """The sha256 of a file's content, None where there is no such file."""
    try:
        with open(path, "rb") as file:
            return sha256(file.read()).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
