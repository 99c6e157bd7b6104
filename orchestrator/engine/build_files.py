"""What a build section says about files of this host: what its ignore file leaves out, and what
its Dockerfile copies where. For the dev loop."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.build.archives import is_archive
from runtime.build.ignore import IgnoreRules, parse_ignore
from runtime.build.instructions import Arg, Copy, Env, Instruction, Run, Workdir
from runtime.build.request import BuildRequest, context_rules, read_dockerfile
from runtime.build.scope import Scope, platform_args
from runtime.build.stages import SCRATCH, Stages, divide
from runtime.build.words import WordError
from runtime.errors import BuildError
from runtime.images.platforms import host_platform

__all__ = ["BuildError", "Copied", "IgnoreRules", "copied", "ignored", "parse_ignore"]

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A path of the context that the image is made from.

    `source` is relative to the context ("" is all of it); where the Dockerfile wrote a pattern,
    `include` is the pattern below `source`. `target` is where it ends up in the image, None
    where something is made of it instead: another stage, an archive, a RUN that comes later.
    """

    source: str
    include: str = ""
    exclude: tuple[str, ...] = ()
    target: str | None
    line: int


def local_context(build: Mapping[str, Any]) -> str | None:
    """The context's directory, None where it is an address."""
    context = str(build.get("context") or "")
    return context if os.path.isabs(context) else None


def dockerfile_path(build: Mapping[str, Any]) -> str | None:
    """Where the Dockerfile is on this host; None for one within the spec."""
    context = local_context(build)
    if context is None or build.get("dockerfile_inline"):
        return None
    return os.path.normpath(os.path.join(context, build.get("dockerfile") or "Dockerfile"))


def ignore_files(build: Mapping[str, Any]) -> tuple[str, ...]:
    """The places of ignore files that count for this build, whether they are there or not."""
    context = local_context(build)
    if context is None:
        return ()
    dockerfile = dockerfile_path(build)
    own = () if dockerfile is None else (f"{dockerfile}.dockerignore",)
    return (*own, os.path.join(context, ".dockerignore"))


def ignored(build: Mapping[str, Any]) -> IgnoreRules:
    """What the context's ignore file leaves out; nothing where there is no local context.

    Raises BuildError for a damaged one.
    """
    context = local_context(build)
    if context is None or not os.path.isdir(context):
        return IgnoreRules()
    return context_rules(_request(context, build))


def copied(build: Mapping[str, Any], start: Callable[[str], str]) -> tuple[Copied, ...]:
    """What the stages that the build needs take from the context, in the order of the file.

    `start` gives the working directory of a base image. Raises BuildError.
    """
    context = local_context(build)
    if context is None:
        return ()
    request = _request(context, build)
    parsed = read_dockerfile(request)
    stages = divide(parsed, request.args, platform_args(host_platform()))
    target = stages.target(request.target)
    line = _lineage(stages, target)
    found: list[Copied] = []
    for number in stages.reachable(target):
        if number not in line:
            scope = _scope(stages, request, parsed.escape)
            found += _taken(stages.stages[number].instructions, scope)
    found += _kept(stages, line, request, parsed.escape, start)
    return tuple(found)


def _request(context: str, build: Mapping[str, Any]) -> BuildRequest:
    arguments = {
        key: value for key, value in (build.get("args") or {}).items() if value is not None
    }
    return BuildRequest(
        context=Path(context),
        dockerfile=build.get("dockerfile") or None,
        dockerfile_inline=build.get("dockerfile_inline") or None,
        args=arguments,
        target=build.get("target") or None,
    )


def _lineage(stages: Stages, target: int) -> list[int]:
    """The stages that the target consists of, the first of them first."""
    line = [target]
    while (base := stages.stages[line[-1]].base_stage) is not None:
        line.append(base)
    return line[::-1]


def _scope(stages: Stages, request: BuildRequest, escape: str) -> Scope:
    return Scope(env=(), given=request.args, outer=stages.global_args, inherited={}, escape=escape)


