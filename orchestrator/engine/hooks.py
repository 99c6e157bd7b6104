"""Runs a hook in a container: a command that must succeed, with settings of its own."""

from __future__ import annotations

import asyncio

from orchestrator.engine.errors import HookFailed
from orchestrator.engine.exits import readable
from orchestrator.engine.host import Host
from orchestrator.engine.probes import Output, end_process
from orchestrator.planning import actions
from runtime.container.config import ExecConfig
from runtime.errors import ContainerStartError, RuntimeFault
from runtime.linux import process


async def run_hook(host: Host, action: actions.RunHook) -> None:
    """Raises HookFailed; cancelling it kills the command."""
    record, hook = host.record(action.name), action.hook
    environment = {**(hook.get("environment") or {})}
    config = ExecConfig(
        argv=tuple(hook.get("command") or ()),
        env=tuple(f"{key}={value}" for key, value in environment.items() if value is not None),
        cwd=hook.get("working_dir") or None,
        user=hook.get("user") or None,
        privileged=bool(hook.get("privileged")),
    )

    def failed(reason: str, output: str = "") -> HookFailed:
        return HookFailed(action.name, action.phase, action.number, reason, output)

    if not config.argv:
        raise failed("it has no command")
    try:
        session = await asyncio.to_thread(host.containers.exec, record.id, config)
    except ContainerStartError as exc:
        raise failed("it cannot be run") from exc
    identity = process.start_time(session.pid)
    with session:
        output = Output(session)
        try:
            await readable(session.connection)
            exit_code = session.wait()
        except asyncio.CancelledError:
            end_process(session.pid, identity)
            raise
        except RuntimeFault as exc:
            raise failed("the container ended") from exc
        finally:
            output.close()
    if exit_code:
        raise failed(f"exited with {exit_code}", output.text().strip())
    if action.phase == "post_start" and action.number == len(record.spec["service"]["post_start"]):
        host.store.update_container(record.id, hooks_due=False)
