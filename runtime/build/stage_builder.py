"""Executes the instructions of one stage, one method each.

Instructions that change files make a layer each, found in the cache where possible; the rest
change the image's config. Source: BuildKit reference.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import posixpath
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtime.build import instructions as ins
from runtime.build.cache import CachedStep, StepCache
from runtime.build.copying import (
    Copier,
    CopyRefused,
    Destination,
    Owner,
    parse_mode,
    parse_owner,
)
from runtime.build.events import (
    BuildEvent,
    BuildWarning,
    StepCached,
    StepDone,
    StepFailed,
    StepOutput,
    StepStarted,
)
from runtime.build.parser import Heredoc, heredoc_of
from runtime.build.scope import Scope
from runtime.build.sources import Item, Selected, SourceTree
from runtime.build.steps import Network, RunStep, StepRunner
from runtime.build.units import parse_ports
from runtime.build.words import WordError
from runtime.errors import BuildError, ContainerStartError, RuntimeFault
from runtime.images.layers import Layer
from runtime.images.leases import Lease
from runtime.images.merged import MergedTree, split
from runtime.images.store import ImageStore
from runtime.images.upper import UpperTree
from runtime.oci.image_config import HistoryEntry, ImageConfig, ImageHealthcheck

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL_LINES = 25
_BY = "bayplan"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """A built stage: its config (without diff IDs), its layers, and its ARGs."""

    config: ImageConfig
    layers: tuple[Layer, ...]
    args: Mapping[str, str]

    @property
    def chain(self) -> str:
        """The chain ID of the file system, "" for an empty one."""
        return self.layers[-1].chain_id if self.layers else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all stages of one build share.

    `open_source` gives the tree that `--from` names (None: the build context); `epoch` is
    SOURCE_DATE_EPOCH in seconds.
    """

    store: ImageStore
    cache: StepCache
    steps: StepRunner
    lease: Lease
    progress: Callable[[BuildEvent], None]
    open_source: Callable[[str | None, int], contextlib.AbstractContextManager[SourceTree]]
    dockerfile: str
    no_cache: bool
    epoch: int | None
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    network: Network = "default"
    check_canceled: Callable[[], None] = field(default=lambda: None)


