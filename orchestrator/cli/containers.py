"""A container of the API in the words of `docker compose ps`."""

from __future__ import annotations

from typing import Any

from orchestrator.cli import output

HEADS = ("NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS")


def row(container: dict[str, Any], *, whole: bool = False) -> tuple[str, ...]:
    """One line of the table, under `HEADS`, with a `whole` command or its beginning."""
    return (
        container["name"],
        container["image"],
        f'"{_command(container)}"' if whole else _short(_command(container)),
        container["service"],
        _ago(container.get("created_at")),
        status_text(container),
        ports(container),
    )


def status_text(container: dict[str, Any]) -> str:
    """The state in Docker's words: "Up 3 minutes (healthy)", "Exited (0) 2 hours ago"."""
    state = container["state"]
    if state in ("running", "paused"):
        words = f"Up {output.age(container.get('started_at'))}".rstrip()
        if state == "paused":
            return f"{words} (Paused)"
        health = container.get("health")
        health = "health: starting" if health == "starting" else health
        return f"{words} ({health})" if health and health != "none" else words
    ended = _ago(container.get("finished_at"))
    if state in ("exited", "restarting"):
        return f"{state.capitalize()} ({container.get('exit_code')}) {ended}".rstrip()
    return str(state).capitalize()


def ports(container: dict[str, Any]) -> str:
    """Published ports as `docker ps` prints them."""
    return ", ".join(
        f"{port['host_ip'] or '0.0.0.0'}:{port['host_port']}->"
        f"{port['container_port']}/{port['protocol']}"
        for port in container.get("ports") or ()
    )


def _command(container: dict[str, Any]) -> str:
    command = container.get("command") or ""
    return command if isinstance(command, str) else " ".join(command)


def _short(command: str) -> str:
    return f'"{command if len(command) <= 20 else command[:19] + "…"}"'


def _ago(stamp: str | None) -> str:
    age = output.age(stamp)
    return f"{age} ago" if age else ""


def record(project: str, container: dict[str, Any]) -> dict[str, Any]:
    """One line of `--format json`, under Compose's own keys."""
    labels = container.get("labels") or {}
    return {
        "Command": f'"{_command(container)}"',
        "CreatedAt": container.get("created_at"),
        "ExitCode": container.get("exit_code") or 0,
        "Health": container.get("health") or "",
        "ID": container["id"],
        "Image": container["image"],
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "Name": container["name"],
        "Names": container["name"],
        "Networks": ",".join(sorted(container.get("networks") or {})),
        "Ports": ports(container),
        "Project": project,
        "Publishers": [
            {
                "URL": port["host_ip"] or "0.0.0.0",
                "TargetPort": port["container_port"],
                "PublishedPort": port["host_port"],
                "Protocol": port["protocol"],
            }
            for port in container.get("ports") or ()
        ],
        "RunningFor": _ago(container.get("created_at")),
        "Service": container["service"],
        "State": container["state"],
        "Status": status_text(container),
    }
