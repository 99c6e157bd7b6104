"""Which tag a version range means."""

from __future__ import annotations

import nodesemver
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gitops.semver import check_range, newest

TAGS = [
    "v0.9.0", "v1.0.0", "1.2.3", "v1.2.4", "v1.10.0", "v1.11.0-rc.1", "v2.0.0-rc.1", "v2.0.0",
    "v2.0.0+build.5", "release-7", "v3", "latest", "01.2.3", "v4.0.0-", "v99999999999.0.0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "tag"),
    [
        ("1.x", "v1.10.0"),
        ("1", "v1.10.0"),
        ("~1.2", "v1.2.4"),
        ("~1.2.3", "v1.2.4"),
        ("^1", "v1.10.0"),
        ("^0.9", "v0.9.0"),
        (">=1.2 <2", "v1.10.0"),
        (">=1.2, <2", "v1.10.0"),
        (">= 1.2.0 < 1.10", "v1.2.4"),
        ("<1.0.0 || 1.2.3", "1.2.3"),
        ("1.0.0 - 1.2.3", "1.2.3"),
        ("=1.0.0", "v1.0.0"),
        ("v1.0.0", "v1.0.0"),
        (">=1.11.0-rc.0 <1.12", "v1.11.0-rc.1"),
        ("5.x", None),
    ],
)
def test_the_newest_tag_in_the_range_is_taken(wanted: str, tag: str | None) -> None:
    assert newest(TAGS, wanted) == tag
    assert newest(reversed(TAGS), wanted) == tag


def test_pre_releases_are_taken_only_when_they_are_asked_for() -> None:
    assert newest(["v1.0.0", "v1.1.0-rc.1"], ">=1.0.0") == "v1.0.0"
    assert newest(["v1.0.0", "v1.1.0-rc.1", "v1.1.0-rc.10"], ">=1.1.0-rc.0") == "v1.1.0-rc.10"


def test_anything_means_the_newest_release() -> None:
    assert newest(TAGS, "*") in ("v2.0.0", "v2.0.0+build.5")
    assert newest([], "*") is None


@pytest.mark.parametrize("text", ["newest", "1.x.y.z", ">=", "1.2.3.4", "main", "~", "^a", "1 -"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a version range"):
        check_range(text)


def test_tags_that_anybody_can_push_cost_little() -> None:
    hostile = [f"v1.0.0-{'a.' * 5000}b", "v" + "1" * 100_000, "v1.0.0-" + "-" * 120]
    assert newest([*hostile, "v1.0.0"], "1.x") == "v1.0.0"


WORDS = st.sampled_from(["0", "1", "2", "10", "rc", "alpha", "beta", "a-1", "01"])
TAG = st.builds(
    lambda v, numbers, before, build: (
        v
        + ".".join(map(str, numbers))
        + (f"-{'.'.join(before)}" if before else "")
        + (f"+{build}" if build else "")
    ),
    st.sampled_from(["", "v"]),
    st.tuples(*[st.integers(0, 11)] * 3),
    st.lists(WORDS, max_size=3),
    st.sampled_from(["", "5", "build-1.x"]),
)


@given(st.lists(TAG, min_size=1, max_size=8), st.sampled_from(["*", "1.x", ">=0.1.0-0 <9", "^2"]))
def test_the_order_is_the_one_of_the_specification(tags: list[str], wanted: str) -> None:
    found = newest(tags, wanted)
    matching = [tag for tag in tags if nodesemver.satisfies(tag, wanted, True)]
    assert (found is None) == (not matching)
    if found is not None:
        assert found in matching
        assert all(nodesemver.compare(found, tag, True) >= 0 for tag in matching)
