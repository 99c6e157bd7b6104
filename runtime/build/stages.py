"""The stages of a Dockerfile: what each builds on, and which a target needs.

Source: BuildKit frontend/dockerfile/docs/reference.md ("FROM", "COPY --from").
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.build.instructions import Arg, Copy, From, Instruction, Run, instruction
from runtime.build.parser import Dockerfile
from runtime.build.words import WordError, expand
from runtime.errors import BuildError

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage. `base` is the expanded text of FROM; `base_stage` the number of the earlier
    stage that it names, None for an image; `needs` are the numbers of all stages that it
    copies or mounts from, the base included."""

    number: int
    name: str | None
    line: int
    base: str
    base_stage: int | None
    platform: str | None
    instructions: tuple[Instruction, ...]
    needs: frozenset[int]

    @property
    def title(self) -> str:
        return self.name or f"stage-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """All stages; `global_args` are the values of the ARGs that stand before the first FROM,
    None for those that have none."""

    stages: tuple[Stage, ...]
    global_args: Mapping[str, str | None]
    dockerfile: str

    def find(self, name: str, *, before: int | None = None) -> int | None:
        """The number of the stage called `name`, or whose number `name` is."""
        return _find(self.stages[:before], name)

    def target(self, name: str | None) -> int:
        """The number of the stage to build; raises BuildError for an unknown name."""
        if not name:
            return len(self.stages) - 1
        found = self.find(name)
        if found is None:
            titles = [stage.title for stage in self.stages]
            close = difflib.get_close_matches(name.lower(), titles, n=1)
            hint = f"the stages are {', '.join(titles)}"
            raise BuildError(
                f"there is no stage {name!r}",
                dockerfile=self.dockerfile,
                hint=f"did you mean {close[0]}? {hint}" if close else hint,
            )
        return found

    def reachable(self, target: int) -> tuple[int, ...]:
        """The numbers of the stages that `target` needs, itself last, each after its needs."""
        needed = {target}
        for number in range(target, -1, -1):  # a stage can only need those above it
            if number in needed:
                needed |= self.stages[number].needs
        return tuple(sorted(needed))


def divide(
    parsed: Dockerfile, build_args: Mapping[str, str], platform_args: Mapping[str, str]
) -> Stages:
    """Divide a Dockerfile into stages; raises BuildError.

    `platform_args` are the ARGs that are predefined in the global scope (TARGETARCH…).
    """
    global_args: dict[str, str | None] = {}
    scope: dict[str, str] = dict(platform_args)
    stages: list[Stage] = []
    current: From | None = None
    body: list[Instruction] = []
    for node in parsed.nodes:
        typed = instruction(node, parsed.name)
        if isinstance(typed, From):
            if current is not None:
                stages.append(_stage(stages, current, body, parsed, scope))
            current, body = typed, []
        elif current is not None:
            body.append(typed)
        elif isinstance(typed, Arg):
            for name, default in typed.pairs:
                value = build_args.get(name)
                if value is None and default is not None:
                    value = _expand(default, scope, parsed, typed.line)
                if value is None:
                    value = platform_args.get(name)
                global_args[name] = value
                if value is not None:
                    scope[name] = value
        else:
            raise BuildError(
                "the first instruction must be FROM, or ARG before it",
                dockerfile=parsed.name,
                line=typed.line,
            )
    if current is None:
        raise BuildError("the Dockerfile has no FROM", dockerfile=parsed.name)
    stages.append(_stage(stages, current, body, parsed, scope))
    return Stages(stages=tuple(stages), global_args=global_args, dockerfile=parsed.name)


def _stage(
    earlier: list[Stage],
    start: From,
    body: list[Instruction],
    parsed: Dockerfile,
    scope: Mapping[str, str],
) -> Stage:
    base = _expand(start.base, scope, parsed, start.line)
    if not base:
        raise BuildError(
            f"the base name {start.base!r} is empty once its variables are filled in",
            dockerfile=parsed.name,
            line=start.line,
            hint="an ARG that FROM uses stands before the first FROM and needs a value: "
            "a default, or --build-arg",
        )
    if start.name is not None and any(stage.name == start.name for stage in earlier):
        raise BuildError(
            f"two stages are called {start.name!r}", dockerfile=parsed.name, line=start.line
        )
    base_stage = None if base.isdigit() else _find(tuple(earlier), base)
    needs = set() if base_stage is None else {base_stage}
    for step in body:
        for name in _copies_from(step):
            found = _find(tuple(earlier), name)
            if found is not None:
                needs.add(found)
            elif name.isdigit():
                raise BuildError(
                    f"there is no stage {name} before this one",
                    dockerfile=parsed.name,
                    line=step.line,
                )
            elif start.name is not None and name.lower() == start.name:
                raise BuildError(
                    f"the stage {name!r} cannot copy from itself",
                    dockerfile=parsed.name,
                    line=step.line,
                )
    platform = start.platform
    return Stage(
        number=len(earlier),
        name=start.name,
        line=start.line,
        base=base,
        base_stage=base_stage,
        platform=None if platform is None else _expand(platform, scope, parsed, start.line),
        instructions=tuple(body),
        needs=frozenset(needs),
    )


def _copies_from(step: Instruction) -> tuple[str, ...]:
    if isinstance(step, Copy):
        return () if step.from_ is None else (step.from_,)
    if isinstance(step, Run):
        fields = (field.partition("=") for mount in step.mounts for field in mount.split(","))
        return tuple(value for key, _, value in fields if key == "from")
    return ()


def _find(stages: tuple[Stage, ...], name: str) -> int | None:
    for stage in reversed(stages):
        if stage.name is not None and stage.name == name.lower():
            return stage.number
    if name.isdigit() and int(name) < len(stages):
        return int(name)
    return None


def _expand(text: str, scope: Mapping[str, str], parsed: Dockerfile, line: int) -> str:
    try:
        return expand(text, scope, escape=parsed.escape).text
    except WordError as exc:
        raise BuildError(f"{text!r}: {exc}", dockerfile=parsed.name, line=line) from None
