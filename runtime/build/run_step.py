"""RUN: the command, its mounts and its variables."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from runtime.build.events import StepOutput
from runtime.build.ground import DEFAULT_PATH, Ground, LayerPlan
from runtime.build.instructions import Instruction, Run
from runtime.build.parser import heredoc_of
from runtime.build.request import HOST_NETWORK, INSECURE
from runtime.build.scope import Scope
from runtime.build.step_mounts import Prepared, StepMounts, parse_mount
from runtime.build.steps import ForeseenRun, ForesightedRunner, Network, RunStep
from runtime.container.config import File
from runtime.errors import ContainerStartError

_TAIL_LINES = 25
_SCRIPTS = "/dev/pipes"
_LONGEST = 200
_NO_MOUNTS = Prepared()


def foresee(instruction: Instruction | None, ground: Ground) -> ForeseenRun | None:
    """Make ready what comes after the layer that is made on `ground`, if that is a RUN which
    needs nothing but it; None where there is nothing to do, or nobody who can."""
    steps, lease = ground.around.steps, ground.around.lease
    if not isinstance(steps, ForesightedRunner) or not isinstance(instruction, Run):
        return None
    if instruction.mounts or instruction.network or instruction.security or instruction.heredocs:
        return None
    argv, _ = _argv(instruction, ground)
    below, upper = lease.path("below"), lease.path("upper")
    upper.mkdir(mode=0o755)
    step = _step(
        ground,
        argv=argv,
        layers=(*ground.layer_paths(), below),
        upper=upper,
        network=ground.around.network,
    )
    return ForeseenRun(below=below, upper=upper, ready=steps.ready(step))


def plan_run(instruction: Run, ground: Ground, foreseen: ForeseenRun | None = None) -> LayerPlan:
    """The layer that a RUN instruction makes; raises BuildError and MountRefused."""
    around, scope, config = ground.around, ground.scope, ground.config
    privileged = _privileged(instruction, ground)
    network = _network(instruction, ground)
    argv, scripts = _argv(instruction, ground)
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
        "env": sorted(f"{name}={value}" for name, value in _env(scope).items()),
        "cwd": cwd,
        "user": config.user,
        "network": network,
        "hosts": around.extra_hosts,
        "mounts": step_mounts.key(mounts, instruction.line),
        **({"security": "insecure"} if privileged else {}),
    }

    def make(upper: Path) -> None:
        if foreseen is not None:
            _run(argv, foreseen.ready.run, ground)
            return
        with step_mounts.prepared(mounts, instruction.line) as prepared:
            step = _step(
                ground,
                argv=argv,
                layers=ground.layer_paths(),
                upper=upper,
                network=network,
                scripts=scripts,
                prepared=prepared,
                privileged=privileged,
            )
            _run(argv, functools.partial(around.steps.run, step), ground)

    args = [f"{name}={value}" for name, value in scope.args.items()]
    prefix = f"|{len(args)} {' '.join(args)} " if args else ""
    return LayerPlan(
        fields=fields,
        make=make,
        by=f"RUN {prefix}{' '.join(argv)}",
        foreseen=foreseen,
    )


def _env(scope: Scope) -> dict[str, str]:
    return {"PATH": DEFAULT_PATH} | scope.variables


def _step(
    ground: Ground,
    *,
    argv: tuple[str, ...],
    layers: Sequence[Path],
    upper: Path,
    network: Network,
    scripts: tuple[File, ...] = (),
    prepared: Prepared = _NO_MOUNTS,
    privileged: bool = False,
) -> RunStep:
    around, scope, config = ground.around, ground.scope, ground.config
    work = around.lease.path("work")
    work.mkdir()
    variables = _env(scope) | scope.undeclared_env() | dict(prepared.env)
    return RunStep(
        layers=tuple(map(str, layers)),
        upper=upper,
        work=work,
        argv=argv,
        env=tuple(f"{name}={value}" for name, value in variables.items()),
        cwd=config.working_dir or "/",
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


def _run(
    argv: tuple[str, ...], run: Callable[[Callable[[bytes], None]], int], ground: Ground
) -> None:
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with _lines(tail) as keep:

        def output(piece: bytes) -> None:
            text = piece.decode(errors="replace")
            keep(text)
            ground.around.progress(StepOutput(step=ground.step, text=text))

        try:
            code = run(output)
        except ContainerStartError as exc:
            raise ground.error(
                f"cannot run {argv[0]}: {exc}", hint=exc.hint, exit_code=exc.exit_code
            ) from exc
    if code:
        command = " ".join(argv)
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
