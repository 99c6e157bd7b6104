"""The instructions that change an image's config alone.

They also are what `commit --change` and `import --change` take. Source: BuildKit
reference.md and Docker's documentation of `docker commit`.
"""

from __future__ import annotations

import posixpath
import signal
from collections.abc import Sequence

from runtime.build import instructions as ins
from runtime.build.parser import parse
from runtime.build.scope import Scope
from runtime.build.units import parse_ports
from runtime.oci.image_config import ImageConfig, ImageHealthcheck

DEFAULT_SHELL = ("/bin/sh", "-c")


class Configurator:
    """Applies instructions to a config, one after the other."""

    def __init__(self, config: ImageConfig, scope: Scope) -> None:
        self.config = config
        self._scope = scope
        self._cmd_set = False

    def apply(self, instruction: ins.Instruction) -> bool:
        """Apply an instruction; False for one that does more than change the config.

        Raises ValueError.
        """
        expand = self._scope.expand
        match instruction:
            case ins.Env():
                # All values see the variables from before the instruction.
                pairs = [(expand(name), expand(value)) for name, value in instruction.pairs]
                self._scope.env.update(pairs)
                env = tuple(f"{name}={value}" for name, value in self._scope.env.items())
                self.config = self.config.replace(env=env)
            case ins.Label():
                labels = {expand(name): expand(value) for name, value in instruction.pairs}
                self.config = self.config.replace(labels={**self.config.labels, **labels})
            case ins.Arg():
                for name, default in instruction.pairs:
                    self._scope.declare(name, default)
            case ins.Cmd():
                self._cmd_set = True
                self.config = self.config.replace(cmd=self._argv(instruction))
            case ins.Entrypoint():
                self._entrypoint(instruction)
            case ins.Shell():
                self.config = self.config.replace(shell=instruction.argv)
            case ins.Healthcheck():
                self.config = self.config.replace(healthcheck=_healthcheck(instruction))
            case ins.Expose():
                self._expose(instruction)
            case ins.Volume():
                paths = {*self.config.volumes, *map(expand, instruction.paths)}
                self.config = self.config.replace(volumes=tuple(sorted(paths)))
            case ins.User():
                user = expand(instruction.user)
                if not user:
                    raise ValueError("the user is empty once its variables are filled in")
                self.config = self.config.replace(user=user)
            case ins.Stopsignal():
                name = _checked_signal(expand(instruction.signal))
                self.config = self.config.replace(stop_signal=name)
            case ins.Maintainer():
                self.config = self.config.replace(author=instruction.name)
            case ins.Onbuild():
                triggers = (*self.config.onbuild, instruction.trigger)
                self.config = self.config.replace(onbuild=triggers)
            case _:
                return False
        return True

    def working_directory(self, instruction: ins.Workdir) -> str:
        """Set the working directory; the absolute path, which a build must make."""
        path = self._scope.expand(instruction.path)
        joined = posixpath.join(self.config.working_dir or "/", path)
        absolute = posixpath.normpath("/" + joined.lstrip("/"))
        self.config = self.config.replace(working_dir=absolute)
        return absolute

    def _argv(self, instruction: ins.Cmd | ins.Entrypoint) -> tuple[str, ...] | None:
        if instruction.argv is not None:
            return instruction.argv
        if not instruction.command:
            return None
        return (*(self.config.shell or DEFAULT_SHELL), instruction.command)

    def _entrypoint(self, instruction: ins.Entrypoint) -> None:
        """An inherited command belongs to the inherited entry point and goes with it."""
        self.config = self.config.replace(entrypoint=self._argv(instruction))
        if not self._cmd_set:
            self.config = self.config.replace(cmd=None)

    def _expose(self, instruction: ins.Expose) -> None:
        ports = set(self.config.exposed_ports)
        for word in instruction.ports:
            for text in self._scope.expanded(word).words:
                ports.update(parse_ports(text))
        self.config = self.config.replace(exposed_ports=tuple(sorted(ports)))


def changed(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The config after `--change` instructions; raises BuildError and ValueError."""
    scope = Scope(env=config.env, given={}, outer={}, inherited={}, escape="\\")
    configurator = Configurator(config, scope)
    for text in changes:
        for node in parse(text, name="--change").nodes:
            instruction = ins.instruction(node, "--change")
            if isinstance(instruction, ins.Workdir):
                configurator.working_directory(instruction)
            elif isinstance(instruction, ins.Arg) or not configurator.apply(instruction):
                raise ValueError(f"--change cannot be {node.name.upper()}")
    return configurator.config


def _healthcheck(instruction: ins.Healthcheck) -> ImageHealthcheck:
    if instruction.kind == "NONE":
        test: tuple[str, ...] = ("NONE",)
    elif instruction.argv is not None:
        test = ("CMD", *instruction.argv)
    else:
        test = ("CMD-SHELL", instruction.command or "")
    return ImageHealthcheck(
        test=test,
        interval=instruction.interval,
        timeout=instruction.timeout,
        start_period=instruction.start_period,
        start_interval=instruction.start_interval,
        retries=instruction.retries,
    )


def _checked_signal(name: str) -> str:
    plain = name.upper().removeprefix("SIG")
    known = {item.name.removeprefix("SIG") for item in signal.Signals}
    number = plain.isdecimal() and 0 < int(plain) <= signal.NSIG
    realtime = plain.startswith(("RTMIN+", "RTMAX-")) and plain[6:].isdecimal()
    if not (number or realtime or plain in known):
        raise ValueError(f"{name!r} is not a signal")
    return name
