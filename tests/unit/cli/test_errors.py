"""Every exception becomes one message, a hint, and an exit status."""

import pytest

from orchestrator.cli.errors import UsageError, describe, report
from orchestrator.client.errors import ApiError


class _Fault(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _raised(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


def test_causes_are_joined_in_one_line_and_a_hint_may_come_from_any() -> None:
    exc = _raised(_Fault("start container web"), _Fault("mount /data", hint="make it a directory"))

    assert describe(exc) == ("start container web: mount /data", "make it a directory", 1)


def test_what_a_message_says_already_is_not_said_twice() -> None:
    exc = _raised(_Fault("open /x: permission denied"), PermissionError(13, "Permission denied"))

    assert describe(exc)[0] == "open /x: permission denied"


def test_errors_of_the_kernel_are_lower_case_with_their_path() -> None:
    exc = FileNotFoundError(2, "No such file or directory", "/x/compose.yaml")

    assert describe(exc) == ("/x/compose.yaml: no such file or directory", None, 1)


def test_the_exit_status_is_the_one_that_the_error_carries() -> None:
    assert describe(ApiError("X", "no command", hint=None, exit_code=127))[2] == 127


def test_a_fault_of_ours_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyError("name")) == 1

    message, hint = capsys.readouterr().err.splitlines()
    assert message == "bay: internal error: 'name' (KeyError)"
    assert hint.startswith("hint: ")


def test_a_message_without_hint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report(UsageError("--scale x: it must be SERVICE=NUMBER"))

    assert capsys.readouterr().err == "bay: --scale x: it must be SERVICE=NUMBER\n"
