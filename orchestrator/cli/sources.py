"""How git sources are printed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.cli import output
from orchestrator.printable import printable, printable_line

_SHORT = 12


def table(sources: Iterable[Mapping[str, Any]]) -> None:
    """One line a source; REVISION is what stands, SYNC whether it is what the repository says, and
    HEALTH how it fares now."""
    output.table(
        ("NAME", "STATE", "SYNC", "HEALTH", "READY", "REVISION", "APPLIED", "MESSAGE"),
        [
            (
                source["name"],
                source["state"],
                source["sync"],
                source["health"],
                "yes" if source["ready"] else "no",
                _revision(source),
                _ago((source["last_applied"] or {}).get("at")),
                _first_line(source["message"]),
            )
            for source in sources
        ],
    )


def line(source: Mapping[str, Any]) -> str:
    """A source's state in one line."""
    text = f"{source['name']}: {source['state']}"
    if source["last_applied"]:
        text += f" {_revision(source)}"
    text = f"{text}: {_first_line(source['message'])}" if source["message"] else text
    return printable_line(text)


def describe(source: Mapping[str, Any]) -> None:
    """Everything that a person may want to know of a source."""
    rows = [
        ("Source", f"{source['name']} ({source['url']} {source['ref']})"),
        ("State", source["state"] + ("" if source["ready"] else ", not ready")),
        ("Sync", source["sync"]),
        ("Health", source["health"]),
    ]
    if source["message"]:
        rows += _lines("Message", source["message"])
    if source["dry_run"]:
        rows.append(("Mode", "dry: plans are told, nothing is applied"))
    if source["pinned"] is not None:
        rows.append(("Pinned", f"to revision {source['pinned']} until bay gitops resume"))
    if source["waits_for"]:
        rows.append(("Waits for", ", ".join(source["waits_for"])))
    last, applied = source["last_attempted"], source["last_applied"]
    if last:
        reason = f" ({last['reason']})" if last["reason"] else ""
        words = f"{last['commit'][:_SHORT]} {last['outcome']}{reason}, {_ago(last['at'])}"
        rows.append(("Last attempted", words))
    if applied:
        words = f"{applied['commit'][:_SHORT]}, revision {applied['revision']}"
        rows.append(("Last applied", f"{words}, {_ago(applied['at'])}"))
    if source["repository"]["message"] not in ("", source["message"]):
        rows += _lines("Repository", source["repository"]["message"])
    elif source["head"]:
        rows.append(("Repository", f"{source['head'][:_SHORT]}, {_ago(source['probed_at'])}"))
    for project in source["projects"]:
        words = ", ".join(_fares(project, name) for name in project["services"]) or "no service"
        if project["error"]:
            words += f" (has left, and cannot be removed: {project['error']})"
        rows.append((f"Project {project['project']}", words))
    width = max(len(head) for head, _ in rows)
    for head, text in rows:
        print(f"{head.ljust(width)}   {printable_line(text)}".rstrip())


def history(entries: Iterable[Mapping[str, Any]]) -> None:
    """The newest last; what stands has an asterisk."""
    output.table(
        ("REVISION", "COMMIT", "WHEN", "OUTCOME", "SUBJECT", "MESSAGE"),
        [
            (
                f"{entry['revision']}{'*' if entry['current'] else ''}",
                entry["commit"][:_SHORT],
                _ago(entry["at"]),
                entry["outcome"],
                entry["subject"],
                _first_line(entry["message"]),
            )
            for entry in entries
        ],
    )


def difference(shown: Mapping[str, Any]) -> None:
    """The commits that have come, and the plans."""
    if shown["from"] == shown["to"]:
        print(f"{shown['name']} stands at {shown['to'][:_SHORT]}, as the repository does")
    else:
        since = (shown["from"] or "nothing")[:_SHORT]
        print(f"{shown['name']}: {since} -> {shown['to'][:_SHORT]}")
    for commit in shown["commits"]:
        words = f"{commit['commit'][:_SHORT]} {commit['subject']} ({commit['author']})"
        print(f"  {printable_line(words)}")
    for plan in shown["plans"]:
        print(printable(plan["text"]))
    for project in shown["leaving"]:
        print(f"{project}: has left the repository, and is taken down")


def _fares(project: Mapping[str, Any], service: str) -> str:
    health = project["health"].get(service, "Healthy")
    return service if health == "Healthy" else f"{service} ({health})"


def _revision(source: Mapping[str, Any]) -> str:
    applied = source["last_applied"]
    return f"{source['ref']}@{applied['commit'][:_SHORT]}" if applied else ""


def _lines(head: str, text: str) -> list[tuple[str, str]]:
    first, *others = text.splitlines()
    return [(head, first), *(("", other) for other in others)]


def _first_line(text: str) -> str:
    first, newline, _ = text.partition("\n")
    return f"{first} …" if newline else first


def _ago(stamp: str | None) -> str:
    return f"{output.age(stamp, time.time())} ago" if stamp else ""
