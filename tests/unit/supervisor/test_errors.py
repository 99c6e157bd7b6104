"""One place turns exceptions into the API's error bodies."""

from __future__ import annotations

import errno

import pytest
from pydantic import ValidationError

from bridge.errors import PortInUse
from orchestrator.engine.errors import EngineError
from orchestrator.planning.errors import UnknownService
from orchestrator.supervisor.bodies import UpBody
from orchestrator.supervisor.errors import NoSuchProject, error_body, expected, status_of
from runtime.errors import BuildError, ContainerStartError, ImageNotFound, InUse
from runtime.registry.errors import Unreachable


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ImageNotFound("app"), 404),
        (NoSuchProject("shop"), 404),
        (UnknownService("wbe", ["web"]), 404),
        (PortInUse("0.0.0.0", 80, "tcp", "nginx (pid 1)"), 409),
        (InUse("volume", "data", ("shop-db-1",)), 409),
        (BuildError("no"), 422),
        (ContainerStartError("run", step="exec"), 500),
        (RuntimeError("a bug"), 500),
    ],
)
def test_errors_have_their_status(error: Exception, status: int) -> None:
    assert status_of(error) == status


def test_the_message_is_the_chain_and_the_hint_the_nearest() -> None:
    with pytest.raises(EngineError) as caught:
        try:
            raise ImageNotFound("app", hint="build it")
        except ImageNotFound as exc:
            raise EngineError("create container shop-web-1") from exc
    assert error_body(caught.value) == {
        "type": "EngineError",
        "message": "create container shop-web-1: no such image: app",
        "hint": "build it",
        "exit_code": 1,
    }


def test_a_command_that_is_not_there_keeps_its_exit_code() -> None:
    error = ContainerStartError("nothing", step="exec", exit_code=127)
    assert error_body(error)["exit_code"] == 127


def test_a_failed_build_tells_where_and_ends_with_1() -> None:
    error = BuildError("failed", dockerfile="Dockerfile", line=3, output_tail="oops", exit_code=9)
    body = error_body(error)
    assert (body["dockerfile"], body["line"], body["output_tail"]) == ("Dockerfile", 3, "oops")
    assert body["exit_code"] == 1


def test_all_errors_of_a_group_are_told() -> None:
    group = ExceptionGroup("cannot take down", [OSError("a"), OSError("b")])
    assert error_body(group)["message"] == "cannot take down; a; b"


def test_a_bad_body_names_the_field() -> None:
    with pytest.raises(ValidationError) as caught:
        UpBody.model_validate({"options": {"no_such_flag": True}})
    assert error_body(caught.value)["message"] == (
        "the request is not valid: options.no_such_flag: extra inputs are not permitted"
    )
    assert status_of(caught.value) == 400


def test_what_may_pass_by_itself_is_marked_with_the_reason() -> None:
    def behind(cause: Exception) -> dict[str, object]:
        error = EngineError("create container shop-web-1")
        error.__cause__ = cause
        return error_body(error)

    full = behind(OSError(errno.ENOSPC, "no space left on device"))
    assert (full["transient"], full["reason"]) == (True, "HostFailed")
    away = behind(Unreachable("registry.example.org"))
    assert (away["transient"], away["reason"]) == (True, "Unreachable")
    assert not {"transient", "reason"} & behind(OSError(errno.ENOENT, "no such file")).keys()


def test_a_bug_is_not_an_expected_answer() -> None:
    assert expected(UnknownService("a", []))
    assert not expected(KeyError("x"))


def test_a_name_that_is_no_text_is_spelled_out() -> None:
    error = EngineError("cannot read /srv/\udcff", hint="rename \udcff")
    body = error_body(error)
    assert body["message"] == r"cannot read /srv/\udcff"
    assert body["hint"] == r"rename \udcff"
