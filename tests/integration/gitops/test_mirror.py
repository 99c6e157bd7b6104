"""Mirrors of real repositories: what is followed, what is refused, and how it is told."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from orchestrator.gitops import mirror as mirrors
from orchestrator.gitops.errors import (
    GitFailed,
    GitMissing,
    HistoryRewritten,
    RefNotFound,
    TooLarge,
    Unreachable,
)
from orchestrator.gitops.mirror import Mirror
from orchestrator.gitops.source import GitSource
from tests.integration.gitops.repository import Repository, needs_git

pytestmark = needs_git


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_the_default_branch_is_followed_from_commit_to_commit(
    tmp_path: Path, repository: Repository
) -> None:
    async def follow() -> None:
        mirror = repository.mirror(tmp_path / "mirror")
        first = repository.commit({"a": "1"}, "the first\n\nwith a body")
        assert await mirror.probe() == first
        revision = await mirror.fetch()
        assert (revision.commit, revision.subject, revision.ref) == (first, "the first", "HEAD")
        assert revision.author == "Ann <ann@example.org>"
        second = repository.commit({"a": "2"})
        assert await mirror.probe() == second
        revision = await mirror.fetch()
        assert (revision.commit, revision.rewritten) == (second, None)
        assert [entry.commit for entry in await mirror.log(first, second)] == [second]
        assert [entry.commit for entry in await mirror.log(None, second)] == [second, first]

    asyncio.run(follow())


def test_a_branch_a_tag_a_commit_and_a_range_are_found(
    tmp_path: Path, repository: Repository
) -> None:
    old = repository.commit({"a": "1"})
    repository.git("tag", "v1.2.0")
    middle = repository.commit({"a": "2"})
    repository.git("tag", "--annotate", "v1.10.0", "--message", "ten")
    repository.git("tag", "v2.0.0-rc.1")
    repository.git("branch", "release")
    new = repository.commit({"a": "3"})

    async def find(**ref: str) -> tuple[str, str]:
        mirror = repository.mirror(tmp_path / "-".join(ref), ref=ref)
        probed = await mirror.probe()
        revision = await mirror.fetch()
        assert probed == revision.commit
        return revision.commit, str(revision).partition("@")[0]

    assert asyncio.run(find(branch="main")) == (new, "main")
    assert asyncio.run(find(branch="release")) == (middle, "release")
    assert asyncio.run(find(tag="v1.10.0")) == (middle, "v1.10.0")
    assert asyncio.run(find(semver=">=1.2 <3")) == (middle, "v1.10.0")
    assert asyncio.run(find(semver="~1.2")) == (old, "v1.2.0")
    assert asyncio.run(find(commit=old)) == (old, old[:12])


def test_what_is_not_there_is_named(tmp_path: Path, repository: Repository) -> None:
    repository.commit({"a": "1"})

    async def fail(message: str, **ref: str) -> None:
        mirror = repository.mirror(tmp_path / "mirror", ref=ref)
        assert ref.get("commit") or await mirror.probe() is None
        with pytest.raises(RefNotFound, match=message):
            await mirror.fetch()

    asyncio.run(fail("has no branch nowhere", branch="nowhere"))
    asyncio.run(fail("has no tag v9", tag="v9"))
    asyncio.run(fail("has no tag in the range 9.x", semver="9.x"))
    asyncio.run(fail("has no commit 1234", commit="1234" * 10))


def test_a_rewritten_branch_is_followed_and_said(tmp_path: Path, repository: Repository) -> None:
    async def rewrite() -> None:
        mirror = repository.mirror(tmp_path / "mirror")
        repository.commit({"a": "1"})
        old = repository.commit({"a": "2"})
        await mirror.fetch()
        repository.git("commit", "--quiet", "--amend", "--message", "other")
        revision = await mirror.fetch()
        assert revision.commit == repository.head()
        assert revision.rewritten == old
        assert (await mirror.fetch()).rewritten is None

    asyncio.run(rewrite())


def test_a_rewritten_branch_is_refused_until_it_is_accepted(
    tmp_path: Path, repository: Repository
) -> None:
    async def rewrite() -> None:
        mirror = repository.mirror(tmp_path / "mirror", forcePush="refuse")
        repository.commit({"a": "1"})
        old = repository.commit({"a": "2"})
        await mirror.fetch()
        repository.git("commit", "--quiet", "--amend", "--message", "other")
        for _ in range(2):
            with pytest.raises(HistoryRewritten, match="HEAD was rewritten") as caught:
                await mirror.fetch()
            assert (caught.value.old, caught.value.new) == (old, repository.head())
        assert (await mirror.fetch(accept_rewrite=True)).commit == repository.head()
        assert (await mirror.fetch()).commit == repository.head()

    asyncio.run(rewrite())


def test_a_moved_tag_is_a_rewritten_history_and_a_newer_one_is_not(
    tmp_path: Path, repository: Repository
) -> None:
    async def move() -> None:
        mirror = repository.mirror(tmp_path / "mirror", ref={"semver": "1.x"}, forcePush="refuse")
        repository.commit({"a": "1"})
        repository.git("tag", "v1.0.0")
        await mirror.fetch()
        repository.git("checkout", "--quiet", "--orphan", "other")
        newer = repository.commit({"a": "2"})
        repository.git("tag", "v1.1.0")
        assert (await mirror.fetch()).commit == newer
        repository.commit({"a": "3"})
        repository.git("tag", "--force", "v1.1.0")
        with pytest.raises(HistoryRewritten, match=r"refs/tags/v1\.1\.0 was rewritten"):
            await mirror.fetch()

    asyncio.run(move())


def test_kept_commits_outlive_the_branch(tmp_path: Path, repository: Repository) -> None:
    async def keep() -> None:
        mirror = repository.mirror(tmp_path / "mirror")
        repository.commit({"a": "1"})
        lost = repository.commit({"a": "2"})
        await mirror.fetch()
        kept = repository.commit({"a": "3"})
        await mirror.fetch()
        await mirror.keep([kept])
        repository.git("checkout", "--quiet", "--orphan", "fresh")
        repository.commit({"a": "4"})
        repository.git("branch", "--force", "main")
        await mirror.fetch()
        await mirror.git.run("gc", "--quiet", "--prune=now")
        assert await mirror.has(kept)
        await mirror.keep([])
        await mirror.git.run("gc", "--quiet", "--prune=now")
        assert not await mirror.has(kept)
        assert not await mirror.has(lost)

    asyncio.run(keep())


def test_many_fetches_do_not_leave_many_packs(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_PACKS", 5)

    async def fetch() -> None:
        mirror = repository.mirror(tmp_path / "mirror")
        first = repository.commit({"a": "0"})
        await mirror.fetch()
        await mirror.keep([first])
        packs = mirror.directory / "objects/pack"
        for number in range(8):
            repository.commit({"a": f"a {number}"})
            await mirror.fetch()
        assert sum(1 for _ in packs.glob("*.pack")) <= 6
        assert await mirror.has(first)
        assert len(await mirror.log(first, repository.head())) == 8

    asyncio.run(fetch())


def test_no_repository_is_unreachable(tmp_path: Path) -> None:
    async def fail(url: str, message: str) -> None:
        source = GitSource(name="shop", url=url)
        with pytest.raises(Unreachable, match=message) as caught:
            await Mirror(tmp_path / "mirror", source).fetch()
        assert caught.value.transient
        assert "\n" not in str(caught.value)

    nowhere = str(tmp_path / "nowhere")
    asyncio.run(fail(nowhere, "does not appear to be a git repository"))
    asyncio.run(fail("http://127.0.0.1:1/x.git", "connect"))


def test_a_repository_over_the_limit_is_left_where_it_is(
    tmp_path: Path, repository: Repository
) -> None:
    async def fetch() -> None:
        mirror = repository.mirror(tmp_path / "mirror", limits={"size": "1m"})
        repository.commit({"small": "1"})
        small = (await mirror.fetch()).commit
        repository.commit({"large": os.urandom(4 * 2**20)})
        with pytest.raises(TooLarge, match="more than 1,048,576 bytes"):
            await mirror.fetch()
        assert await mirror.has(small)
        assert not list((mirror.directory / "objects/pack").glob("tmp_*"))

    asyncio.run(fetch())


def test_a_server_that_says_nothing_is_given_up_with_all_that_was_started(
    tmp_path: Path, repository: Repository
) -> None:
    repository.commit({"a": "1"})

    async def fetch() -> None:
        answered = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            answered.set()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        source = GitSource.model_validate(
            {"name": "shop", "url": f"http://127.0.0.1:{port}/x.git", "timeout": "1s"}
        )
        with pytest.raises(Unreachable, match="did not end within 1 s"):
            await Mirror(tmp_path / "mirror", source).fetch()
        assert answered.is_set()
        server.close()

    asyncio.run(fetch())
    assert not _running(str(tmp_path / "mirror"))


def _running(word: str) -> list[str]:
    """Processes of which the environment names `word`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if word.encode() in environ:
                found.append(entry.name)
    return found


