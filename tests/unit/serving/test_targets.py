"""Request targets, compared with a library that reads them, too."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from orchestrator.serving.targets import Query, settle, split, unescape

PIECES = st.sampled_from(
    ["%%", "%2F", "%2f", "%25", "%252F", "%00", "%zz", "%7E", "+", "-", "~", "a", "Z", "2", "F"]
) | st.sampled_from(
    ["%ff", "%FE", "%e2%82%ac", "%e2%82", "%ED%A0%80", "%f0%9f%98%80", "%f0%9f", "%c3", "%bc"]
)


@given(st.lists(PIECES, max_size=8))
def test_escapes_are_resolved_as_others_do_it(pieces: list[str]) -> None:
    path = "/" + "".join(pieces)
    other = URL.build(path=path, encoded=True)
    assert unescape(path) == other.path_safe
    assert settle(unescape(path)) == other.path


@given(st.text(max_size=30))
def test_every_text_comes_through_escaped(text: str) -> None:
    assert settle(unescape(quote(text, safe=""))) == text


@given(st.lists(st.sampled_from(["a", "b", "=", "&", "+", "%26", "%ff", "%20", "ü"]), max_size=12))
def test_queries_are_read_as_others_do_it(pieces: list[str]) -> None:
    text = quote("".join(pieces), safe="=&+%")
    other = URL.build(path="/", query_string=text, encoded=True).query
    query = Query(text)
    assert {name: query.all(name) for name in query} == {
        name: tuple(other.getall(name)) for name in other
    }
    assert dict(query) == {name: other[name] for name in other}


def test_a_name_gives_its_first_value() -> None:
    query = Query("service=a&all=&service=b")
    assert (query["service"], query.all("service"), query.all("other")) == ("a", ("a", "b"), ())
    assert (query["all"], query.get("other"), len(query)) == ("", None, 2)


def test_a_target_is_a_path_or_an_address_with_one() -> None:
    assert split("/a%2Fb?x=1?2#y") == ("/a%2Fb", "x=1?2")
    assert split("http://daemon/a?b") == ("/a", "b")
    assert split("http://daemon") == ("/", "")
    assert split("*") is None
    assert split("daemon:80") is None