class StageBuilder:
    """Builds on `base`, instruction by instruction."""

    def __init__(
        self, around: Surroundings, *, title: str, scope: Scope, base: StageResult, count: int
    ) -> None:
        self._around = around
        self._title = title
        self._scope = scope
        self._layers = list(base.layers)
        self._config = base.config
        self._count = count
        self._number = 0
        self._cmd_set = False
        self._line = 0

    def run(self, instructions: Sequence[ins.Instruction]) -> None:
        """Execute instructions; raises BuildError with the line of the one that fails."""
        for instruction in instructions:
            self._around.check_canceled()
            self._number += 1
            self._line = instruction.line
            try:
                self._execute(instruction)
            except (WordError, CopyRefused, ValueError) as exc:
                raise self._error(str(exc)) from exc

    def result(self) -> StageResult:
        return StageResult(
            config=self._config, layers=tuple(self._layers), args=dict(self._scope.args)
        )

    def _execute(self, instruction: ins.Instruction) -> None:
        match instruction:
            case ins.Run():
                self._run(instruction)
            case ins.Copy():
                self._copy(instruction)
            case ins.Workdir():
                self._workdir(instruction)
            case ins.Env():
                self._env(instruction)
            case ins.Label():
                self._label(instruction)
            case ins.Arg():
                self._arg(instruction)
            case ins.Cmd():
                self._cmd(instruction)
            case ins.Entrypoint():
                self._entrypoint(instruction)
            case ins.Shell():
                self._configure(instruction, shell=instruction.argv)
            case ins.Healthcheck():
                self._healthcheck(instruction)
            case ins.Expose():
                self._expose(instruction)
            case ins.Volume():
                paths = {self._scope.expand(path) for path in instruction.paths}
                self._configure(instruction, volumes=tuple(sorted({*self._config.volumes, *paths})))
            case ins.User():
                user = self._scope.expand(instruction.user)
                if not user:
                    raise self._error("the user is empty once its variables are filled in")
                self._configure(instruction, user=user)
            case ins.Stopsignal():
                name = self._scope.expand(instruction.signal)
                self._configure(instruction, stop_signal=_checked_signal(name))
            case ins.Maintainer():
                self._warn(
                    "MaintainerDeprecated",
                    "MAINTAINER is deprecated: use the label org.opencontainers.image.authors",
                )
                self._configure(instruction, author=instruction.name)
            case ins.Onbuild():
                self._configure(instruction, onbuild=(*self._config.onbuild, instruction.trigger))
            case _:
                raise self._error(f"{type(instruction).__name__.upper()} cannot stand here")

    # Instructions that change the config alone

    def _env(self, instruction: ins.Env) -> None:
        # All values see the variables from before the instruction.
        pairs = [
            (self._scope.expand(name), self._scope.expand(value))
            for name, value in instruction.pairs
        ]
        self._scope.env.update(pairs)
        self._configure(
            instruction, env=tuple(f"{name}={value}" for name, value in self._scope.env.items())
        )

    def _label(self, instruction: ins.Label) -> None:
        labels = dict(self._config.labels)
        for name, value in instruction.pairs:
            labels[self._scope.expand(name)] = self._scope.expand(value)
        self._configure(instruction, labels=labels)

    def _arg(self, instruction: ins.Arg) -> None:
        for name, default in instruction.pairs:
            self._scope.declare(name, default)
        self._remember(instruction.original, empty=True)

    def _cmd(self, instruction: ins.Cmd) -> None:
        self._cmd_set = True
        self._configure(instruction, cmd=self._argv(instruction.argv, instruction.command))

    def _entrypoint(self, instruction: ins.Entrypoint) -> None:
        argv = self._argv(instruction.argv, instruction.command)
        if self._cmd_set:
            self._configure(instruction, entrypoint=argv)
        else:
            self._configure(instruction, entrypoint=argv, cmd=None)

    def _healthcheck(self, instruction: ins.Healthcheck) -> None:
        if instruction.kind == "NONE":
            test: tuple[str, ...] = ("NONE",)
        elif instruction.argv is not None:
            test = ("CMD", *instruction.argv)
        else:
            test = ("CMD-SHELL", instruction.command or "")
        self._configure(
            instruction,
            healthcheck=ImageHealthcheck(
                test=test,
                interval=instruction.interval,
                timeout=instruction.timeout,
                start_period=instruction.start_period,
                start_interval=instruction.start_interval,
                retries=instruction.retries,
            ),
        )

    def _expose(self, instruction: ins.Expose) -> None:
        ports = set(self._config.exposed_ports)
        for word in instruction.ports:
            for text in self._scope.expanded(word).words:
                ports.update(parse_ports(text))
        self._configure(instruction, exposed_ports=tuple(sorted(ports)))

    def _configure(self, instruction: ins.Instruction, **changes: Any) -> None:
        self._config = self._config.replace(**changes)
        self._remember(instruction.original, empty=True)

    # Instructions that make a layer

    def _workdir(self, instruction: ins.Workdir) -> None:
        path = self._absolute(self._scope.expand(instruction.path))
        self._config = self._config.replace(working_dir=path)
        with self._merged() as tree:
            found = tree.find(os.fsencode(path))
        if found is not None:
            self._remember(instruction.original, empty=True)
            return

        def make(upper: Path) -> None:
            with self._merged() as lower, self._upper(upper, lower) as tree:
                tree.directory(split(os.fsencode(path)))
                tree.restore_times()

        self._layer(instruction, {"do": "workdir", "path": path}, make)

    def _run(self, instruction: ins.Run) -> None:
        if instruction.security not in (None, "sandbox"):
            raise self._error(f"RUN --security={instruction.security} is not supported")
        if instruction.mounts:
            raise self._error("RUN --mount is not supported yet")
        network = self._network(instruction.network)
        argv = self._run_argv(instruction)
        env = {"PATH": DEFAULT_PATH} | self._scope.command_env()
        fields = {
            "do": "run",
            "argv": argv,
            "env": sorted(f"{name}={value}" for name, value in env.items()),
            "cwd": self._config.working_dir or "/",
            "user": self._config.user,
            "network": network,
            "hosts": self._around.extra_hosts,
        }

        def make(upper: Path) -> None:
            work = self._around.lease.path("work")
            work.mkdir()
            step = RunStep(
                layers=tuple(
                    str(self._around.store.layers.path(layer.chain_id)) for layer in self._layers
                ),
                upper=upper,
                work=work,
                argv=argv,
                env=tuple(
                    f"{name}={value}"
                    for name, value in (env | self._scope.undeclared_env()).items()
                ),
                cwd=self._config.working_dir or "/",
                user=self._config.user,
                network=network,
                extra_hosts=self._around.extra_hosts,
                shm_size=self._around.shm_size,
            )
            self._run_step(step)

        args = [f"{name}={value}" for name, value in self._scope.args.items()]
        prefix = f"|{len(args)} {' '.join(args)} " if args else ""
        self._layer(instruction, fields, make, by=f"RUN {prefix}{' '.join(argv)}")

    def _run_step(self, step: RunStep) -> None:
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        rest = ""

        def output(piece: bytes) -> None:
            nonlocal rest
            text = piece.decode(errors="replace")
            *lines, rest = (rest + text).split("\n")
            tail.extend(lines)
            self._around.progress(StepOutput(step=self._step_id(), text=text))

        try:
            code = self._around.steps.run(step, output)
        except ContainerStartError as exc:
            raise self._error(
                f"cannot run {step.argv[0]}: {exc}", hint=exc.hint, exit_code=exc.exit_code
            ) from exc
        if code:
            if rest:
                tail.append(rest)
            command = " ".join(step.argv)
            shown = command if len(command) <= 200 else command[:200] + "…"
            raise self._error(
                f"the command returned exit code {code}: {shown}",
                output_tail="\n".join(tail),
                exit_code=code,
            )

    def _run_argv(self, instruction: ins.Run) -> tuple[str, ...]:
        shell = self._config.shell or DEFAULT_SHELL
        if instruction.argv is not None:
            return instruction.argv
        command = instruction.command or ""
        if not instruction.heredocs:
            return (*shell, command)
        opened = heredoc_of(command)
        if opened is None:
            # The shell itself knows here-documents: give them back to it.
            for document in instruction.heredocs:
                command += f"\n{document.content}{document.name}"
            return (*shell, command)
        content = instruction.heredocs[0].content
        if content.startswith("#!"):
            raise self._error(
                "a RUN here-document with an interpreter line is not supported yet",
                hint="name the interpreter: RUN python3 <<EOF",
            )
        return (*shell, content)

    def _copy(self, instruction: ins.Copy) -> None:
        self._check_copy(instruction)
        sources = [self._scope.expand(word) for word in instruction.sources]
        written = self._scope.expand(instruction.destination)
        count = len(sources) + len(instruction.inline)
        directory = written.endswith("/") or posixpath.basename(written) in (".", "..")
        if count > 1 and not directory:
            raise self._error(
                "with more than one source the destination must be a directory and end with /"
            )
        documents = [(document.name, self._document(document)) for document in instruction.inline]
        with self._around.open_source(instruction.from_, instruction.line) as source:
            selections = [
                (selected, tuple(source.items(selected.parts)))
                for word in sources
                for selected in self._select(source, word, instruction)
            ]
            if len(selections) > 1 and not directory:
                # Wildcards that match several: the destination is a directory all the same.
                directory = True
            destination = Destination(path=self._absolute(written), directory=directory)
            fields = {
                "do": "copy",
                "destination": [destination.path, destination.directory],
                "chown": self._expanded(instruction.chown),
                "chmod": self._expanded(instruction.chmod),
                "content": [
                    [os.fsdecode(selected.name), selected.is_directory, source.digest(items)]
                    for selected, items in selections
                ],
                "documents": documents,
            }

            def make(upper: Path) -> None:
                self._write_copy(upper, instruction, source, selections, documents, destination)

            self._layer(instruction, fields, make)

    def _write_copy(
        self,
        upper: Path,
        instruction: ins.Copy,
        source: SourceTree,
        selections: Sequence[tuple[Selected, tuple[Item, ...]]],
        documents: Sequence[tuple[str, str]],
        destination: Destination,
    ) -> None:
        now = time.time_ns() if self._around.epoch is None else self._around.epoch * 10**9
        chmod = self._expanded(instruction.chmod)
        with self._merged() as lower, self._upper(upper, lower) as tree:
            copier = Copier(
                tree,
                source,
                owner=self._owner(instruction.chown, lower),
                mode=None if chmod is None else parse_mode(chmod),
            )
            try:
                for selected, items in selections:
                    copier.copy(selected, items, destination)
                for name, content in documents:
                    copier.write(name, content.encode(), now, destination)
            except OSError as exc:
                where = f" {exc.filename}" if exc.filename else ""
                raise self._error(f"cannot copy{where}: {(exc.strerror or '').lower()}") from exc
            tree.restore_times()

    def _check_copy(self, instruction: ins.Copy) -> None:
        word = "ADD" if instruction.add else "COPY"
        for flag, given in (
            ("--link", instruction.link),
            ("--parents", instruction.parents),
            ("--exclude", bool(instruction.exclude)),
            ("--checksum", instruction.checksum is not None),
            ("--keep-git-dir", instruction.keep_git_dir),
            ("--unpack", instruction.unpack is not None),
        ):
            if given:
                raise self._error(f"{word} {flag} is not supported yet")
        if instruction.add:
            for source in map(self._scope.expand, instruction.sources):
                if "://" in source or source.startswith("git@"):
                    raise self._error(
                        f"ADD of the remote source {source} is not supported yet",
                        hint="fetch it in a RUN step",
                    )

    def _select(self, source: SourceTree, word: str, instruction: ins.Copy) -> tuple[Selected, ...]:
        selected = source.select(word)
        if not selected:
            hint = None
            if instruction.from_ is None and source.is_ignored(word):
                hint = "the file exists, but .dockerignore leaves it out"
            where = "the build context" if instruction.from_ is None else instruction.from_
            raise self._error(f"{word!r} is not in {where}", hint=hint)
        return selected

    def _document(self, document: Heredoc) -> str:
        return self._scope.document(document.content) if document.expand else document.content

    # Layers

    def _layer(
        self,
        instruction: ins.Instruction,
        fields: Mapping[str, Any],
        make: Callable[[Path], None],
        *,
        by: str | None = None,
    ) -> None:
        """Find the step's layer in the cache, or make it in an upper directory."""
        around = self._around
        step = self._step_id()
        name = f"[{self._title} {self._number}/{self._count}] {instruction.original}"
        around.progress(StepStarted(step=step, name=name, line=instruction.line, stage=self._title))
        chain = self._layers[-1].chain_id if self._layers else ""
        key = StepCache.key({**fields, "below": chain, "epoch": around.epoch})
        started = time.monotonic()
        try:
            with around.cache.working_on(key):
                known = None if around.no_cache else around.cache.find(key, around.lease)
                if known is not None:
                    around.progress(StepCached(step=step))
                else:
                    known = self._made(make)
                    around.cache.put(key, known)
                    seconds = time.monotonic() - started
                    around.progress(StepDone(step=step, seconds=seconds))
        except (RuntimeFault, CopyRefused) as exc:
            seconds = time.monotonic() - started
            around.progress(StepFailed(step=step, seconds=seconds, message=str(exc)))
            raise
        self._layers.append(known.layer)
        self._config = self._config.replace(created=known.created)
        self._remember(by or instruction.original, empty=False)

    def _made(self, make: Callable[[Path], None]) -> CachedStep:
        around = self._around
        upper = around.lease.path("upper")
        upper.mkdir(mode=0o755)
        with self._merged() as lower, self._upper(upper, lower) as tree:
            tree.root_like_lower()
        make(upper)
        layer = around.store.commit_directory(
            upper,
            lease=around.lease,
            parents=tuple(layer.chain_id for layer in self._layers),
            epoch=around.epoch,
        )
        return CachedStep(layer=layer, created=timestamp(around.epoch))

    def _merged(self) -> MergedTree:
        return MergedTree(self._around.store.layers.path(layer.chain_id) for layer in self._layers)

    def _upper(self, path: Path, lower: MergedTree) -> UpperTree:
        return UpperTree(path, lower, privileged=os.geteuid() == 0, follow_own=True)

    # Small things

    def _remember(self, by: str, *, empty: bool) -> None:
        entry = HistoryEntry(
            created=self._config.created, created_by=by, comment=_BY, empty_layer=empty
        )
        self._config = self._config.replace(history=(*self._config.history, entry))

    def _argv(self, argv: tuple[str, ...] | None, command: str | None) -> tuple[str, ...] | None:
        if argv is not None:
            return argv
        if not command:
            return None
        return (*(self._config.shell or DEFAULT_SHELL), command)

    def _absolute(self, path: str) -> str:
        joined = posixpath.join(self._config.working_dir or "/", path)
        return posixpath.normpath("/" + joined.lstrip("/"))

    def _owner(self, chown: str | None, lower: MergedTree) -> Owner | None:
        text = self._expanded(chown)
        if text is None:
            return None
        try:
            return parse_owner(text, lower.read(b"/etc/passwd"), lower.read(b"/etc/group"))
        except OSError as exc:
            reason = (exc.strerror or "").lower()
            raise self._error(f"--chown={text}: cannot read {exc.filename}: {reason}") from exc

    def _network(self, asked: str | None) -> Network:
        match asked:
            case None:
                return self._around.network
            case "default" | "none" | "host":
                return asked
            case _:
                raise self._error(f"RUN --network={asked}: it is default, none or host")

    def _expanded(self, text: str | None) -> str | None:
        return None if text is None else self._scope.expand(text)

    def _step_id(self) -> str:
        return f"{self._title}/{self._number}"

    def _warn(self, rule: str, message: str) -> None:
        self._around.progress(BuildWarning(rule=rule, message=message, line=self._line))

    def _error(
        self,
        message: str,
        *,
        hint: str | None = None,
        output_tail: str = "",
        exit_code: int | None = None,
    ) -> BuildError:
        return BuildError(
            message,
            dockerfile=self._around.dockerfile,
            line=self._line,
            hint=hint,
            output_tail=output_tail,
            exit_code=exit_code,
        )


def timestamp(epoch: int | None) -> str:
    """Now, or the epoch, in RFC 3339."""
    moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(epoch, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if epoch is None else "%Y-%m-%dT%H:%M:%SZ")


def _checked_signal(name: str) -> str:
    plain = name.upper().removeprefix("SIG")
    known = {item.name.removeprefix("SIG") for item in signal.Signals}
    number = plain.isdecimal() and 0 < int(plain) <= signal.NSIG
    realtime = plain.startswith(("RTMIN+", "RTMAX-")) and plain[6:].isdecimal()
    if not (number or realtime or plain in known):
        raise ValueError(f"{name!r} is not a signal")
    return name


def without_layers(config: ImageConfig) -> ImageConfig:
    """An image's config to build on."""
    return dataclasses.replace(config, diff_ids=())
