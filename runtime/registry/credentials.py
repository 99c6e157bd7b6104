"""Docker's config.json and credential helpers: where credentials are kept.

Source: docker docs "docker login", docker/cli cli/config, docker/docker-credential-helpers.
The file belongs to several programs: what we do not know in it is kept, it is replaced as a
whole, and the directory is locked meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runtime.images.reference import DEFAULT_DOMAIN
from runtime.linux.files import write_atomically
from runtime.registry.endpoints import Credentials, RegistryConfig
from runtime.registry.errors import HelperError, printable

_DEFAULT_KEY = f"https://index.{DEFAULT_DOMAIN}/v1/"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_TOKEN_USER = "<token>"  # what helpers give as the name when the secret is an identity token
_NOT_FOUND = "credentials not found"
_HELPER_SECONDS = 60.0
_LARGEST = 4 * 1024 * 1024


def server_key(domain: str) -> str:
    """The name that Docker keeps a registry's credentials under."""
    return _DEFAULT_KEY if domain in (DEFAULT_DOMAIN, f"index.{DEFAULT_DOMAIN}") else domain


def config_path(config: RegistryConfig) -> Path:
    """The config.json in use, there or not."""
    if config.docker_config is not None:
        return config.docker_config / "config.json"
    chosen = config.environ.get("DOCKER_CONFIG")
    if chosen:
        return Path(chosen) / "config.json"
    home = config.environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".docker" / "config.json"


async def find_credentials(domain: str, config: RegistryConfig) -> Credentials | None:
    """What is kept for a registry: given, from a helper, or in the file itself."""
    given = config.credentials.get(domain)
    if given is not None:
        return given
    document = await asyncio.to_thread(_read, config_path(config))
    helper = _helper_for(document, domain)
    if helper is not None:
        found = await _helper_get(helper, server_key(domain), config)
        if found is not None:
            return found
    return _from_auths(document, domain)


async def store_credentials(domain: str, found: Credentials, config: RegistryConfig) -> str:
    """Keep credentials where the user's configuration says; the place, for a message."""
    path = config_path(config)
    key = server_key(domain)
    helper = _helper_for(await asyncio.to_thread(_read, path), domain)
    entry: dict[str, str] = {}
    if helper is not None:
        secret = found.identity_token or found.password
        name = _TOKEN_USER if found.identity_token else found.username
        request = {"ServerURL": key, "Username": name, "Secret": secret}
        await _call(helper, "store", json.dumps(request), config)
    else:
        pair = f"{found.username}:{'' if found.identity_token else found.password}"
        entry["auth"] = base64.b64encode(pair.encode()).decode("ascii")
        if found.identity_token:
            entry["identitytoken"] = found.identity_token

    def change(document: dict[str, Any]) -> None:
        document.setdefault("auths", {})[key] = entry

    await asyncio.to_thread(_edit, path, change)
    return f"the credential helper {helper}" if helper else str(path)


async def erase_credentials(domain: str, config: RegistryConfig) -> bool:
    """Forget a registry's credentials; True where there were any."""
    path = config_path(config)
    document = await asyncio.to_thread(_read, path)
    keys = [key for key in _auths(document) if _same_server(key, domain)]
    erased = bool(keys)
    helper = _helper_for(document, domain)
    if helper is not None and await _helper_get(helper, server_key(domain), config) is not None:
        await _call(helper, "erase", server_key(domain), config)
        erased = True

    def change(document: dict[str, Any]) -> None:
        for key in keys:
            document.get("auths", {}).pop(key, None)

    if keys:
        await asyncio.to_thread(_edit, path, change)
    return erased


# The file


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST)
        document = json.loads(content or b"{}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as exc:
        raise HelperError(f"read {path}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("auths", {}) or {}, dict):
        raise HelperError(f"{path} is not docker's configuration")
    return document


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked_directory(path.parent):
        document = _read(path)
        if document.get("auths") is None:
            document.pop("auths", None)
        change(document)
        content = json.dumps(document, indent="\t", ensure_ascii=False).encode() + b"\n"
        # The file may be a link into somebody's dotfiles: what it points to is replaced.
        write_atomically(path.resolve(), content, mode=0o600)


@contextlib.contextmanager
def _locked_directory(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _auths(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("auths") or {}


def _same_server(key: str, domain: str) -> bool:
    wanted = server_key(domain)
    if key == wanted:
        return True
    bare = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return bare == (wanted.split("/")[2] if "//" in wanted else wanted)


def _from_auths(document: dict[str, Any], domain: str) -> Credentials | None:
    auths = _auths(document)
    exact = server_key(domain)
    keys = [exact] if exact in auths else [key for key in auths if _same_server(key, domain)]
    for key in keys:
        entry = auths[key]
        if not isinstance(entry, dict):
            continue
        username, password = str(entry.get("username", "")), str(entry.get("password", ""))
        if entry.get("auth"):
            try:
                pair = base64.b64decode(str(entry["auth"]), validate=False).decode()
            except (binascii.Error, UnicodeDecodeError) as exc:
                raise HelperError(f"the credentials kept for {key} cannot be decoded") from exc
            username, _, password = pair.partition(":")
            password = password.strip("\0")
        found = Credentials(
            username=username,
            password=password,
            identity_token=str(entry.get("identitytoken", "")),
            registry_token=str(entry.get("registrytoken", "")),
        )
        if found != Credentials():
            return found
    return None


# Helpers


def _helper_for(document: dict[str, Any], domain: str) -> str | None:
    helpers = document.get("credHelpers") or {}
    name = None
    if isinstance(helpers, dict):
        name = helpers.get(server_key(domain), helpers.get(domain))
    name = name or document.get("credsStore")
    if not name:
        return None
    if not isinstance(name, str) or not _HELPER.match(name):
        raise HelperError(f"{printable(str(name))!r} is not the name of a credential helper")
    return name


async def _helper_get(helper: str, key: str, config: RegistryConfig) -> Credentials | None:
    answer = await _call(helper, "get", key, config)
    if answer is None:
        return None
    try:
        document = json.loads(answer)
        username, secret = str(document["Username"]), str(document["Secret"])
    except (ValueError, KeyError, TypeError) as exc:
        raise HelperError(f"credential helper {helper} does not answer with credentials") from exc
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret)


async def _call(helper: str, verb: str, given: str, config: RegistryConfig) -> bytes | None:
    """Run a helper; None where it has nothing under that name."""
    program = f"docker-credential-{helper}"
    path = shutil.which(program, path=config.environ.get("PATH"))
    if path is None:
        raise HelperError(
            f"credential helper {program} is not installed",
            hint="install it, or take it out of docker's config.json",
        )
    process = await asyncio.create_subprocess_exec(
        path,
        verb,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(config.environ),
    )
    try:
        async with asyncio.timeout(_HELPER_SECONDS):
            output, errors = await process.communicate(given.encode())
    except TimeoutError as exc:
        raise HelperError(f"credential helper {program} does not answer") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return output
    reason = printable((output + errors).decode(errors="replace"))
    if _NOT_FOUND in reason:
        return None
    raise HelperError(f"credential helper {program} {verb}: {reason or 'failed'}")
