"""The instructions as types: shapes and flags are checked, variables still unexpanded.

Source: BuildKit frontend/dockerfile/docs/reference.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

from runtime.build.instruction_types import Arg as Arg
from runtime.build.instruction_types import Cmd as Cmd
from runtime.build.instruction_types import Copy as Copy
from runtime.build.instruction_types import Entrypoint as Entrypoint
from runtime.build.instruction_types import Env as Env
from runtime.build.instruction_types import Expose as Expose
from runtime.build.instruction_types import From as From
from runtime.build.instruction_types import Healthcheck as Healthcheck
from runtime.build.instruction_types import Instruction as Instruction
from runtime.build.instruction_types import Label as Label
from runtime.build.instruction_types import Maintainer as Maintainer
from runtime.build.instruction_types import Onbuild as Onbuild
from runtime.build.instruction_types import Run as Run
from runtime.build.instruction_types import Shell as Shell
from runtime.build.instruction_types import Stopsignal as Stopsignal
from runtime.build.instruction_types import User as User
from runtime.build.instruction_types import Volume as Volume
from runtime.build.instruction_types import Workdir as Workdir
from runtime.build.parser import INSTRUCTIONS, Node, heredoc_of
from runtime.build.units import parse_duration
from runtime.errors import BuildError

_MIN_DURATION = 1_000_000  # a probe is not timed finer than a millisecond


class _Refused(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def instruction(node: Node, dockerfile: str) -> Instruction:
    """The typed form of a node; raises BuildError with its line."""
    maker = _MAKERS.get(node.name)
    try:
        if maker is None:
            close = difflib.get_close_matches(node.name, INSTRUCTIONS, n=1)
            raise _Refused(
                f"unknown instruction {node.name.upper()}",
                f"did you mean {close[0].upper()}?" if close else None,
            )
        return maker(node)
    except _Refused as exc:
        raise BuildError(str(exc), dockerfile=dockerfile, line=node.line, hint=exc.hint) from None


class _Flags:
    """The flags of one node, each taken once; what nobody takes is an error."""

    def __init__(self, node: Node, names: Sequence[str], *, many: Sequence[str] = ()) -> None:
        self._values: dict[str, list[str | None]] = {}
        for flag in node.flags:
            name, equals, value = flag.removeprefix("--").partition("=")
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                known = ", ".join(f"--{known}" for known in names)
                hint = f"did you mean --{close[0]}?" if close else None
                if hint is None:
                    hint = f"it takes {known}" if names else "it takes no flags"
                raise _Refused(f"{node.name.upper()} has no flag --{name}", hint)
            if name in self._values and name not in many:
                raise _Refused(f"the flag --{name} stands twice")
            self._values.setdefault(name, []).append(value if equals else None)

    def text(self, name: str) -> str | None:
        values = self._values.get(name)
        if values is None:
            return None
        if values[0] is None:
            raise _Refused(f"the flag --{name} needs a value")
        return values[0]

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._values.get(name, [])
        if any(value is None for value in values):
            raise _Refused(f"the flag --{name} needs a value")
        return tuple(value for value in values if value is not None)

    def switch(self, name: str) -> bool | None:
        values = self._values.get(name)
        if values is None:
            return None
        if values[0] in (None, "true", "1"):
            return True
        if values[0] in ("false", "0"):
            return False
        raise _Refused(f"the flag --{name} is true or false, not {values[0]!r}")


def _from(node: Node) -> Instruction:
    flags = _Flags(node, ("platform",))
    if len(node.args) == 1:
        name = None
    elif len(node.args) == 3 and node.args[1].lower() == "as":
        name = node.args[2].lower()
        if not name[:1].isalpha() or not all(c.isalnum() or c in "-_." for c in name):
            raise _Refused(
                f"{node.args[2]!r} is not a stage name",
                "it begins with a letter and holds letters, digits, '-', '_' and '.'",
            )
    else:
        raise _Refused("FROM takes an image, or an image AS a name")
    return From(
        line=node.line,
        original=node.original,
        base=node.args[0],
        name=name,
        platform=flags.text("platform"),
    )


def _command(node: Node) -> tuple[tuple[str, ...] | None, str | None]:
    """The exec form's argv, or the shell form's text."""
    if node.json:
        return node.args, None
    return None, node.args[0] if node.args else None


def _run(node: Node) -> Instruction:
    flags = _Flags(node, ("mount", "network", "security"), many=("mount",))
    argv, command = _command(node)
    if not argv and not command:
        raise _Refused("RUN needs a command")
    return Run(
        line=node.line,
        original=node.original,
        argv=argv,
        command=command,
        heredocs=node.heredocs,
        mounts=flags.texts("mount"),
        network=flags.text("network"),
        security=flags.text("security"),
    )


def _copy(node: Node) -> Instruction:
    add = node.name == "add"
    own = ("checksum", "keep-git-dir", "unpack") if add else ("from", "parents")
    flags = _Flags(node, ("chown", "chmod", "link", "exclude", *own), many=("exclude",))
    if len(node.args) < 2:
        raise _Refused(f"{node.name.upper()} needs at least a source and a destination")
    *words, destination = node.args
    documents = {document.name: document for document in node.heredocs}
    sources, inline = [], []
    for word in words:
        opened = heredoc_of(word) if node.heredocs else None
        if opened is not None:
            inline.append(documents[opened.name])
        else:
            sources.append(word)
    if heredoc_of(destination) and node.heredocs:
        raise _Refused("the destination cannot be a here-document")
    return Copy(
        line=node.line,
        original=node.original,
        add=add,
        sources=tuple(sources),
        inline=tuple(inline),
        destination=destination,
        from_=flags.text("from") if not add else None,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        parents=bool(flags.switch("parents")) if not add else False,
        exclude=flags.texts("exclude"),
        checksum=flags.text("checksum") if add else None,
        keep_git_dir=bool(flags.switch("keep-git-dir")) if add else False,
        unpack=flags.switch("unpack") if add else None,
    )


def _pairs(node: Node) -> tuple[tuple[str, str], ...]:
    _Flags(node, ())
    if not node.args:
        raise _Refused(f"{node.name.upper()} needs a name and a value")
    pairs = tuple(zip(node.args[::3], node.args[1::3], strict=True))
    if any(not name for name, _ in pairs):
        raise _Refused(f"{node.name.upper()} has a value without a name")
    return pairs


def _env(node: Node) -> Instruction:
    return Env(line=node.line, original=node.original, pairs=_pairs(node))


def _label(node: Node) -> Instruction:
    return Label(line=node.line, original=node.original, pairs=_pairs(node))


def _arg(node: Node) -> Instruction:
    _Flags(node, ())
    if not node.args:
        raise _Refused("ARG needs a name")
    pairs: list[tuple[str, str | None]] = []
    for word in node.args:
        name, equals, value = word.partition("=")
        if not name:
            raise _Refused("ARG has a value without a name")
        pairs.append((name, value if equals else None))
    return Arg(line=node.line, original=node.original, pairs=tuple(pairs))


def _cmd(node: Node) -> Instruction:
    _Flags(node, ())
    argv, command = _command(node)
    return Cmd(line=node.line, original=node.original, argv=argv, command=command)


def _entrypoint(node: Node) -> Instruction:
    _Flags(node, ())
    argv, command = _command(node)
    return Entrypoint(line=node.line, original=node.original, argv=argv, command=command)


def _shell(node: Node) -> Instruction:
    _Flags(node, ())
    if not node.json or not node.args:
        raise _Refused('SHELL takes the exec form: SHELL ["/bin/bash", "-c"]')
    return Shell(line=node.line, original=node.original, argv=node.args)


def _healthcheck(node: Node) -> Instruction:
    names = ("interval", "timeout", "start-period", "start-interval", "retries")
    flags = _Flags(node, names)
    kind = node.args[0].upper() if node.args else ""
    if kind == "NONE":
        if len(node.args) > 1 or node.flags:
            raise _Refused("HEALTHCHECK NONE takes no arguments")
    elif kind != "CMD":
        raise _Refused(
            f"unknown type {node.args[0]!r} in HEALTHCHECK" if kind else "HEALTHCHECK needs a type",
            "it is HEALTHCHECK CMD command, or HEALTHCHECK NONE",
        )
    elif len(node.args) < 2:
        raise _Refused("HEALTHCHECK CMD needs a command")
    times = {}
    for name in names[:4]:
        text = flags.text(name)
        try:
            times[name] = 0 if text is None else parse_duration(text)
        except ValueError as exc:
            raise _Refused(f"--{name}: {exc}") from None
        if times[name] and times[name] < _MIN_DURATION:
            raise _Refused(f"--{name}: {text} is less than 1ms")
    retries = flags.text("retries") or "0"
    if not retries.isdecimal():
        raise _Refused(f"--retries: {retries!r} is not a number from 0 on")
    return Healthcheck(
        line=node.line,
        original=node.original,
        kind=kind,
        argv=node.args[1:] if node.json else None,
        command=node.args[1] if not node.json and kind == "CMD" else None,
        interval=times["interval"],
        timeout=times["timeout"],
        start_period=times["start-period"],
        start_interval=times["start-interval"],
        retries=int(retries),
    )


def _expose(node: Node) -> Instruction:
    _Flags(node, ())
    if not node.args:
        raise _Refused("EXPOSE needs a port")
    return Expose(line=node.line, original=node.original, ports=node.args)


def _volume(node: Node) -> Instruction:
    _Flags(node, ())
    if not node.args or not all(node.args):
        raise _Refused("VOLUME needs a path")
    return Volume(line=node.line, original=node.original, paths=node.args)


def _single(node: Node) -> str:
    _Flags(node, ())
    if len(node.args) != 1 or not node.args[0]:
        raise _Refused(f"{node.name.upper()} takes exactly one argument")
    return node.args[0]


def _workdir(node: Node) -> Instruction:
    return Workdir(line=node.line, original=node.original, path=_single(node))


def _user(node: Node) -> Instruction:
    return User(line=node.line, original=node.original, user=_single(node))


def _stopsignal(node: Node) -> Instruction:
    return Stopsignal(line=node.line, original=node.original, signal=_single(node))


def _maintainer(node: Node) -> Instruction:
    return Maintainer(line=node.line, original=node.original, name=_single(node))


def _onbuild(node: Node) -> Instruction:
    _Flags(node, ())
    if node.inner is None:
        raise _Refused("ONBUILD needs an instruction")
    if node.inner.name in ("onbuild", "from", "maintainer"):
        raise _Refused(f"ONBUILD cannot keep {node.inner.name.upper()}")
    if node.heredocs:
        raise _Refused("ONBUILD cannot keep a here-document")
    inner = _MAKERS.get(node.inner.name)
    if inner is None:
        raise _Refused(f"unknown instruction {node.inner.name.upper()} in ONBUILD")
    inner(node.inner)
    return Onbuild(line=node.line, original=node.original, trigger=node.inner.original)


_MAKERS: Mapping[str, Callable[[Node], Instruction]] = {
    "add": _copy,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
