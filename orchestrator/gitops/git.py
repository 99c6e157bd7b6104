"""Runs git for one mirror: nothing of the host's configuration, no prompt, no hook, no helper.

A hostile repository is read by git alone: its objects are checked on the way in, its files are
never checked out by git (`checkout` writes them), and none of its configuration is looked at.
What git may do stands in a file of ours (GIT_CONFIG_GLOBAL), which reaches the programs that
git starts too. Each command has a session of its own, so that the whole of it can be ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import urlsplit

from orchestrator.gitops import addresses
from orchestrator.gitops.complaints import classify
from orchestrator.gitops.errors import GitFailed, GitMissing, TooLarge, Unreachable
from orchestrator.gitops.source import SECOND, GitSource

T = TypeVar("T")

CONFIG = "gitconfig"
_OUTPUT_LIMIT = 64 * 2**20
_COMPLAINT_LIMIT = 64 * 2**10
_SIZE_CHECK = 0.1  # seconds between looks at what has arrived

# Faults of old, harmless tools that are found in real histories.
_FORGIVEN = (
    "badTimezone",
    "missingSpaceBeforeDate",
    "missingNameBeforeEmail",
    "missingSpaceBeforeEmail",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
    "badFilemode",
    "missingTaggerEntry",
)


class Git:
    """git on the bare repository `directory`, for `source`'s address and credentials."""

    def __init__(self, directory: Path, source: GitSource) -> None:
        self.directory = directory
        self.source = source
        self.timeout = source.timeout / SECOND

    async def prepare(self) -> None:
        """Make the bare repository where there is none, and write the configuration."""
        self.directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        config = self.directory / CONFIG
        text = _config(self.source)
        if not config.exists() or config.read_text() != text:
            draft = self.directory / f".{CONFIG}.new"
            draft.write_text(text)
            draft.replace(config)
        if not (self.directory / "HEAD").exists():
            await self.run("init", "--quiet", "--bare", "--template=", str(self.directory))

    async def run(
        self,
        *words: str,
        given: bytes | None = None,
        environ: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (0,),
        grows: bool = False,
        timeout: float | None = None,
    ) -> bytes:
        """What `git words` prints, and raises for an exit status that is not in `accept`.

        With `grows` the repository is watched, and git ended when it passes the source's limit.
        Raises GitOpsError.
        """
        output, _ = await self.call(
            *words, given=given, environ=environ, accept=accept, grows=grows, timeout=timeout
        )
        return output

    async def call(
        self,
        *words: str,
        given: bytes | None = None,
        environ: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (0,),
        grows: bool = False,
        timeout: float | None = None,
    ) -> tuple[bytes, str]:
        """As `run`; both what was printed and what was complained of."""
        process = await self._spawn(words, given is not None, environ)
        limit = timeout or self.timeout
        watch = asyncio.ensure_future(self._watch_size()) if grows else None
        talk = asyncio.ensure_future(_converse(process, given))
        try:
            waiting = {talk} if watch is None else {talk, watch}
            done, _ = await asyncio.wait(
                waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED
            )
            if watch is not None and watch in done:
                watch.result()
            if talk not in done:
                raise Unreachable(f"git {words[0]} did not end within {limit:g} s")
            output, complaint = talk.result()
            status = await process.wait()
        finally:
            await _end(process)
            for task in (talk, watch):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, Exception):
                        await task
        text = complaint.decode("utf-8", "replace")
        if status not in accept:
            raise classify(words[0], self.source, status, text)
        return output, text

    async def converse(
        self,
        words: tuple[str, ...],
        talk: Callable[[IO[bytes], IO[bytes]], T],
        *,
        whole: bool = False,
    ) -> T:
        """What `talk(to_git, from_git)` gives, in a thread of its own, while git runs.

        Much of what git has to say is large, and the daemon has other things to do. With `whole`
        it counts only when git, having said everything, ends well; raises GitFailed otherwise.
        """
        process = subprocess.Popen(
            (_program(), *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.directory,
            env=_environment(self.directory, self.source),
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None, "both were asked for"
        talking = asyncio.ensure_future(asyncio.to_thread(talk, process.stdin, process.stdout))
        try:
            done, _ = await asyncio.wait({talking}, timeout=self.timeout)
            if not done:
                raise GitFailed(f"git {words[0]} did not end within {self.timeout:g} s")
            said = talking.result()
            if whole:
                await self._await_success(words[0], process)
            return said
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            # The pipes are at their end now, and so the thread comes to its own.
            await asyncio.wait({talking})
            if not talking.cancelled():
                talking.exception()
            await asyncio.to_thread(process.wait)
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()

    async def _await_success(self, verb: str, process: subprocess.Popen[bytes]) -> None:
        try:
            status = await asyncio.to_thread(process.wait, self.timeout)
        except subprocess.TimeoutExpired as exc:
            raise GitFailed(f"git {verb} did not end within {self.timeout:g} s") from exc
        if status:
            raise GitFailed(
                f"git {verb} broke off (exit code {status}): the mirror {self.directory} may be "
                "damaged",
                exit_code=status,
                hint="without that directory it is fetched anew",
            )

    async def _spawn(
        self,
        words: tuple[str, ...],
        pipe: bool,
        environ: Mapping[str, str] | None,
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            _program(),
            *words,
            stdin=asyncio.subprocess.PIPE if pipe else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.directory,
            env={**_environment(self.directory, self.source), **(environ or {})},
            start_new_session=True,
        )

    async def _watch_size(self) -> None:
        limit = self.source.limits.size
        while True:
            await asyncio.sleep(_SIZE_CHECK)
            self.check_size(limit)

    def check_size(self, limit: int) -> None:
        """Raises TooLarge when the repository's objects take more than `limit` bytes."""
        size = stored_size(self.directory)
        if size > limit:
            raise TooLarge(
                f"{self.source.url} has more than {limit:,} bytes of objects",
                hint="raise limits.size if this is meant",
            )


def _program() -> str:
    program = shutil.which("git")
    if program is None:
        raise GitMissing
    return program


def stored_size(directory: Path) -> int:
    """The bytes of a repository's packs, with those that are arriving.

    fetch.unpackLimit makes a pack of all that arrives, so packs are everything.
    """
    size = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(directory / "objects/pack") as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_size
    return size


async def _converse(
    process: asyncio.subprocess.Process, given: bytes | None
) -> tuple[bytes, bytes]:
    assert process.stdout is not None and process.stderr is not None, "both were asked for"

    async def give() -> bytes:
        if given is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(given)
                await process.stdin.drain()
            process.stdin.close()
        return b""

    async with asyncio.TaskGroup() as group:
        group.create_task(give())
        output = group.create_task(_read(process.stdout, _OUTPUT_LIMIT, "output"))
        complaint = group.create_task(_tail(process.stderr, _COMPLAINT_LIMIT))
    return output.result(), complaint.result()


async def _read(stream: asyncio.StreamReader, limit: int, what: str) -> bytes:
    pieces, size = [], 0
    while piece := await stream.read(2**16):
        size += len(piece)
        if size > limit:
            raise TooLarge(f"git's {what} is larger than {limit:,} bytes")
        pieces.append(piece)
    return b"".join(pieces)


async def _tail(stream: asyncio.StreamReader, limit: int) -> bytes:
    kept = b""
    while piece := await stream.read(2**16):
        kept = (kept + piece)[-limit:]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    """End git and all that it has started, also when it has ended itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _environment(directory: Path, source: GitSource) -> dict[str, str]:
    credentials = source.credentials
    environ = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_DIR": str(directory),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(directory / CONFIG),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": addresses.protocol(source.url),
        "GIT_SSH_COMMAND": _ssh_command(source),
        "GIT_SSH_VARIANT": "ssh",
        "SSH_ASKPASS_REQUIRE": "never",
    }
    if credentials.password_file:
        environ["BAY_GIT_USERNAME"] = credentials.username or "git"
        environ["BAY_GIT_PASSWORD_FILE"] = credentials.password_file
    if not credentials.ssh_key_file and "SSH_AUTH_SOCK" in os.environ:
        environ["SSH_AUTH_SOCK"] = os.environ["SSH_AUTH_SOCK"]
    environ |= {
        name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")
    }
    return environ


def _ssh_command(source: GitSource) -> str:
    import shlex

    credentials = source.credentials
    words = ["ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    words += ["-o", "ConnectTimeout=15", "-o", "ForwardAgent=no", "-o", "PermitLocalCommand=no"]
    words += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]
    if credentials.known_hosts_file:
        # ssh splits this value at spaces, so a path with one stands in quotes of its own.
        words += ["-o", f'UserKnownHostsFile="{credentials.known_hosts_file}"']
        words += ["-o", "GlobalKnownHostsFile=/dev/null"]
    if credentials.ssh_key_file:
        words += ["-i", credentials.ssh_key_file, "-o", "IdentitiesOnly=yes"]
    return shlex.join(words)


def _config(source: GitSource) -> str:
    """What git and its children read in place of the host's configuration."""
    lines = [
        "[core]",
        "\tbare = true",
        "\thooksPath = /dev/null",
        "\tfsmonitor = false",
        "\tattributesFile = /dev/null",
        "\tlogAllRefUpdates = false",
        # What is larger passes through memory in pieces, and never as a whole.
        "\tbigFileThreshold = 8m",
        "[gc]",
        "\tauto = 0",
        "[maintenance]",
        "\tauto = false",
        "[protocol]",
        "\tversion = 2",
        "[transfer]",
        "\tfsckObjects = true",
        "\tadvertiseSID = false",
        "\tbundleURI = false",
        "[fetch]",
        "\tunpackLimit = 1",
        "\trecurseSubmodules = false",
        "\twriteCommitGraph = false",
        '[fetch "fsck"]',
        *(f"\t{name} = ignore" for name in _FORGIVEN),
        "[submodule]",
        "\trecurse = false",
        "[http]",
        "\tlowSpeedLimit = 100",
        "\tlowSpeedTime = 30",
    ]
    parts = urlsplit(source.url)
    if parts.scheme in ("https", "http"):
        origin = f"{parts.scheme}://{parts.netloc}"
        if source.credentials.ca_file:
            lines += [f'[http "{origin}"]', f"\tsslCAInfo = {_quoted(source.credentials.ca_file)}"]
        if source.credentials.password_file:
            # Bound to the origin, so that a redirect elsewhere gets nothing.
            lines += [f'[credential "{origin}"]', f"\thelper = {_quoted(_HELPER)}"]
    path = parts.path if parts.scheme == "file" else source.url
    if addresses.protocol(source.url) == "file":
        # The source's owner has named it; hooks of it are not run by reading.
        places = (path, f"{path}/.git", f"{path}.git")
        lines += ["[safe]", *(f"\tdirectory = {_quoted(place)}" for place in places)]
    return "\n".join(lines) + "\n"


_HELPER = (
    '!f() { test "$1" = get || exit 0; '
    'printf "username=%s\\npassword=%s\\n" "$BAY_GIT_USERNAME" '
    '"$(head -n 1 "$BAY_GIT_PASSWORD_FILE")"; }; f'
)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
