"""What git complained of, as a typed error with one clear line. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from orchestrator.gitops.errors import (
    AuthenticationFailed,
    GitFailed,
    GitOpsError,
    RefNotFound,
    Unreachable,
    UnsafeTree,
)
from orchestrator.gitops.source import GitSource

_AUTHENTICATION = (
    "authentication failed",
    "could not read username",
    "could not read password",
    "permission denied",
    "host key verification failed",
    "returned error: 401",
    "returned error: 403",
    "access denied",
    "invalid username or password",
    "ssl certificate problem",
    "server certificate verification failed",
    "no such identity",
    "error in libcrypto",
)
_UNREACHABLE = (
    "could not resolve host",
    "couldn't connect to server",
    "failed to connect",
    "connection refused",
    "connection timed out",
    "connection reset",
    "connection closed",
    "no route to host",
    "network is unreachable",
    "operation timed out",
    "operation too slow",
    "early eof",
    "remote end hung up",
    "unexpected disconnect",
    "empty reply from server",
    "returned error: 5",
    "returned error: 429",
    "temporary failure in name resolution",
    "kex_exchange_identification",
)
_NO_REPOSITORY = (
    "does not appear to be a git repository",
    "repository not found",
    "not found",
    "does not exist",
    "returned error: 404",
    "not a git repository",
)
_NO_REF = ("couldn't find remote ref", "not our ref", "unadvertised object", "upload-pack: not our")
_REMOTE_VERBS = ("fetch", "ls-remote")
_FSCK = re.compile(r"(?:error in (?:tree|blob|commit|tag)|object) [0-9a-f]{40,64}: (\w+: .*)")
_NOISE = re.compile(
    r"(?:fatal|error|remote|warning): (?:the remote end hung up unexpectedly|fetch-pack: .*|"
    r"index-pack failed|could not read from remote repository\.?|unpack-objects.*)",
    re.IGNORECASE,
)
# Among a dozen lines of alarm.
_HOST_KEY = re.compile(r"host key (?:for .* has changed|is known for)", re.IGNORECASE)
_FILLER = ("please make sure you have the correct access rights", "and the repository exists.")


def classify(verb: str, source: GitSource, status: int, complaint: str) -> GitOpsError:
    """The error for a git command on `source` that ended with `status`."""
    said = reason(complaint) or (
        f"git {verb} was ended by signal {-status}" if status < 0 else f"exit code {status}"
    )
    where = shown(source.url)
    words = complaint.lower()
    if verb not in _REMOTE_VERBS:
        return GitFailed(f"git {verb}: {said}", exit_code=status, said=complaint)
    if match := _FSCK.search(complaint):
        text = reason(match[1])
        return UnsafeTree(f"{where} holds an object that git refuses: {text}", path="")
    if any(word in words for word in _NO_REF):
        return RefNotFound(f"{where} has no {source.ref}")
    if any(word in words for word in _AUTHENTICATION):
        return AuthenticationFailed(f"{where}: {said}", hint=_hint(words))
    if any(word in words for word in _UNREACHABLE):
        return Unreachable(f"{where}: {said}")
    if any(word in words for word in _NO_REPOSITORY):
        return Unreachable(f"{where}: {said}", hint="is the address right, and may it be read?")
    return GitFailed(f"{where}: {said}", exit_code=status, said=complaint)


def reason(complaint: str) -> str:
    """The line of git's complaints that says most."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    telling = [
        line
        for line in lines
        if not _NOISE.fullmatch(line)
        and not line.lower().startswith(_FILLER)
        and not line.lower().startswith(("hint:", "from ", "warning: ", "@", "load key"))
    ]
    chosen = (telling or lines or [""])[0]
    for line in telling:
        if line.startswith(("fatal:", "error:", "ERROR:")) or _HOST_KEY.search(line):
            chosen = line
            break
    text = re.sub(r"^(?:remote: )?(?:fatal|error|ERROR|remote): ", "", chosen)
    text = "".join(char if char.isprintable() else " " for char in text)
    if not text[1:2].isupper():
        text = text[:1].lower() + text[1:]
    return text.rstrip(".")[:300]


def shown(url: str) -> str:
    """The address without what a person might have hidden in its query."""
    return url.split("?")[0] if urlsplit(url).query else url


def _hint(words: str) -> str:
    if "host key" in words:
        return "put the server's key into credentials.knownHostsFile (ssh-keyscan shows it)"
    if "certificate" in words:
        return "name the certificate authority with credentials.caFile"
    return "look at the source's credentials"
