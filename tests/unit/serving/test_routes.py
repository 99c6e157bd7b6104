"""Which handler a request is for."""

from __future__ import annotations

import pytest

from orchestrator.serving.messages import Answer, HttpError, Request, Response
from orchestrator.serving.routes import Router, RouteTable
from orchestrator.serving.targets import unescape

TABLE = RouteTable()


@TABLE.get("/v1/images")
@TABLE.get("/v1/images/{reference:.+}")
@TABLE.delete("/v1/images/{reference:.+}")
@TABLE.post("/v1/images/bootstrap")
@TABLE.put("/v1/projects/{project}/{verb:start|stop}")
@TABLE.get("/v1/projects/{project}/revisions/{number:[0-9]+}")
async def handler(_request: Request) -> Answer:
    return Response(b"")


ROUTER = Router(TABLE)


def find(method: str, path: str) -> tuple[str, dict[str, str]]:
    route, parameters = ROUTER.find(method, unescape(path))
    return route.path, parameters


def refused(method: str, path: str) -> tuple[int, str]:
    with pytest.raises(HttpError) as raised:
        find(method, path)
    return raised.value.status, raised.value.headers.get("Allow", "")


def test_a_parameter_is_one_segment_or_what_its_pattern_takes() -> None:
    assert find("PUT", "/v1/projects/shop/stop")[1] == {"project": "shop", "verb": "stop"}
    assert find("GET", "/v1/images/a/b/c:1")[1] == {"reference": "a/b/c:1"}
    assert find("GET", "/v1/projects/p/revisions/12")[1] == {"project": "p", "number": "12"}
    for path in ("/v1/projects//stop", "/v1/projects/a/b/stop", "/v1/projects/shop/halt"):
        assert refused("PUT", path) == (404, "")
    assert refused("GET", "/v1/projects/p/revisions/x") == (404, "")
    assert refused("GET", "/v1/images/") == (404, "")


def test_an_escaped_slash_divides_nothing() -> None:
    assert find("PUT", "/v1/projects/a%2Fb%2525/stop")[1]["project"] == "a/b%25"
    assert find("PUT", "/v1/projects/%e2%82%ac%ff/stop")[1]["project"] == "€%ff"
    assert find("PUT", "/v1%2Fprojects/a/stop".replace("%2F", "/"))[1]["project"] == "a"
    assert refused("PUT", "/v1%2Fprojects/a/stop") == (404, "")


def test_reading_goes_for_head_too() -> None:
    assert find("HEAD", "/v1/images")[0] == "/v1/images"


def test_another_method_is_told_which_there_are() -> None:
    assert refused("POST", "/v1/images") == (405, "GET, HEAD")
    assert refused("PATCH", "/v1/images/bootstrap") == (405, "DELETE, GET, HEAD, POST")
    assert refused("GET", "/v1/projects/shop/stop") == (405, "PUT")


def test_a_plain_path_comes_before_a_pattern_that_takes_it_too() -> None:
    assert find("POST", "/v1/images/bootstrap")[0] == "/v1/images/bootstrap"
    assert find("GET", "/v1/images/bootstrap")[1] == {"reference": "bootstrap"}


def test_routes_tell_their_parameters() -> None:
    shown = {route.path: route.parameters for route in ROUTER.routes}
    assert shown["/v1/projects/{project}/{verb:start|stop}"] == {
        "project": "",
        "verb": "start|stop",
    }
    assert shown["/v1/images"] == {}
