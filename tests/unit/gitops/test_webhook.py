"""Deliveries of three kinds of servers: genuine, forged, malformed, repeated."""

from __future__ import annotations

import hashlib
import hmac
import json
import urllib.parse
from typing import Any

import pytest

from orchestrator.gitops.errors import WebhookRefused
from orchestrator.gitops.source import GitSource
from orchestrator.gitops.webhook import BODY_LIMIT, Delivery, Replays, accept, concerns

SECRET = b"It's a Secret to Everybody"
COMMIT = "da1560886d4f094c3e6c9ef40349f7d38b5d27d7"
PUSH: dict[str, Any] = {
    "ref": "refs/heads/main",
    "before": "0" * 40,
    "after": COMMIT,
    "repository": {"full_name": "a/b", "default_branch": "main"},
}


def body(**changes: Any) -> bytes:
    return json.dumps({**PUSH, **changes}).encode()


def signature(content: bytes, secret: bytes = SECRET) -> str:
    return hmac.new(secret, content, hashlib.sha256).hexdigest()


def github(content: bytes, event: str = "push", **headers: str) -> dict[str, str]:
    return {
        "X-GitHub-Event": event,
        "X-Hub-Signature-256": f"sha256={signature(content)}",
        "Content-Type": "application/json",
        **headers,
    }


def gitea(content: bytes) -> dict[str, str]:
    # It sends GitHub's headers too.
    return {**github(content), "X-Gitea-Event": "push", "X-Gitea-Signature": signature(content)}


def gitlab(token: str = SECRET.decode(), event: str = "Push Hook") -> dict[str, str]:
    return {"X-Gitlab-Event": event, "X-Gitlab-Token": token}


def test_github_s_own_example_is_accepted_as_far_as_its_signature() -> None:
    # From "Validating webhook deliveries", "Testing the webhook payload validation".
    headers = {
        "X-Hub-Signature-256": "sha256="
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    }
    with pytest.raises(WebhookRefused, match="is not JSON"):
        accept(headers, b"Hello, World!", SECRET)
    with pytest.raises(WebhookRefused, match="signature is wrong"):
        accept(headers, b"Hello, World?", SECRET)


@pytest.mark.parametrize("kind", ["github", "gitea", "gitlab"])
def test_a_push_tells_its_reference_and_commit(kind: str) -> None:
    content = body(checkout_sha=COMMIT) if kind == "gitlab" else body()
    headers = {"github": github(content), "gitea": gitea(content), "gitlab": gitlab()}[kind]
    for provider in ("auto", kind):
        delivery = accept(headers, content, SECRET, provider)
        assert delivery.provider == kind
        assert delivery.is_push
        assert (delivery.ref, delivery.commit) == ("refs/heads/main", COMMIT)


def test_header_names_are_of_any_case() -> None:
    content = body()
    headers = {name.lower(): value for name, value in github(content).items()}
    assert accept(headers, content, SECRET).is_push


def test_a_form_is_read_too() -> None:
    content = urllib.parse.urlencode({"payload": body().decode()}).encode()
    headers = github(content, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert accept(headers, content, SECRET).ref == "refs/heads/main"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-GitHub-Event": "push"}, 401),
        ({"X-GitHub-Event": "push", "X-Hub-Signature": "sha1=00"}, 401),
        ({"X-Hub-Signature-256": "sha256=" + "0" * 64}, 403),
        ({"X-Hub-Signature-256": signature(body())}, 403),
        ({"X-Hub-Signature-256": "sha256=" + signature(body(), b"other")}, 403),
        ({"X-Hub-Signature-256": "sha256=\u00e9"}, 403),
        ({"X-Gitea-Event": "push"}, 401),
        ({"X-Gitea-Signature": signature(body(), b"other")}, 403),
        ({"X-Gitlab-Event": "Push Hook"}, 401),
        (gitlab("other"), 403),
        (gitlab(SECRET.decode()[:-1]), 403),
        ({}, 400),
    ],
)
def test_what_proves_nothing_is_refused(headers: dict[str, str], status: int) -> None:
    with pytest.raises(WebhookRefused) as caught:
        accept(headers, body(), SECRET)
    assert caught.value.status == status
    assert SECRET.decode() not in str(caught.value)


def test_a_server_of_another_kind_than_the_source_says_is_refused() -> None:
    # A token is weaker than a signature, so it must not be chosen by the sender.
    with pytest.raises(WebhookRefused) as caught:
        accept(gitlab(), body(), SECRET, "github")
    assert caught.value.status == 401


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"ref":', b"[" * 100_000])
def test_a_signed_body_that_is_malformed_is_refused(content: bytes) -> None:
    with pytest.raises(WebhookRefused) as caught:
        accept(github(content), content, SECRET)
    assert caught.value.status == 400


def test_a_body_over_the_limit_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(WebhookRefused) as caught:
        accept({}, b"x" * (BODY_LIMIT + 1), SECRET)
    assert caught.value.status == 413


def test_other_events_are_no_push() -> None:
    content = json.dumps({"zen": "Keep it logically awesome."}).encode()
    assert not accept(github(content, "ping"), content, SECRET).is_push
    content = json.dumps({"ref": 5, "after": None, "repository": "x"}).encode()
    assert accept(github(content), content, SECRET).ref == ""


def test_a_removed_branch_has_no_commit() -> None:
    content = body(after="0" * 40, deleted=True)
    assert accept(github(content), content, SECRET).commit == ""


@pytest.mark.parametrize(
    ("ref", "pushed", "expected"),
    [
        ({}, "refs/heads/main", True),
        ({}, "refs/heads/other", False),
        ({"branch": "other"}, "refs/heads/other", True),
        ({"branch": "other"}, "refs/heads/main", False),
        ({"branch": "v1"}, "refs/tags/v1", False),
        ({"tag": "v1"}, "refs/tags/v1", True),
        ({"tag": "v1"}, "refs/tags/v2", False),
        ({"semver": "1.x"}, "refs/tags/v2", True),
        ({"semver": "1.x"}, "refs/heads/main", False),
        ({"commit": COMMIT}, "refs/heads/main", False),
    ],
)
def test_a_push_concerns_those_that_follow_it(
    ref: dict[str, str], pushed: str, expected: bool
) -> None:
    source = GitSource.model_validate({"name": "shop", "url": "/r", "ref": ref})
    content = body(ref=pushed)
    assert concerns(accept(github(content), content, SECRET), source) is expected


def delivered(digest: str) -> Delivery:
    return Delivery(
        provider="github", event="push", ref="r", commit="", default_branch="", digest=digest
    )


def test_a_repeated_delivery_is_known_for_five_minutes() -> None:
    replays = Replays()
    assert replays.is_new(delivered("a"), 0)
    assert not replays.is_new(delivered("a"), 299)
    assert replays.is_new(delivered("b"), 299)
    assert replays.is_new(delivered("a"), 301)


def test_what_is_remembered_is_bounded() -> None:
    replays = Replays()
    assert all(replays.is_new(delivered(str(n)), 0) for n in range(5000))
    assert len(replays._seen) <= 1000