def test_a_fetch_that_is_given_up_ends_git(tmp_path: Path, repository: Repository) -> None:
    repository.commit({"a": "1"})
    hook = tmp_path / "ssh"
    hook.write_text("#!/bin/sh\necho started >started\nexec sleep 1000\n")
    hook.chmod(0o755)

    async def cancel() -> None:
        source = GitSource(name="shop", url="ssh://git@127.0.0.1:1/x.git")
        mirror = Mirror(tmp_path / "mirror", source)
        await mirror.git.prepare()
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{tmp_path}:{path}"
        try:
            fetching = asyncio.ensure_future(mirror.fetch())
            while not (mirror.directory / "started").exists():
                assert not fetching.done()
                await asyncio.sleep(0.01)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
        finally:
            os.environ["PATH"] = path

    asyncio.run(cancel())
    assert not _running(str(tmp_path / "mirror"))


def test_a_killed_fetch_leaves_a_mirror_that_works(tmp_path: Path, repository: Repository) -> None:
    repository.commit({f"f{n}": os.urandom(2**16) for n in range(50)})

    async def fetch() -> None:
        mirror = repository.mirror(tmp_path / "mirror")
        await mirror.git.prepare()
        running = asyncio.ensure_future(
            mirror.git.run(
                "fetch", "--quiet", "--", str(repository.path), "+HEAD:refs/bayplan/fetched"
            )
        )
        packs = mirror.directory / "objects/pack"
        while not running.done() and not list(packs.glob("tmp_*")):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await mirror.fetch()).commit == repository.head()
        assert not list(packs.glob("tmp_*"))

    asyncio.run(fetch())


