"""Build checks: what a Dockerfile does that is allowed but probably not meant.

Source: BuildKit frontend/dockerfile/docs/rules; the names are BuildKit's. A Dockerfile turns
them off, or into errors, by `# check=skip=RULE,…;error=true`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from runtime.build.events import BuildWarning
from runtime.build.parser import Dockerfile, Node
from runtime.build.scope import platform_args
from runtime.build.words import WordError, expand
from runtime.errors import BuildError
from runtime.oci.descriptor import Platform

_SECRET = re.compile(
    r"(?:^|_)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:$|_)",
    re.IGNORECASE,
)
_PUBLIC = re.compile(r"(?:^|_)public(?:$|_)", re.IGNORECASE)
_ONE_OF_A_KIND = ("cmd", "entrypoint", "healthcheck")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    start: Node
    body: tuple[Node, ...]


def lint(parsed: Dockerfile, platform: Platform) -> tuple[BuildWarning, ...]:
    """All warnings for a Dockerfile, by line; those that it turns off are left out.

    Raises BuildError for the first where the Dockerfile makes them errors.
    """
    skipped, are_errors = _options(parsed)
    found = [
        BuildWarning(rule=warning.rule, message=warning.message, line=warning.line)
        for warning in parsed.warnings
    ]
    before, stages = _stages(parsed.nodes)
    found += _casing(parsed.nodes)
    found += _bases(parsed, before, stages, platform)
    for stage in stages:
        for rule in _STAGE_RULES:
            found += rule(stage)
    kept = [w for w in found if "all" not in skipped and w.rule.lower() not in skipped]
    kept.sort(key=lambda warning: (warning.line, warning.rule))
    if are_errors and kept:
        first = kept[0]
        raise BuildError(f"{first.message} ({first.rule})", dockerfile=parsed.name, line=first.line)
    return tuple(kept)


def _options(parsed: Dockerfile) -> tuple[frozenset[str], bool]:
    skipped: set[str] = set()
    are_errors = False
    for field in parsed.directives.get("check", "").split(";"):
        key, _, value = field.strip().partition("=")
        if key == "skip":
            skipped.update(name.strip().lower() for name in value.split(","))
        elif key == "error":
            are_errors = value.strip().lower() == "true"
    return frozenset(skipped), are_errors


def _stages(nodes: Sequence[Node]) -> tuple[list[Node], list[_Stage]]:
    before: list[Node] = []
    stages: list[_Stage] = []
    for node in nodes:
        if node.name == "from":
            stages.append(_Stage(start=node, body=()))
        elif stages:
            last = stages[-1]
            stages[-1] = _Stage(start=last.start, body=(*last.body, node))
        else:
            before.append(node)
    return before, stages


def _warn(rule: str, node: Node, message: str) -> BuildWarning:
    return BuildWarning(rule=rule, message=message, line=node.line)


def _written(node: Node) -> str:
    """The instruction's name as it stands in the file."""
    return node.original.split(maxsplit=1)[0]


def _casing(nodes: Sequence[Node]) -> Iterator[BuildWarning]:
    lower = sum(_written(node).islower() for node in nodes)
    upper = sum(_written(node).isupper() for node in nodes)
    wanted, kind = (str.islower, "lower") if lower > upper else (str.isupper, "upper")
    for node in nodes:
        if not wanted(_written(node)):
            message = f"{_written(node)} should be in {kind} case, as the other instructions are"
            yield _warn("ConsistentInstructionCasing", node, message)


def _bases(
    parsed: Dockerfile, before: Sequence[Node], stages: Sequence[_Stage], platform: Platform
) -> Iterator[BuildWarning]:
    scope: dict[str, str] = dict(platform_args(platform))
    without_value: set[str] = set()
    for node in before:
        for word in node.args:
            name, equals, value = word.partition("=")
            if equals:
                scope[name] = _expanded(value, scope, parsed.escape)
            else:
                without_value.add(name)
    for stage in stages:
        base = stage.start.args[0] if stage.start.args else ""
        try:
            names = expand(base, scope, escape=parsed.escape).unset
        except WordError:
            continue  # the build says so
        for name in sorted(names):
            if name in without_value:
                message = f"without a value for {name}, {base} is no valid base name"
                yield _warn("InvalidDefaultArgInFrom", stage.start, message)
            else:
                message = f"FROM uses {name}, which no ARG before it declares"
                yield _warn("UndefinedArgInFrom", stage.start, message)


