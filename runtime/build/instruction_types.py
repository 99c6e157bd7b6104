"""The instructions of a Dockerfile as types. Source: BuildKit reference.md."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.build.parser import Heredoc


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What all instructions have: their line, and their text for history and messages."""

    line: int
    original: str


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    base: str
    name: str | None
    platform: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """`argv` for the exec form, `command` for the shell form."""

    argv: tuple[str, ...] | None
    command: str | None
    heredocs: tuple[Heredoc, ...]
    mounts: tuple[str, ...]
    network: str | None
    security: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """COPY and ADD; `sources` are paths, URLs or here-documents' names (`inline`)."""

    add: bool
    sources: tuple[str, ...]
    inline: tuple[Heredoc, ...]
    destination: str
    from_: str | None
    chown: str | None
    chmod: str | None
    link: bool
    parents: bool
    exclude: tuple[str, ...]
    checksum: str | None
    keep_git_dir: bool
    unpack: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """Names with their default values, None where there is none."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    argv: tuple[str, ...] | None
    command: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    argv: tuple[str, ...] | None
    command: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """`kind` is NONE or CMD; times in nanoseconds, 0 takes the default."""

    kind: str
    argv: tuple[str, ...] | None
    command: str | None
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopsignal(Instruction):
    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Instruction):
    trigger: str
