"""ADD of a git repository: `URL#ref:subdirectory`.

Source: BuildKit reference.md ("Adding files from a Git repository"). The git command does
the work, without the machine's configuration, without prompts, and over network protocols
alone. A step is cached by the commit that the reference means now.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.build.copying import CopyRefused
from runtime.removal import discard

_PROTOCOLS = "http:https:ssh:git"
_SCP = re.compile(r"[\w.-]+@[\w.-]+:")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """A repository, what to take of it, and the commit that this is now."""

    url: str
    ref: str
    subdirectory: str
    commit: str


def is_git(word: str) -> bool:
    """True for a source that names a git repository: of addresses with another scheme those
    that end in .git."""
    if _SCP.match(word) or word.startswith(("git://", "ssh://")):
        return True
    if "://" not in word:
        return False  # a path, whatever it ends in
    try:
        return urllib.parse.urlsplit(word).path.endswith(".git")
    except ValueError:
        return False  # whatever it is, it is no address


def find_commit(word: str, ssh: Mapping[str, str]) -> GitSource:
    """Ask the repository what its reference means; raises CopyRefused."""
    url, _, fragment = word.partition("#")
    ref, _, subdirectory = fragment.partition(":")
    if ref.startswith("-") or url.startswith("-"):
        raise CopyRefused(f"{word} is not a git source")
    if _COMMIT.match(ref):
        return GitSource(url=url, ref=ref, subdirectory=subdirectory, commit=ref)
    wanted = ref or "HEAD"
    listed: dict[str, str] = {}
    for line in _git(("ls-remote", "--", url, wanted, f"{wanted}^{{}}"), ssh).splitlines():
        commit, _, name = line.partition("\t")
        listed[name] = commit
    for name in (f"refs/tags/{wanted}^{{}}", f"refs/heads/{wanted}", f"refs/tags/{wanted}",
                 f"{wanted}^{{}}", wanted):  # fmt: skip
        if name in listed:
            return GitSource(url=url, ref=wanted, subdirectory=subdirectory, commit=listed[name])
    raise CopyRefused(f"the repository {url} has no {wanted!r}")


def check_out(source: GitSource, target: Path, ssh: Mapping[str, str], *, keep: bool) -> None:
    """Check the commit out into the new directory `target`, its submodules too.

    `keep` keeps the `.git` directories.
    """
    target.mkdir()

    def git(*words: str) -> None:
        _git(("-C", str(target), *words), ssh)

    git("init", "-q")
    git("remote", "add", "origin", source.url)
    try:
        git("fetch", "-q", "--depth", "1", "origin", source.commit)
    except CopyRefused:
        # Not every server gives a commit by its name.
        git("fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
    git("checkout", "-q", "--detach", source.commit)
    git("submodule", "update", "-q", "--init", "--recursive", "--depth", "1")
    if not keep:
        _drop_git(target)


def _drop_git(top: Path) -> None:
    """Remove what git keeps of its own, the submodules' too. Not by os.walk, which holds a frame
    for each level of what a stranger's repository has."""
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                folder = entry.is_dir(follow_symlinks=False)
                if entry.name != ".git":
                    if folder:
                        waiting.append(Path(entry.path))
                elif folder:
                    discard(Path(entry.path))
                else:
                    os.unlink(entry.path)


def _git(words: tuple[str, ...], ssh: Mapping[str, str]) -> str:
    program = shutil.which("git")
    if program is None:
        raise CopyRefused("ADD of a git repository needs the git command, which is not installed")
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    }
    if "default" in ssh:
        env["SSH_AUTH_SOCK"] = ssh["default"]
    env |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    try:
        done = subprocess.run(
            (program, *words),
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise CopyRefused(f"git {words[0]} took more than {_TIMEOUT:.0f} seconds") from exc
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CopyRefused(f"git: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout
