"""The rules of a project: which change of which file means what for which service.

Source: Compose Develop Specification. `x-bayplan.fall_back_on` of a service names files whose
change means a rebuild in place of a sync, as Tilt's `fall_back_on` does.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.engine.build_files import IgnoreRules
from orchestrator.watch.errors import WatchError
from orchestrator.watch.patterns import Patterns, below, by_default, patterns
from specs.project import Hook, Service, Watch

EXTENSION = "x-bayplan"
FALL_BACK_ON = "fall_back_on"


class Action(StrEnum):
    """What a change leads to, in the words of the specification."""

    SYNC = "sync"
    REBUILD = "rebuild"
    RESTART = "restart"
    SYNC_RESTART = "sync+restart"
    SYNC_EXEC = "sync+exec"

    @property
    def syncs(self) -> bool:
        return self in (Action.SYNC, Action.SYNC_RESTART, Action.SYNC_EXEC)

    @property
    def restarts(self) -> bool:
        return self in (Action.RESTART, Action.SYNC_RESTART)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What sync+exec runs in each running container of the service."""

    argv: tuple[str, ...]
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; `path` and what is below it belongs at `target` in the container.

    `ignore` are all patterns that leave something out, `include` limits to what it matches.
    `mounted`: the files are in the container by a bind mount, so there is nothing to sync.
    `origin` says where the rule is written.
    """

    service: str
    action: Action
    path: str
    target: str = ""
    include: Patterns | None = None
    ignore: tuple[Patterns, ...] = ()
    command: Command | None = None
    initial_sync: bool = False
    mounted: bool = False
    origin: str

    def covers(self, path: str) -> bool:
        """Whether a change at `path` is this rule's business."""
        if path == self.path:
            return True  # named as it is, it is meant, whatever an ignore file says
        if below(self.path, path) is None or any(one.match(path) for one in self.ignore):
            return False
        return self.include is None or self.include.match(path)

    def may_hold(self, directory: str) -> bool:
        """Whether something that it covers may lie in a directory below its path."""
        if below(self.path, directory) is None:
            return False
        return not any(
            one.match(directory) and not one.may_hold_unmatched(directory) for one in self.ignore
        )

    def destination(self, path: str) -> str:
        """Where a covered path belongs in the container."""
        relative = below(self.path, path)
        if not relative:
            into = self.target.endswith("/")
            return posixpath.join(self.target, posixpath.basename(path)) if into else self.target
        return posixpath.join(self.target, relative)


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of the services that are watched, and what there is to say about them."""

    rules: tuple[Rule, ...]
    remarks: tuple[str, ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(rule.path for rule in self.rules)

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(sorted({rule.service for rule in self.rules}))

    def of(self, service: str) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if rule.service == service)

    def wanted(self, path: str, directory: bool) -> bool:
        """Whether any rule may care for `path`; of a directory also, for what it may hold."""
        return any(rule.covers(path) or (directory and rule.may_hold(path)) for rule in self.rules)


def declared(services: Mapping[str, Service], ignored: Mapping[str, IgnoreRules]) -> Rules:
    """The rules that the files declare for `services`; `ignored` are the rules of the ignore
    files of their build contexts. Raises WatchError."""
    rules: list[Rule] = []
    remarks: list[str] = []
    for name, service in sorted(services.items()):
        for index, watch in enumerate(service.develop.watch if service.develop else ()):
            rule = _rule(name, service, watch, index, ignored.get(name))
            rules.append(rule)
            if rule.mounted:
                remarks.append(
                    f"{name}: {watch.path} is mounted into the container; nothing is copied there"
                )
            elif any(one.match(watch.path) for one in rule.ignore) and os.path.isdir(watch.path):
                remarks.append(
                    f"{name}: {watch.path} is left out by the ignore file of the build context, "
                    "and so is what lies in it"
                )
        rules += _falls_back(name, service)
    return Rules(tuple(rules), tuple(remarks))


def left_out(
    rule_path: str, build: Mapping[str, Any] | None, rules: IgnoreRules | None
) -> Iterator[Patterns]:
    """What is left out of a rule in any case: the defaults, and what the context leaves out."""
    yield by_default(rule_path)
    if rules and build is not None:
        yield Patterns(str(build.get("context") or ""), rules)


def mounts_hold(service: Service, path: str) -> bool:
    """Whether a bind mount of the service shows `path` to its containers."""
    return any(
        mount.type == "bind"
        and mount.source
        and below(os.path.realpath(mount.source), path) is not None
        for mount in service.volumes
    )


def _rule(
    name: str, service: Service, watch: Watch, index: int, ignored: IgnoreRules | None
) -> Rule:
    origin = f"services.{name}.develop.watch[{index}]"
    action = Action(watch.action)
    if action is Action.REBUILD and service.build is None:
        raise WatchError(
            f"{origin}: the service has no build section, so it cannot be rebuilt",
            hint="use sync or restart, or give the service a build section",
        )
    try:
        own = patterns(watch.path, watch.ignore)
        include = patterns(watch.path, watch.include) if watch.include else None
    except ValueError as exc:
        raise WatchError(f"{origin}: {exc}") from exc
    build = None if service.build is None else service.build.model_dump()
    return Rule(
        service=name,
        action=action,
        path=watch.path,
        target=watch.target,
        include=include,
        ignore=(own, *left_out(watch.path, build, ignored)),
        command=_command(origin, watch.exec) if action is Action.SYNC_EXEC else None,
        initial_sync=watch.initial_sync,
        mounted=action.syncs and mounts_hold(service, watch.path),
        origin=origin,
    )


def _command(origin: str, hook: Hook | None) -> Command:
    if hook is None or not hook.command:
        raise WatchError(f"{origin}: sync+exec needs exec.command")
    return Command(
        argv=tuple(hook.command),
        user=hook.user,
        privileged=hook.privileged,
        working_dir=hook.working_dir,
        environment=tuple(
            f"{key}={value}" for key, value in hook.environment.items() if value is not None
        ),
    )


def _falls_back(name: str, service: Service) -> Iterator[Rule]:
    own = service.extensions.get(EXTENSION) or {}
    paths = own.get(FALL_BACK_ON) if isinstance(own, Mapping) else None
    if paths is None:
        return
    origin = f"services.{name}.{EXTENSION}.{FALL_BACK_ON}"
    if not isinstance(paths, list | tuple) or not all(type(path) is str for path in paths):
        raise WatchError(f"{origin} must be a list of paths")
    if service.build is None:
        raise WatchError(f"{origin}: the service has no build section, so it cannot be rebuilt")
    for path in paths:
        yield Rule(
            service=name,
            action=Action.REBUILD,
            path=path,
            ignore=(by_default(path),),
            origin=origin,
        )
