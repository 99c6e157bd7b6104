"""Deliveries of GitHub, GitLab and Gitea (Forgejo): are they genuine, and what do they tell. Pure.

A delivery only says that it is worth a look: what is fetched is what the repository says. So a
replayed one costs a look, and `Replays` saves that, too.
Sources: GitHub "Validating webhook deliveries", GitLab "Webhooks: secret token", Gitea "Webhooks".
"""

from __future__ import annotations

import hashlib
import hmac
import json
import urllib.parse
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.gitops.errors import WebhookRefused
from orchestrator.gitops.source import GitSource

BODY_LIMIT = 5 * 2**20
Provider = Literal["github", "gitlab", "gitea"]

_REPLAY_WINDOW = 300.0
_REMEMBERED = 1000
_PUSHES = {"push", "push hook", "tag push hook", "create", "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A genuine delivery. `ref` is a full reference name and `commit` what it is now; both are
    empty where the event is not about one, `commit` also where the reference is gone."""

    provider: Provider
    event: str
    ref: str
    commit: str
    default_branch: str
    digest: str

    @property
    def is_push(self) -> bool:
        return self.event.lower() in _PUSHES and bool(self.ref)


def accept(
    headers: Mapping[str, str], body: bytes, secret: bytes, provider: str = "auto"
) -> Delivery:
    """What a delivery tells, once it has proved that its sender knows `secret`.

    `provider` is one of the three or `auto`. Raises WebhookRefused, with nothing of the secret.
    """
    if len(body) > BODY_LIMIT:
        raise WebhookRefused(f"the delivery is larger than {BODY_LIMIT:,} bytes", status=413)
    lower = {name.lower(): value for name, value in headers.items()}
    kind = _provider(lower, provider)
    _CHECKS[kind](lower, body, secret)
    document = _document(lower, body)
    repository = document.get("repository") or document.get("project") or {}
    default = repository.get("default_branch") if isinstance(repository, dict) else ""
    return Delivery(
        provider=kind,
        event=_event(lower, kind),
        ref=_ref(document),
        commit=_commit(document),
        default_branch=str(default or ""),
        digest=hashlib.sha256(body).hexdigest(),
    )


def concerns(delivery: Delivery, source: GitSource) -> bool:
    """Whether a delivery may mean another revision for `source`."""
    if not delivery.is_push:
        return False
    ref = source.ref
    if ref.commit:
        return False
    if ref.branch:
        return delivery.ref == f"refs/heads/{ref.branch}"
    if ref.tag:
        return delivery.ref == f"refs/tags/{ref.tag}"
    if ref.semver:
        return delivery.ref.startswith("refs/tags/")
    if delivery.default_branch:
        return delivery.ref == f"refs/heads/{delivery.default_branch}"
    return delivery.ref.startswith("refs/heads/")


class Replays:
    """Deliveries of the last minutes, by their content: what is named in a header is not signed."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()

    def is_new(self, delivery: Delivery, now: float) -> bool:
        """Whether this content did not come within the last five minutes."""
        while self._seen:
            first = next(iter(self._seen.values()))
            if now - first < _REPLAY_WINDOW and len(self._seen) < _REMEMBERED:
                break
            self._seen.popitem(last=False)
        if delivery.digest in self._seen:
            return False
        self._seen[delivery.digest] = now
        return True


def _provider(headers: Mapping[str, str], wanted: str) -> Provider:
    # Gitea sends GitHub's headers besides its own.
    marks: tuple[tuple[Provider, tuple[str, ...]], ...] = (
        ("gitea", ("x-gitea-signature", "x-forgejo-signature", "x-gitea-event")),
        ("gitlab", ("x-gitlab-token", "x-gitlab-event")),
        ("github", ("x-hub-signature-256", "x-github-event")),
    )
    for kind, names in marks:
        if wanted == kind or (wanted == "auto" and any(name in headers for name in names)):
            return kind
    raise WebhookRefused("this is no delivery of GitHub, GitLab or Gitea", status=400)


def _check_github(headers: Mapping[str, str], body: bytes, secret: bytes) -> None:
    given = headers.get("x-hub-signature-256", "")
    if not given:
        raise WebhookRefused("the delivery has no X-Hub-Signature-256", status=401)
    _compare(given, "sha256=" + _hmac(secret, body))


def _check_gitea(headers: Mapping[str, str], body: bytes, secret: bytes) -> None:
    given = headers.get("x-gitea-signature") or headers.get("x-forgejo-signature") or ""
    if not given:
        raise WebhookRefused("the delivery has no X-Gitea-Signature", status=401)
    _compare(given, _hmac(secret, body))


def _check_gitlab(headers: Mapping[str, str], body: bytes, secret: bytes) -> None:
    given = headers.get("x-gitlab-token", "")
    if not given:
        raise WebhookRefused("the delivery has no X-Gitlab-Token", status=401)
    # Digests have one length, so that the comparison tells nothing of the secret's own.
    _compare(_hmac(b"token", given.encode("utf-8", "surrogateescape")), _hmac(b"token", secret))


_CHECKS = {"github": _check_github, "gitlab": _check_gitlab, "gitea": _check_gitea}


def _hmac(secret: bytes, body: bytes) -> str:
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def _compare(given: str, wanted: str) -> None:
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode()):
        raise WebhookRefused("the delivery's signature is wrong", status=403)


def _document(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    try:
        text = body.decode()
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            text = urllib.parse.parse_qs(text, strict_parsing=True)["payload"][0]
        document = json.loads(text)
    except (ValueError, KeyError, RecursionError) as exc:
        raise WebhookRefused("the delivery's body is not JSON", status=400) from exc
    if not isinstance(document, dict):
        raise WebhookRefused("the delivery's body is not a JSON object", status=400)
    return document


def _event(headers: Mapping[str, str], kind: Provider) -> str:
    names = {"github": "x-github-event", "gitlab": "x-gitlab-event", "gitea": "x-gitea-event"}
    return headers.get(names[kind]) or headers.get("x-forgejo-event") or "push"


def _ref(document: Mapping[str, Any]) -> str:
    ref = document.get("ref")
    if not isinstance(ref, str):
        return ""
    if ref.startswith("refs/"):
        return ref
    # `create` and `delete` events name the reference without its kind.
    return f"refs/{'tags' if document.get('ref_type') == 'tag' else 'heads'}/{ref}"


def _commit(document: Mapping[str, Any]) -> str:
    for key in ("checkout_sha", "after", "sha"):
        value = document.get(key)
        if isinstance(value, str) and value.strip("0"):
            return value
    return ""
