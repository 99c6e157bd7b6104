"""Options of `bay run` as parts of a canonical service."""

from __future__ import annotations

import os
import sys
from typing import Any

from orchestrator.cli.errors import UsageError
from orchestrator.cli.session import Session


def parts(
    session: Session,
    *,
    env: tuple[str, ...],
    env_from_file: tuple[str, ...],
    publish: tuple[str, ...],
    volume: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    entrypoint: str | None,
    label: tuple[str, ...],
    cap_add: tuple[str, ...],
    cap_drop: tuple[str, ...],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What replaces attributes of the service, and what is added to them."""
    changes: dict[str, Any] = {}
    if user is not None:
        changes["user"] = user
    if workdir is not None:
        changes["working_dir"] = workdir
    if entrypoint is not None:
        changes["entrypoint"] = command_words(entrypoint)
    additions = {
        "environment": environment(session, env, env_from_file),
        "labels": labels(label),
        "ports": ports(publish),
        "volumes": volumes(session, volume),
        "cap_add": list(cap_add),
        "cap_drop": list(cap_drop),
    }
    return changes, {name: value for name, value in additions.items() if value}


def follow(session: Session, project: str, name: str, *, remove: bool) -> int:
    """Carry the streams of the one-off container until it has ended; its exit status."""
    from orchestrator.cli import streams
    from orchestrator.cli.detach import DetachKeys
    from orchestrator.engine.monitors import open_attach

    found = session.client.get(session.project_path("containers", project), all=1)
    container = next(each for each in found if each["name"] == name)
    sys.stdout.flush()
    with open_attach(
        container["monitor_socket"], stdin=container["stdin"], complete=True
    ) as attached:
        status = streams.carry_attached(
            attached,
            keys=DetachKeys() if container["tty"] else None,
            proxy=True,
            typing=container["stdin"],
            end_input=True,
        )
    if status is None:
        print(f"detached; {name} goes on", file=sys.stderr)
        return 0
    if remove:
        _remove(session, project, name)
    return status


def _remove(session: Session, project: str, name: str) -> None:
    """Remove it now; the daemon does so too, whatever becomes of us."""
    body = {"names": [name], "options": {"stop": True, "volumes": True}}
    path = session.project_path("rm", project)
    for _event in session.client.stream("POST", path, body).events():
        pass


def environment(session: Session, words: tuple[str, ...], files: tuple[str, ...]) -> dict[str, str]:
    """`-e` over `--env-from-file`; a bare NAME takes its value from our environment, if it has
    one."""
    values: dict[str, str] = {}
    for path in files:
        values.update(_from_file(session, path))
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise UsageError(f"-e {word}: it must be NAME=VALUE")
        if equals:
            values[name] = value
        elif name in session.environ:
            values[name] = session.environ[name]
    return values


def _from_file(session: Session, path: str) -> dict[str, str]:
    from specs import dotenv
    from specs.source import Source

    with open(os.path.join(session.cwd, path), encoding="utf-8") as file:
        return dotenv.parse(Source(path, file.read()), session.environ.get)


def ports(words: tuple[str, ...]) -> list[dict[str, Any]]:
    from specs import notation

    found: list[dict[str, Any]] = []
    for word in words:
        try:
            entries = notation.parse_ports(word)
        except ValueError as exc:
            raise UsageError(f"-p {word}: {exc}") from None
        found += [{key: value for key, value in entry.items() if value} for entry in entries]
    return found


def volumes(session: Session, words: tuple[str, ...]) -> list[dict[str, Any]]:
    """Paths that are not absolute start from where the command was given."""
    from specs import notation

    found = []
    for word in words:
        try:
            mount, meaningless = notation.parse_mount(word)
        except ValueError as exc:
            raise UsageError(f"-v {word}: {exc}") from None
        if meaningless:
            raise UsageError(f"-v {word}: no such option: {', '.join(meaningless)}")
        if mount.get("type") == "bind":
            source = os.path.expanduser(str(mount["source"]))
            mount["source"] = os.path.normpath(os.path.join(session.cwd, source))
            mount["bind"] = {"create_host_path": True, **(mount.get("bind") or {})}
        found.append(mount)
    return found


def labels(words: tuple[str, ...]) -> dict[str, str]:
    pairs = (word.partition("=") for word in words)
    return {name: value for name, _, value in pairs}


def command_words(text: str) -> list[str]:
    """An `--entrypoint` as a shell would split it."""
    from specs import shellwords

    try:
        return list(shellwords.split(text))
    except ValueError as exc:
        raise UsageError(f"--entrypoint {text}: {exc}") from None