def _expanded(text: str, scope: dict[str, str], escape: str) -> str:
    try:
        return expand(text, scope, escape=escape).text
    except WordError:
        return text


def _from_rules(stage: _Stage) -> Iterator[BuildWarning]:
    node = stage.start
    if len(node.args) == 3:
        word, name = node.args[1:]
        if word.isupper() != _written(node).isupper():
            message = f"{word!r} and {_written(node)!r} should be in the same case"
            yield _warn("FromAsCasing", node, message)
        if name != name.lower():
            message = f"the stage name {name!r} should be in lower case"
            yield _warn("StageNameCasing", node, message)
        if name.lower() in ("scratch", "context"):
            yield _warn("ReservedStageName", node, f"the stage name {name!r} is reserved")
    for flag in node.flags:
        key, _, value = flag.removeprefix("--").partition("=")
        if key != "platform":
            continue
        if value.strip("${}") == "TARGETPLATFORM":
            message = f"--platform={value} is what FROM does anyway"
            yield _warn("RedundantTargetPlatform", node, message)
        elif "$" not in value:
            message = f"--platform={value} is the same whatever the build is for"
            yield _warn("FromPlatformFlagConstDisallowed", node, message)


def _form_rules(stage: _Stage) -> Iterator[BuildWarning]:
    has_shell = any(node.name == "shell" for node in stage.body)
    for node in stage.body:
        if node.name in ("cmd", "entrypoint") and node.args and not node.json and not has_shell:
            message = f"{node.name.upper()} in the shell form keeps signals from the program"
            yield _warn("JSONArgsRecommended", node, message)
        if node.name in ("env", "label") and "" in node.args[2::3]:
            message = f"write {node.name.upper()} {node.args[0]}=value, not the old form"
            yield _warn("LegacyKeyValueFormat", node, message)
        if node.name == "maintainer":
            message = "MAINTAINER is deprecated: use the label org.opencontainers.image.authors"
            yield _warn("MaintainerDeprecated", node, message)


def _repeated(stage: _Stage) -> Iterator[BuildWarning]:
    for name in _ONE_OF_A_KIND:
        same = [node for node in stage.body if node.name == name]
        for node in same[:-1]:
            message = f"only the last {name.upper()} of a stage counts"
            yield _warn("MultipleInstructionsDisallowed", node, message)


def _workdirs(stage: _Stage) -> Iterator[BuildWarning]:
    for node in stage.body:
        if node.name == "workdir" and node.args:
            if posixpath.isabs(node.args[0]) or node.args[0].startswith("$"):
                return
            message = f"where {node.args[0]!r} leads depends on the base image"
            yield _warn("WorkdirRelativePath", node, message)
            return


def _secrets(stage: _Stage) -> Iterator[BuildWarning]:
    for node in stage.body:
        names: tuple[str, ...] = ()
        if node.name == "env":
            names = node.args[::3]
        elif node.name == "arg":
            names = tuple(word.partition("=")[0] for word in node.args)
        for name in names:
            if _SECRET.search(name) and not _PUBLIC.search(name):
                message = f"{name} stays in the image: use RUN --mount=type=secret"
                yield _warn("SecretsUsedInArgOrEnv", node, message)


def _ports(stage: _Stage) -> Iterator[BuildWarning]:
    for node in stage.body:
        if node.name != "expose":
            continue
        for word in node.args:
            protocol = word.partition("/")[2]
            if protocol != protocol.lower() and "$" not in word:
                message = f"the protocol in {word!r} should be in lower case"
                yield _warn("ExposeProtoCasing", node, message)
            if ":" in word and "$" not in word:
                message = f"{word!r}: EXPOSE names a port of the container alone"
                yield _warn("ExposeInvalidFormat", node, message)


_STAGE_RULES: tuple[Callable[[_Stage], Iterator[BuildWarning]], ...] = (
    _from_rules,
    _form_rules,
    _repeated,
    _workdirs,
    _secrets,
    _ports,
)
