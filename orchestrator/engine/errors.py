"""What the engine itself can report; errors of the runtime and the bridge pass through as they
are.

EngineError
├── WaitFailed      a container cannot fulfil the condition that is waited for
├── WaitTimeout     it did not fulfil it in time
├── NameTaken       a container of that name exists already
├── NoSuchContainer a container that is not on record
├── ContainerGone   a container that was removed while it is worked on
├── ContainerFull   a file cannot be written in a container for want of space
├── HookFailed      a hook of a container did not succeed
├── RolloutPaused   somebody asked a rollout to go no further
├── RolloutFailed   more replicas fail than the rollout tolerates
└── StoreError      the state database cannot be used
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

SHORTAGES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}
)
"""Numbers of an OSError that tell what this host lacks, and nothing of what was asked of it."""


class EngineError(Exception):
    """Base; `hint` says what a person can do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class WaitFailed(EngineError):
    """`exit_code` is the container's own where it ended."""

    def __init__(
        self, name: str, reason: str, *, exit_code: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(f"container {name} {reason}", hint=hint)
        self.name = name
        self.exit_code = exit_code


class WaitTimeout(EngineError):
    def __init__(self, name: str, condition: str, seconds: float) -> None:
        super().__init__(f"container {name} is not {condition} after {seconds:g} s")
        self.name = name


class NameTaken(EngineError):
    def __init__(self, name: str, project: str) -> None:
        super().__init__(
            f"container name {name} is taken by project {project}",
            hint="choose another container_name, or take that project down",
        )


class NoSuchContainer(EngineError):
    def __init__(self, name: str) -> None:
        super().__init__(f"no such container: {name}")


class ContainerGone(EngineError):
    def __init__(self, id: str) -> None:
        super().__init__(f"container {id[:12]} is gone")


class ContainerFull(EngineError):
    """`target` is a path in the container."""

    def __init__(self, id: str, target: str) -> None:
        super().__init__(
            f"cannot write {target} in container {id[:12]}",
            hint="free some space where it lies (df), or raise the size of the tmpfs or volume",
        )
        self.target = target


class HookFailed(EngineError):
    """`output_tail` is what the hook wrote last."""

    def __init__(self, name: str, phase: str, number: int, reason: str, output: str = "") -> None:
        last = f": {output.splitlines()[-1]}" if output else ""
        super().__init__(f"{phase} hook {number} of container {name}: {reason}{last}")
        self.output_tail = output


class RolloutPaused(EngineError):
    def __init__(self, service: str) -> None:
        super().__init__(
            f"the rollout of service {service} is paused",
            hint=f"bay rollout resume {service} takes it on, bay rollout undo {service} back",
        )


class RolloutFailed(EngineError):
    """`replicas` are those that are not of the new form."""

    def __init__(self, service: str, replicas: Sequence[str]) -> None:
        super().__init__(f"service {service}: {', '.join(replicas)} failed in the rollout")


class StoreError(EngineError):
    """The state database is damaged, or was written by a later version."""


def chain(error: BaseException) -> str:
    """An error and its causes, joined by colons."""
    texts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        text = str(current) or type(current).__name__
        if not any(text in said for said in texts):
            texts.append(text)
        current = current.__cause__
    return ": ".join(texts)