def _taken(instructions: tuple[Instruction, ...], scope: Scope) -> Iterator[Copied]:
    """What a stage that others copy from takes from the context."""
    for instruction in instructions:
        _declare(instruction, scope)
        if isinstance(instruction, Copy) and instruction.from_ is None:
            for word in instruction.sources:
                if source := _local(scope.expand(word)):
                    yield Copied(
                        source=source[0], include=source[1], target=None, line=instruction.line
                    )
        elif isinstance(instruction, Run):
            yield from _mounted(instruction)


def _kept(
    stages: Stages,
    line: list[int],
    request: BuildRequest,
    escape: str,
    start: Callable[[str], str],
) -> list[Copied]:
    """What the final image holds of the context; what a RUN comes after may be its input."""
    first = stages.stages[line[0]]
    here = "/" if first.base == SCRATCH else start(first.base)
    places = {"/", here}
    scope = _scope(stages, request, escape)
    found: list[Copied] = []
    for instruction in (one for number in line for one in stages.stages[number].instructions):
        try:
            _declare(instruction, scope)
            if isinstance(instruction, Workdir):
                here = _joined(here, scope.expand(instruction.path))
                places.add(here)
            elif isinstance(instruction, Copy) and instruction.from_ is None:
                found += _copies(instruction, scope, request.context, here, places)
        except WordError as exc:
            raise BuildError(str(exc), dockerfile=stages.dockerfile, line=instruction.line) from exc
        if isinstance(instruction, Run):
            found = [
                Copied(
                    source=one.source,
                    include=one.include,
                    exclude=one.exclude,
                    target=None,
                    line=one.line,
                )
                for one in found
            ]
            found += _mounted(instruction)
    return found


def _declare(instruction: Instruction, scope: Scope) -> None:
    if isinstance(instruction, Arg):
        for name, default in instruction.pairs:
            scope.declare(name, default)
    elif isinstance(instruction, Env):
        scope.env.update({name: scope.expand(value) for name, value in instruction.pairs})


def _copies(
    instruction: Copy, scope: Scope, context: Path, here: str, places: set[str]
) -> Iterator[Copied]:
    written = scope.expand(instruction.destination)
    place = _joined(here, written)
    words = [found for word in instruction.sources if (found := _local(scope.expand(word)))]
    directory = (
        written.endswith("/")
        or posixpath.basename(written) in (".", "..")
        or len(words) + len(instruction.inline) > 1
        or place in places
    )
    exclude = tuple(map(scope.expand, instruction.exclude))
    for source, include in words:
        path = os.path.join(context, source)
        target: str | None = place
        if include:
            # A directory that a pattern selects would give its content without its name.
            target = place if _plain_files(context, source, include) else None
        elif directory and not os.path.isdir(path):
            target = posixpath.join(place, posixpath.basename(source))
        if instruction.parents or (instruction.add and not include and _is_archive(path)):
            target = None
        yield Copied(
            source=source, include=include, exclude=exclude, target=target, line=instruction.line
        )


def _local(word: str) -> tuple[str, str] | None:
    """A source word as a path of the context and a pattern below it; None for an address."""
    if "://" in word or word.startswith("git@"):
        return None
    parts = [part for part in posixpath.normpath("/" + word).split("/") if part]
    wild = next((n for n, part in enumerate(parts) if _WILD & set(part)), len(parts))
    return "/".join(parts[:wild]), "/".join(parts[wild:])


def _mounted(instruction: Run) -> Iterator[Copied]:
    """What of the context a RUN sees through its bind mounts."""
    for mount in instruction.mounts:
        fields = dict(field.partition("=")[::2] for field in mount.split(","))
        if fields.get("type", "bind") == "bind" and "from" not in fields:
            source = _local(fields.get("source", fields.get("src", "")))
            if source is not None:
                yield Copied(
                    source=source[0], include=source[1], target=None, line=instruction.line
                )


def _plain_files(context: Path, source: str, include: str) -> bool:
    """Whether a pattern selects files alone, all in one directory."""
    if "/" in include:
        return False
    return not any(path.is_dir() for path in (context / source).glob(include))


def _is_archive(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb", buffering=0) as file:
        return is_archive(file)


def _joined(here: str, path: str) -> str:
    return posixpath.normpath("/" + posixpath.join(here, path).lstrip("/"))
