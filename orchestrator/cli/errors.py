"""The one place that turns exceptions into words and an exit status.

A chain of causes is one line, joined with ": "; a hint stands on a line of its own.
Known errors carry `hint` and, where the status is not 1, `exit_code`; anything else
is a fault of ours and says so.
"""

from __future__ import annotations

import os
import sys

from orchestrator.printable import printable

DEBUG_VARIABLE = "BAYPLAN_DEBUG"


class UsageError(Exception):
    """The command line, or the situation it meets, does not allow what was asked."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code


def report(exc: BaseException) -> int:
    """Print `exc` to standard error for a person and give the exit status."""
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(exc)
    message, hint, status = describe(exc)
    print(f"{_mark()}{printable(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {printable(hint)}", file=sys.stderr)
    return status


def describe(exc: BaseException) -> tuple[str, str | None, int]:
    """Message, hint and exit status of an exception."""
    if not _is_known(exc):
        message = f"internal error: {_chain(exc) or type(exc).__name__} ({type(exc).__name__})"
        return message, _internal_hint(exc), 1
    hint = next((hint for cause in _causes(exc) if (hint := getattr(cause, "hint", None))), None)
    return _chain(exc), hint, int(getattr(exc, "exit_code", None) or 1)


def _is_known(exc: BaseException) -> bool:
    """Our own errors have a `hint` (or say where, as spec errors do); so do the kernel's."""
    return hasattr(exc, "hint") or hasattr(exc, "issues") or isinstance(exc, OSError)


def _internal_hint(exc: BaseException) -> str:
    if isinstance(exc, ImportError):
        return (
            f"cannot import {exc.name}: another distribution may have overwritten a package of "
            "ours; install bayplan in an environment of its own (bay doctor says which)"
        )
    return f"{DEBUG_VARIABLE}=1 shows where; please report it"


def _causes(exc: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in chain:
        chain.append(cause)
        # A spec error has said everything, with file, line and column; its cause knows less.
        cause = None if hasattr(cause, "issues") else cause.__cause__
    return chain


def _chain(exc: BaseException) -> str:
    words: list[str] = []
    for cause in _causes(exc):
        text = _text(cause)
        if text and not any(text in said for said in words):
            words.append(text)
    return ": ".join(words)


def _text(exc: BaseException) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        reason = exc.strerror.lower()
        return f"{exc.filename}: {reason}" if exc.filename else reason
    return str(exc)


def _mark() -> str:
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        return "\x1b[31mbay:\x1b[0m "
    return "bay: "
