"""Rules for services without a develop section, from what they are made of.

What the last COPY and ADD lines of a Dockerfile bring is synced to where they put it. What a RUN
comes after, other stages take or an archive holds is input of the build: it means a rebuild.
What is mounted read-only, or as a single file, means a restart; a directory that the container
may write to means nothing, because its own writes would restart it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.engine import build_files
from orchestrator.engine.build_files import BuildError, Copied, IgnoreRules
from orchestrator.watch.errors import WatchError
from orchestrator.watch.patterns import by_default, patterns
from orchestrator.watch.rules import Action, Rule, Rules, left_out, mounts_hold
from specs.project import Service


def derived(
    services: Mapping[str, Service],
    ignored: Mapping[str, IgnoreRules],
    *,
    restart: bool,
    start: Callable[[str], str],
) -> Rules:
    """Rules for those of `services` that declare none; with `restart` a sync restarts, too.

    `start` gives the working directory of an image. Raises WatchError.
    """
    rules: list[Rule] = []
    remarks: list[str] = []
    for name, service in sorted(services.items()):
        if service.develop is not None and service.develop.watch:
            continue
        if service.build is not None:
            build = service.build.model_dump()
            try:
                copies = build_files.copied(build, start)
            except BuildError as exc:
                raise WatchError(f"service {name}: no rules can be derived") from exc
            sync = Action.SYNC_RESTART if restart else Action.SYNC
            rules += _of_build(name, service, build, copies, ignored.get(name), sync)
        rules += _of_mounts(name, service, remarks)
    return Rules(tuple(rules), tuple(remarks))


def _of_build(
    name: str,
    service: Service,
    build: Mapping[str, Any],
    copies: tuple[Copied, ...],
    rules: IgnoreRules | None,
    sync: Action,
) -> Iterator[Rule]:
    context = build_files.local_context(build)
    if context is None:
        return
    for file in (build_files.dockerfile_path(build), *build_files.ignore_files(build)):
        if file is not None:
            yield Rule(
                service=name,
                action=Action.REBUILD,
                path=file,
                ignore=(by_default(file),),
                origin="the build",
            )
    for copy in copies:
        path = os.path.join(context, copy.source) if copy.source else context
        path = os.path.normpath(path)
        if mounts_hold(service, path):
            continue
        yield Rule(
            service=name,
            action=Action.REBUILD if copy.target is None else sync,
            path=path,
            target=copy.target or "",
            include=patterns(path, (copy.include,)) if copy.include else None,
            ignore=(patterns(path, copy.exclude), *left_out(path, build, rules)),
            origin=f"line {copy.line} of the Dockerfile",
        )


def _of_mounts(name: str, service: Service, remarks: list[str]) -> Iterator[Rule]:
    for mount in service.volumes:
        if mount.type != "bind" or not mount.source:
            continue
        if not (mount.read_only or os.path.isfile(mount.source)):
            remarks.append(
                f"{name}: {mount.source} is mounted writable; its changes restart nothing "
                "(a watch rule with action: restart would)"
            )
            continue
        path = os.path.realpath(mount.source)
        yield Rule(
            service=name,
            action=Action.RESTART,
            path=path,
            ignore=(by_default(path),),
            origin="a bind mount",
        )
