"""RUN: the command, its mounts and its variables."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from runtime.build.events import StepOutput
from runtime.build.ground import DEFAULT_PATH, Ground, LayerPlan
from runtime.build.instructions import Run
from runtime.build.parser import heredoc_of
from runtime.build.request import HOST_NETWORK, INSECURE
from runtime.build.step_mounts import StepMounts, parse_mount
from runtime.build.steps import Network, RunStep
from runtime.container.config import File
from runtime.errors import ContainerStartError

_TAIL_LINES = 25
_SCRIPTS = "/dev/pipes"
_LONGEST = 200


def plan_run(instruction: Run, ground: Ground) -> LayerPlan:
    """The layer that a RUN instruction makes; raises BuildError and MountRefused."""
    around, scope, config = ground.around, ground.scope, ground.config
    privileged = _privileged(instruction, ground)
    network = _network(instruction, ground)
    argv, scripts = _argv(instruction, ground)
    env = {"PATH": DEFAULT_PATH} | scope.variables
    cwd = config.working_dir or "/"
    mounts = [parse_mount(text, scope.expand, cwd) for text in instruction.mounts]
    step_mounts = StepMounts(
        caches=around.cache.mounts,
        locks=around.cache.mount_locks,
        lease=around.lease,
        open_source=around.open_source,
        secrets=around.secrets,
        ssh=around.ssh,
        wait=around.wait,
    )
    fields = {
        "do": "run",
        "argv": argv,
        "scripts": [script.content for script in scripts],
        "env": sorted(f"{name}={value}" for name, value in env.items()),
        "cwd": cwd,
        "user": config.user,
        "network": network,
        "hosts": around.extra_hosts,
        "mounts": step_mounts.key(mounts, instruction.line),
        **({"security": "insecure"} if privileged else {}),
    }

    def make(upper: Path) -> None:
        work = around.lease.path("work")
        work.mkdir()
        with step_mounts.prepared(mounts, instruction.line) as prepared:
            variables = env | scope.undeclared_env() | dict(prepared.env)
            step = RunStep(
                layers=tuple(map(str, ground.layer_paths())),
                upper=upper,
                work=work,
                argv=argv,
                env=tuple(f"{name}={value}" for name, value in variables.items()),
                cwd=cwd,
                user=config.user,
                network=network,
                mounts=prepared.mounts,
                tmpfs=prepared.tmpfs,
                files=(*prepared.files, *scripts),
                extra_hosts=around.extra_hosts,
                shm_size=around.shm_size,
                ulimits=around.ulimits,
                memory=around.memory,
                privileged=privileged,
                stop=around.stop,
            )
            _run(step, ground)

    args = [f"{name}={value}" for name, value in scope.args.items()]
    prefix = f"|{len(args)} {' '.join(args)} " if args else ""
    return LayerPlan(fields=fields, make=make, by=f"RUN {prefix}{' '.join(argv)}")


def _run(step: RunStep, ground: Ground) -> None:
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with _lines(tail) as keep:

        def output(piece: bytes) -> None:
            text = piece.decode(errors="replace")
            keep(text)
            ground.around.progress(StepOutput(step=ground.step, text=text))

        try:
            code = ground.around.steps.run(step, output)
        except ContainerStartError as exc:
            raise ground.error(
                f"cannot run {step.argv[0]}: {exc}", hint=exc.hint, exit_code=exc.exit_code
            ) from exc
    if code:
        command = " ".join(step.argv)
        shown = command if len(command) <= _LONGEST else command[:_LONGEST] + "…"
        raise ground.error(
            f"the command returned exit code {code}: {shown}",
            output_tail="\n".join(tail),
            exit_code=code,
        )


@contextlib.contextmanager
def _lines(tail: deque[str]) -> Iterator[Callable[[str], None]]:
    """Collects text as lines; what has no end counts as a line at the end."""
    rest = ""

    def keep(text: str) -> None:
        nonlocal rest
        *lines, rest = (rest + text).split("\n")
        tail.extend(lines)

    yield keep
    if rest:
        tail.append(rest)


def _argv(instruction: Run, ground: Ground) -> tuple[tuple[str, ...], tuple[File, ...]]:
    """What to execute, and the script files that it needs."""
    if instruction.argv is not None:
        return instruction.argv, ()
    command = instruction.command or ""
    if not instruction.heredocs:
        return (*ground.shell, command), ()
    if heredoc_of(command) is None:
        # The shell itself knows here-documents: give them back to it.
        for document in instruction.heredocs:
            command += f"\n{document.content}{document.name}"
        return (*ground.shell, command), ()
    document = instruction.heredocs[0]
    if document.content.startswith("#!"):
        path = f"{_SCRIPTS}/{document.name.replace('/', '_')}"
        return (path,), (File(target=path, content=document.content, mode=0o755),)
    return (*ground.shell, document.content), ()


def _network(instruction: Run, ground: Ground) -> Network:
    match instruction.network:
        case None:
            return ground.around.network
        case "host" if ground.around.network != "host":
            _require(HOST_NETWORK, "RUN --network=host", ground)
            return "host"
        case "default" | "none" | "host":
            return instruction.network
        case asked:
            raise ground.error(f"RUN --network={asked}: it is default, none or host")


def _privileged(instruction: Run, ground: Ground) -> bool:
    match instruction.security:
        case None | "sandbox":
            return False
        case "insecure":
            _require(INSECURE, "RUN --security=insecure", ground)
            return True
        case asked:
            raise ground.error(f"RUN --security={asked}: it is sandbox or insecure")


def _require(entitlement: str, what: str, ground: Ground) -> None:
    if entitlement not in ground.around.entitlements:
        raise ground.error(
            f"{what} needs the entitlement {entitlement}",
            hint=f"grant it where the build is described: entitlements: [{entitlement}]",
        )
