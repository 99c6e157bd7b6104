"""Renders a repository's templates in processes of their own; see `template_process`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from orchestrator.gitops import template_process
from orchestrator.gitops.errors import HostFailed
from specs.errors import SpecError, SpecIssue
from specs.source import Mark, Source, issue

PATIENCE = 60.0
"""Seconds until a process is given up that its bound on processor time has not ended."""
ALL_SECONDS = 300.0
"""Of processor time, for all templates of a commit."""


class Templates:
    """Renders the templates of one commit; `seconds` of processor time are for all of them."""

    def __init__(self, seconds: float = ALL_SECONDS) -> None:
        self._left = self._seconds = seconds

    def render(self, template: Source, values: Mapping[str, Any], marked: bool) -> str:
        """As `specs.templates.render`. Blocking; raises SpecError, or HostFailed where this host
        does not let a process do it."""
        if self._left <= 0:
            message = f"the templates take more than {self._seconds:g} s of processor time"
            raise _refused(template, message)
        try:
            return self._render(template, values, marked)
        except OSError as exc:
            raise HostFailed(f"render {template.name} in a process of its own: {exc}") from exc

    def _render(self, template: Source, values: Mapping[str, Any], marked: bool) -> str:
        asked = {"text": template.text, "values": values, "marked": marked}
        # Files in memory: neither side waits for the other, and the process' own limit bounds
        # what it writes.
        with (
            os.fdopen(os.memfd_create("template"), "w+b") as request,
            os.fdopen(os.memfd_create("rendered"), "w+b") as answer,
            os.fdopen(os.memfd_create("complaints"), "w+b") as complaints,
        ):
            request.write(json.dumps(asked).encode())
            request.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", template_process.__name__],
                stdin=request,
                stdout=answer,
                stderr=complaints,
                cwd="/",
                env={"LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
            status, seconds = _await(process)
            self._left -= seconds
            if status != 0:
                complaints.seek(0)
                raise _explain(template, status, complaints.read(2**20))
            answer.seek(0)
            return _text(template, answer.read())


def _await(process: subprocess.Popen[bytes]) -> tuple[int | None, float]:
    """The exit status, None where it did not end in time, and the processor time it took."""
    fd = os.pidfd_open(process.pid)
    ended: list[int] = []
    try:
        ended, _, _ = select.select([fd], [], [], PATIENCE)
    finally:
        if not ended:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        os.close(fd)
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    return process.returncode if ended else None, usage.ru_utime + usage.ru_stime


def _text(template: Source, answer: bytes) -> str:
    said = json.loads(answer)
    if "text" in said:
        return str(said["text"])
    issues = []
    for fault in said["faults"]:
        hint = str(fault["hint"]) if fault["hint"] else None
        mark = Mark(template, int(fault["line"]), 1)
        issues.append(issue(str(fault["message"]), mark=mark, hint=hint))
    raise SpecError(issues)


def _explain(template: Source, status: int | None, complaints: bytes) -> Exception:
    """Why there is no answer: the bounds of the process first."""
    if status == -signal.SIGXCPU:
        seconds = template_process.SECONDS
        return _refused(template, f"template takes more than {seconds} s of processor time")
    lines = complaints.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1] if lines else ""
    if last.startswith("MemoryError"):
        return _refused(template, "template takes too much memory")
    if status == -signal.SIGSEGV:
        return _refused(template, "template breaks the process that renders it")
    said = last or ("it did not end" if status is None else f"it ended with status {status}")
    return HostFailed(f"render {template.name} in a process of its own: {said}")


def _refused(template: Source, message: str) -> SpecError:
    return SpecError([SpecIssue(message=message, file=template.name)])
