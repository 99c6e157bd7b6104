"""What a batch of changes asks of each service; later changes take the place of earlier ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.engine.sync import Delete, Put
from orchestrator.watch.forest import Change
from orchestrator.watch.rules import Action, Command, Rule

FileChange = Put | Delete


@dataclass(slots=True, kw_only=True)
class Work:
    """What there is to do for one service.

    `files` are the changes in the order in which they are to be made: by target the last thing
    that is put there, and a removal that comes before it. `paths` are the
    host's paths that led to all this, `triggers` those among them that led to more than a sync.
    `since` is when the first of them was seen (seconds, monotonic clock).
    """

    since: float
    files: dict[tuple[str, bool], FileChange] = field(default_factory=dict)
    paths: dict[str, None] = field(default_factory=dict)
    triggers: dict[str, None] = field(default_factory=dict)
    rebuild: bool = False
    restart: bool = False
    commands: dict[Command, None] = field(default_factory=dict)

    @property
    def action(self) -> Action:
        """What it comes to, in one word."""
        if self.rebuild:
            return Action.REBUILD
        if self.restart:
            return Action.SYNC_RESTART if self.files else Action.RESTART
        return Action.SYNC_EXEC if self.commands else Action.SYNC

    def put(self, change: FileChange) -> None:
        """Add a change of a file, after all others; what it makes void goes."""
        put = isinstance(change, Put)
        self.files.pop((change.target, True), None)
        if not put:
            self.files.pop((change.target, False), None)
        self.files[change.target, put] = change

    def merge(self, later: Work) -> None:
        """Add what came later."""
        self.since = min(self.since, later.since)
        for change in later.files.values():
            self.put(change)
        self.paths |= later.paths
        self.triggers |= later.triggers
        self.rebuild |= later.rebuild
        self.restart |= later.restart
        self.commands |= later.commands


def divide(changes: Iterable[Change], rules: Iterable[Rule], since: float) -> dict[str, Work]:
    """The work of each service that any of the changes concerns."""
    listed = tuple(rules)
    works: dict[str, Work] = {}
    for change in changes:
        for rule in listed:
            if rule.covers(change.path):
                work = works.setdefault(rule.service, Work(since=since))
                _add(work, rule, change)
    return {name: work for name, work in works.items() if work.paths}


def _add(work: Work, rule: Rule, change: Change) -> None:
    copied = rule.action.syncs and not rule.mounted
    if copied:
        work.put(file_change(rule, change))
        work.paths[change.path] = None
    if rule.action is Action.SYNC or (change.kind == "directory" and change.there):
        # An empty directory changes nothing; what is put into it is a change of its own.
        return
    work.paths[change.path] = None
    work.triggers[change.path] = None
    work.rebuild |= rule.action is Action.REBUILD
    work.restart |= rule.action.restarts
    if rule.command is not None:
        work.commands[rule.command] = None


def file_change(rule: Rule, change: Change) -> FileChange:
    """The change in the container that goes with one of the host's."""
    target = rule.destination(change.path)
    if change.there:
        return Put(source=Path(change.path), target=target)
    # In any case: should it be there again, that is a change that comes later, or has gone again.
    return Delete(target=target)
