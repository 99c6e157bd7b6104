"""What git and ssh print, as one line and one kind of error."""

from __future__ import annotations

import pytest

from orchestrator.gitops.complaints import classify, reason
from orchestrator.gitops.errors import (
    AuthenticationFailed,
    GitFailed,
    GitOpsError,
    RefNotFound,
    Unreachable,
    UnsafeTree,
)
from orchestrator.gitops.source import GitSource

SOURCE = GitSource(name="shop", url="https://git.example.org/shop.git")
NOT_READ = (
    "fatal: Could not read from remote repository.\n\n"
    "Please make sure you have the correct access rights\nand the repository exists.\n"
)


@pytest.mark.parametrize(
    ("complaint", "kind", "told"),
    [
        (
            "remote: Repository not found.\nfatal: repository 'https://x/' not found\n",
            Unreachable,
            "repository 'https://x/' not found",
        ),
        (
            "fatal: unable to access 'https://x/': Could not resolve host: x\n",
            Unreachable,
            "unable to access 'https://x/': Could not resolve host: x",
        ),
        (
            "fatal: unable to access 'https://x/': SSL certificate problem: unable to get local "
            "issuer certificate\n",
            AuthenticationFailed,
            "SSL certificate problem",
        ),
        (
            "fatal: unable to access 'https://x/': The requested URL returned error: 503\n",
            Unreachable,
            "returned error: 503",
        ),
        (
            "@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@\n"
            "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\nOffending key in /hosts:1\n"
            "Host key for [h]:22 has changed and you have requested strict checking.\n"
            "Host key verification failed.\nfatal: Could not read from remote repository.\n",
            AuthenticationFailed,
            "host key for [h]:22 has changed",
        ),
        (
            "remote: Invalid username or password.\nfatal: Authentication failed for 'https://x/'",
            AuthenticationFailed,
            "authentication failed for 'https://x/'",
        ),
        (
            "@@@@@@@@@@@\n@ WARNING: UNPROTECTED PRIVATE KEY FILE! @\n@@@@@@@@@@@\n"
            "Permissions 0644 for '/k' are too open.\nIt is required that your private key files\n"
            'Load key "/k": bad permissions\ngit@x: Permission denied (publickey).\n' + NOT_READ,
            AuthenticationFailed,
            "permissions 0644 for '/k' are too open",
        ),
        (
            "Warning: Permanently added 'x' to the list of known hosts.\n"
            "git@x: Permission denied (publickey).\n" + NOT_READ,
            AuthenticationFailed,
            "git@x: Permission denied (publickey)",
        ),
        (
            "No ED25519 host key is known for x and you have requested strict checking.\n"
            "Host key verification failed.\n" + NOT_READ,
            AuthenticationFailed,
            "no ED25519 host key is known for x",
        ),
        ("fatal: couldn't find remote ref refs/heads/gone\n", RefNotFound, "the default branch"),
        ("fatal: remote error: upload-pack: not our ref 1234\n", RefNotFound, "default branch"),
        (
            f"error: object {'a' * 40}: hasDotdot: contains '..'\nfatal: fsck error in packed\n",
            UnsafeTree,
            "hasDotdot: contains '..'",
        ),
        ("error: RPC failed; curl 56\nfatal: early EOF\n", Unreachable, "RPC failed"),
        ("fatal: something new\n", GitFailed, "something new"),
        ("", GitFailed, "exit code 128"),
    ],
)
def test_complaints_have_a_kind_and_a_line(
    complaint: str, kind: type[GitOpsError], told: str
) -> None:
    error = classify("fetch", SOURCE, 128, complaint)
    assert type(error) is kind
    assert told in str(error)
    assert "\n" not in str(error)


def test_a_command_on_the_mirror_itself_blames_no_server() -> None:
    error = classify("rev-parse", SOURCE, 1, "fatal: not a git repository\n")
    assert type(error) is GitFailed
    assert SOURCE.url not in str(error)


def test_a_signal_is_named() -> None:
    assert "ended by signal 9" in str(classify("fetch", SOURCE, -9, ""))


def test_a_server_cannot_write_to_a_person_s_terminal() -> None:
    told = reason("fatal: remote error: \x1b]0;title\x07" + "x" * 1000)
    assert told.isprintable()
    assert len(told) <= 300