def test_git_that_is_not_installed_is_named(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"a": "1"})
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(GitMissing, match="git is not installed") as caught:
        asyncio.run(repository.mirror(tmp_path / "mirror").fetch())
    assert caught.value.hint is not None


def test_neither_configuration_nor_hooks_of_the_repository_or_the_host_run(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
    script.chmod(0o755)
    repository.commit({".gitattributes": "* filter=evil\n", "a": "1"})
    hooks = repository.path / ".git/hooks"
    for name in ("post-checkout", "reference-transaction", "pre-auto-gc", "post-update"):
        (hooks / name).write_text(script.read_text())
        (hooks / name).chmod(0o755)
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand", "core.pager"):
        repository.git("config", key, str(script))
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {hooks}\n\tfsmonitor = {script}\n"
        f'[filter "evil"]\n\tsmudge = {script}\n[uploadpack]\n\tpackObjectsHook = {script}\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_SSH_COMMAND", str(script))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(script))

    async def fetch() -> None:
        mirror = repository.mirror(tmp_path / "mirror", ref={"branch": "main"})
        revision = await mirror.fetch()
        await mirror.tree(revision.commit)
        await mirror.log(None, revision.commit)

    asyncio.run(fetch())
    assert not mark.exists()


def test_a_repository_of_somebody_else_can_be_read(tmp_path: Path, repository: Repository) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory to somebody else")
    repository.commit({"a": "1"})
    for place in (repository.path, *repository.path.rglob("*")):
        os.lchown(place, 12345, 12345)
    assert asyncio.run(repository.mirror(tmp_path / "mirror").probe())


def test_what_a_committer_writes_cannot_steer_a_terminal(
    tmp_path: Path, repository: Repository
) -> None:
    repository.settings["user.name"] = "An\x1b[31mn"
    repository.commit({"a": "1"}, "sub\x1b]0;ject\x07 \x7f")
    revision = asyncio.run(repository.mirror(tmp_path / "mirror").fetch())
    assert revision.subject.isprintable()
    assert revision.author.isprintable()


def test_the_mirror_is_for_its_owner_alone(tmp_path: Path, repository: Repository) -> None:
    repository.commit({"a": "1"})
    asyncio.run(repository.mirror(tmp_path / "mirror").fetch())
    assert stat.S_IMODE((tmp_path / "mirror").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "end",
    [b"committer A <a@b>\n\nx\n", b"committer A <a@b> 5 +0000\nencoding utf-16\n\nhello\n"],
    ids=["without a date", "in an encoding that it is not in"],
)
def test_a_commit_that_cannot_say_when_it_was_made_is_taken(
    tmp_path: Path, repository: Repository, end: bytes
) -> None:
    repository.commit({"a": "1"})
    tree = repository.git("rev-parse", "HEAD^{tree}").encode()
    raw = b"tree " + tree + b"\nauthor A <a@b> 1 +0000\n" + end
    words = ("hash-object", "--literally", "-w", "-t", "commit", "--stdin")
    commit = repository.git(*words, given=raw)
    repository.git("update-ref", "refs/heads/main", commit)
    revision = asyncio.run(repository.mirror(tmp_path / "mirror").fetch())
    assert (revision.commit, revision.committed_at) == (commit, 0.0)


def test_a_list_of_files_that_ends_early_is_no_commit(
    tmp_path: Path, repository: Repository
) -> None:
    async def lose_a_directory() -> None:
        mirror = repository.mirror(tmp_path / "mirror")
        commit = repository.commit({"a/file": "1", "z/compose.yaml": "services: {}"})
        await mirror.fetch()
        packs = tmp_path / "mirror/objects/pack"
        (pack,) = packs.glob("*.pack")
        content = pack.read_bytes()
        for path in packs.glob(f"{pack.stem}.*"):
            path.unlink()
        await mirror.git.run("unpack-objects", "-q", given=content)
        assert [entry.path for entry in await mirror.tree(commit)][-1] == "z/compose.yaml"
        lost = repository.git("rev-parse", f"{commit}:z")
        (tmp_path / "mirror/objects" / lost[:2] / lost[2:]).unlink()
        with pytest.raises(GitFailed, match="broke off"):
            await mirror.tree(commit)

    asyncio.run(lose_a_directory())


def test_a_server_with_tags_without_end_is_given_up(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"a": "1"})
    for number in range(4):
        repository.git("tag", f"v1.0.{number}")
    mirror = repository.mirror(tmp_path / "mirror", ref={"semver": "1.x"})
    assert asyncio.run(mirror.probe()) == repository.head()
    monkeypatch.setattr(mirrors, "_REFERENCES", 3)
    with pytest.raises(TooLarge, match="more than 3 tags"):
        asyncio.run(mirror.probe())
