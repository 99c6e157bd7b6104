"""The bodies of requests about git sources."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from orchestrator.supervisor.bodies import Body


class GitopsSourceBody(Body):
    """`source` is a canonical definition."""

    source: dict[str, Any]


class GitopsSyncBody(Body):
    """`force` also tries again what failed, and accepts a rewritten history this once."""

    force: bool = False
    wait: bool = False


class GitopsRollbackBody(Body):
    """`revision` is the number of one, a commit or its beginning; None is the one before."""

    revision: str | None = None


class GitopsListenBody(Body):
    """`address` is HOST:PORT, or "" to listen nowhere."""

    address: str = Field(default="", max_length=300)
