"""The one place that turns an exception into the API's error body and status."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from orchestrator.engine.errors import SHORTAGES, EngineError, chain
from orchestrator.planning.errors import PlanningError

# By class name along the class's ancestry, so that the API needs no import of the layers below.
_STATUS = {
    "NotFound": 404,
    "NetworkNotFound": 404,
    "NoSuchContainer": 404,
    "NoSuchProject": 404,
    "NoSuchRevision": 404,
    "NoSuchRollout": 404,
    "NoSuchPassage": 404,
    "NoSuchSource": 404,
    "UnknownService": 404,
    "AlreadyExists": 409,
    "InUse": 409,
    "NetworkInUse": 409,
    "InvalidState": 409,
    "NameTaken": 409,
    "PortInUse": 409,
    "CannotListen": 409,
    "RolloutNotRunning": 409,
    "SourceSuspended": 409,
    "PlanningError": 400,
    "CanonicalError": 400,
    "ValidationError": 400,
    "BadRequest": 400,
    "SpecError": 400,
    "BuildError": 422,
    "ImageError": 422,
    "GitOpsError": 422,
}


class NoSuchProject(EngineError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"no such project: {name}", hint="give its compose file with -f, or go to its folder"
        )


class BadRequest(EngineError):
    """A request that the API does not understand."""


def status_of(error: BaseException) -> int:
    """The HTTP status of an error."""
    for ancestor in type(error).__mro__:
        if ancestor.__name__ in _STATUS:
            return _STATUS[ancestor.__name__]
    return 500


def error_body(error: BaseException) -> dict[str, Any]:
    """`{"type", "message", "hint", "exit_code"}`; the message is the whole chain of causes. One
    that may pass by itself is marked `transient`, with a `reason`."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"the request is not valid: {where}: {first['msg'].lower()}"
    elif isinstance(error, BaseExceptionGroup):
        message = "; ".join([str(error.message), *(chain(e) for e in error.exceptions)])
    else:
        message = chain(error)
    body: dict[str, Any] = {
        "type": type(error).__name__,
        "message": _text(message),
        "hint": _hint(error),
        "exit_code": _exit_code(error),
    }
    if reason := _passing(error):
        body |= {"transient": True, "reason": reason}
    for name in ("dockerfile", "line", "output_tail"):
        if getattr(error, name, None):
            body[name] = getattr(error, name)
    return body


def _text(message: str) -> str:
    """The message with the bytes of names that are no text spelled out."""
    return message.encode(errors="backslashreplace").decode()


def expected(error: BaseException) -> bool:
    """Whether the error is an answer, not a fault of the program."""
    return isinstance(error, EngineError | PlanningError) or status_of(error) < 500


def _exit_code(error: BaseException) -> int:
    """What the command line ends with: Docker's 125 to 127 where a container cannot start."""
    if type(error).__name__ == "ContainerStartError":
        return int(getattr(error, "exit_code", 125))
    return 1


def _passing(error: BaseException) -> str | None:
    """The word for a failure that says nothing against what was asked for, and that may pass:
    something could not be reached, or this host lacks room."""
    current: BaseException | None = error
    while current is not None:
        if type(current).__name__ == "Unreachable":
            return "Unreachable"
        if isinstance(current, OSError) and current.errno in SHORTAGES:
            return "HostFailed"
        current = current.__cause__
    return None


def _hint(error: BaseException) -> str | None:
    """The nearest hint along the chain of causes."""
    current: BaseException | None = error
    while current is not None:
        hint = getattr(current, "hint", None)
        if hint:
            return _text(str(hint))
        current = current.__cause__
    return None
