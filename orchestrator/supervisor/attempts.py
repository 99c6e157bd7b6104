"""What goes through the hands of a syncer: the repository, revisions being tried, what is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from orchestrator.engine.errors import EngineError, chain
from orchestrator.gitops.errors import GitOpsError
from orchestrator.supervisor.bringing import Projects

if TYPE_CHECKING:
    from orchestrator.gitops.mirror import Revision


LONGEST = 4000
"""Characters of a message: a commit may have any number of faults, each of any length."""


class Repository(Protocol):
    """A source's repository as it is here; what it raises is a GitOpsError or an OSError."""

    async def probe(self) -> str:
        """The commit that is wanted now."""

    async def fetch(self, *, accept_rewrite: bool) -> Revision:
        """Bring that commit here."""

    async def render(self, commit: str) -> Projects:
        """Verify and check out, and give what the commit says; nothing that runs sees of it."""

    async def recall(self, commit: str, projects: Projects) -> None:
        """Have the secrets that its projects need be in memory."""

    async def switch(self, commit: str, projects: Projects) -> None:
        """Have what containers bind be this commit's, and what its projects need be there."""

    async def retain(self, kept: Mapping[str, Projects]) -> None:
        """Hold on to these commits, and let go of others."""

    async def log(self, since: str | None, until: str) -> Sequence[Revision]:
        """The commits after `since` up to `until`, newest first."""

    async def remove(self, *, tree: bool) -> None:
        """Let go of everything; without `tree` what containers bind stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is to be known of a source. `action` is a word of the source's `notify`, or
    `reverting` or `superseded`; `plan` the text of what a dry run would do."""

    action: str
    source: str
    commit: str = ""
    subject: str = ""
    author: str = ""
    reason: str = ""
    message: str = ""
    seconds: float = 0.0
    plan: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A revision that is being tried since `began`."""

    commit: str
    projects: Projects
    began: float
    subject: str = ""
    author: str = ""


def words_of(error: GitOpsError | EngineError) -> str:
    """An error's line, and what can be done about it."""
    # A refused spec has said everything, with file and line; its cause knows less.
    text = str(error) if getattr(error, "issues", ()) else chain(error)
    if len(text) > LONGEST:
        # It is kept in the history, and sent to whoever is told.
        text = f"{text[:LONGEST]} …"
    hint = error.hint
    return text if not hint or hint in text else f"{text}\nhint: {hint}"


class Refused(GitOpsError):
    """A revision that is not applied, for a reason of ours."""

    def __init__(self, reason: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
