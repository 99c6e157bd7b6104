"""What can go wrong between a git repository and the projects that it holds.

GitOpsError
├── GitMissing             the git command is not installed
├── TransportError         may succeed when it is tried again
│   ├── Unreachable        no answer, or not within the time
│   └── GitFailed          git ended with something else
├── HostFailed             this host, its disk or its memory, does not do it; tried again, too
├── AuthenticationFailed   the server, or its key, does not accept or convince
├── RefNotFound            the repository has no such branch, tag or commit
├── HistoryRewritten       the branch or tag does not go on from what was taken last
├── TooLarge               over one of the source's limits
├── SignatureError
│   ├── NotSigned
│   └── WrongSignature     by somebody who is not among the signers, or not intact
├── ContentError           the commit holds what a stack cannot use
│   ├── SubmodulesUnsupported
│   ├── LfsPointer
│   └── UnsafeTree         names or links that lead out of the checkout
├── DecryptionFailed
├── RenderFailed           the stack's files are no valid project
├── WebhookRefused         a delivery that proves nothing
└── NotificationFailed

All but TransportError and HostFailed stay as they are until a commit, a key or the source changes.
"""

from __future__ import annotations

from specs.errors import SpecIssue


class GitOpsError(Exception):
    """Base; `hint` says what a person can do, `reason` is the word for statuses and metrics."""

    reason = "Failed"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def transient(self) -> bool:
        """Whether the same thing may succeed when it is simply tried again."""
        return isinstance(self, TransportError | HostFailed)


class GitMissing(GitOpsError):
    reason = "GitMissing"

    def __init__(self) -> None:
        super().__init__(
            "git is not installed, and sources are fetched with it",
            hint="install it (Debian: apt install git)",
        )


class TransportError(GitOpsError):
    """A repository could not be read, for a reason that may pass."""

    reason = "GitFailed"


class Unreachable(TransportError):
    reason = "Unreachable"


class GitFailed(TransportError):
    """git ended with an error of no other kind; `exit_code` is negative for a signal, `said` all
    that it complained of."""

    def __init__(
        self, message: str, *, exit_code: int = 1, said: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.said = said


class HostFailed(GitOpsError):
    """What this host was asked for and did not give: room on a disk, memory, a process."""

    reason = "HostFailed"


class AuthenticationFailed(GitOpsError):
    reason = "AuthenticationFailed"


class RefNotFound(GitOpsError):
    reason = "RefNotFound"


class HistoryRewritten(GitOpsError):
    """`old` is the commit that was taken last, `new` the one that the reference has now."""

    reason = "HistoryRewritten"

    def __init__(self, ref: str, old: str, new: str) -> None:
        super().__init__(
            f"{ref} was rewritten: {new[:12]} does not go on from {old[:12]}",
            hint="accept it once, or set forcePush: follow",
        )
        self.old = old
        self.new = new


class TooLarge(GitOpsError):
    reason = "TooLarge"


class SignatureError(GitOpsError):
    """`commit` is the one that is not trusted."""

    reason = "NotVerified"

    def __init__(self, message: str, *, commit: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.commit = commit


class NotSigned(SignatureError):
    reason = "NotSigned"


class WrongSignature(SignatureError):
    reason = "WrongSignature"


class ContentError(GitOpsError):
    """`path` is the place in the repository."""

    reason = "Unusable"

    def __init__(self, message: str, *, path: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class SubmodulesUnsupported(ContentError):
    reason = "SubmodulesUnsupported"

    def __init__(self, path: str, user: str) -> None:
        super().__init__(
            f"{user} needs {path}, which is a submodule",
            path=path,
            hint="submodules are not fetched: put the files in the repository itself",
        )


class LfsPointer(ContentError):
    reason = "LfsPointer"

    def __init__(self, path: str, user: str) -> None:
        super().__init__(
            f"{user} needs {path}, of which the repository holds a Git LFS pointer only",
            path=path,
            hint="LFS objects are not fetched: keep the file in git, or in an image",
        )


class UnsafeTree(ContentError):
    reason = "UnsafeTree"


class DecryptionFailed(GitOpsError):
    """`path` is the encrypted file. No message holds anything of what is in it."""

    reason = "DecryptionFailed"

    def __init__(self, path: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"decrypt {path}: {message}", hint=hint)
        self.path = path


class RenderFailed(GitOpsError):
    """The stack's files were refused; `issues` as of SpecError, paths within the repository."""

    reason = "RenderFailed"

    def __init__(
        self, message: str, *, issues: tuple[SpecIssue, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.issues = issues


class WebhookRefused(GitOpsError):
    """`status` is the HTTP status to answer with."""

    reason = "WebhookRefused"

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class NotificationFailed(GitOpsError):
    reason = "NotificationFailed"
