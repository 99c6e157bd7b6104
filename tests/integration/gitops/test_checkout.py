"""Checkouts: immutable by commit, and a stable tree that goes from one to the next."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from orchestrator.gitops import switching
from orchestrator.gitops.checkout import Checkout, load, sweep
from orchestrator.gitops.errors import GitOpsError, TooLarge, UnsafeTree
from orchestrator.gitops.found_files import same_content
from orchestrator.gitops.mirror import Mirror
from orchestrator.gitops.switching import Switched, current, switch
from tests.integration.gitops.repository import Repository, needs_git, taken

pytestmark = needs_git


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def mirror(tmp_path: Path, repository: Repository) -> Mirror:
    return repository.mirror(tmp_path / "mirror")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def take(mirror: Mirror, root: Path) -> Checkout:
    return asyncio.run(taken(mirror, root))


def bring(mirror: Mirror, root: Path) -> tuple[Checkout, Switched]:
    """Check out what the source has now, and switch the stable tree to it."""
    checkout = take(mirror, root)
    return checkout, asyncio.run(switch(checkout))


def listing(directory: Path) -> dict[str, tuple[int, str]]:
    """Every path below a directory with its mode and content."""
    found = {}
    for place in sorted(directory.rglob("*")):
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            content = os.readlink(place)
        else:
            content = place.read_text() if stat.S_ISREG(mode) else ""
        found[str(place.relative_to(directory))] = (mode, content)
    return found


# Immutable checkouts.


def test_a_checkout_has_the_files_modes_and_links_of_the_commit(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"a": "1", "d/e/f": "2", "run": "#!/bin/sh\n"})
    (repository.path / "run").chmod(0o755)
    (repository.path / "link").symlink_to("d/e")
    repository.commit()
    checkout = take(mirror, root)
    assert listing(checkout.path) == {
        "a": (stat.S_IFREG | 0o644, "1"),
        "d": (stat.S_IFDIR | 0o755, ""),
        "d/e": (stat.S_IFDIR | 0o755, ""),
        "d/e/f": (stat.S_IFREG | 0o644, "2"),
        "link": (stat.S_IFLNK | 0o777, "d/e"),
        "run": (stat.S_IFREG | 0o755, "#!/bin/sh\n"),
    }
    assert not (checkout.path / ".git").exists()


def test_a_checkout_that_is_there_is_taken_as_it_is(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"a": "1"})
    first = take(mirror, root)
    inode = (first.path / "a").stat().st_ino
    assert take(mirror, root) == first == load(root, first.commit)
    assert (first.path / "a").stat().st_ino == inode


def test_unchanged_files_are_shared_between_checkouts(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"same": "1", "other": "1"})
    first = take(mirror, root)
    repository.commit({"other": "2"})
    second = take(mirror, root)
    assert (first.path / "same").samefile(second.path / "same")
    assert (first.path / "other").read_text() == "1"


def test_what_a_crash_left_half_made_is_made_again(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    commit = repository.commit({"a": "1", "b": "2"})
    half = root / "commits" / commit
    half.mkdir(parents=True)
    (half / "a").write_text("")
    draft = root / "commits" / f".{commit}.new"
    draft.mkdir()
    (draft / "z").write_text("")
    assert sorted(listing(take(mirror, root).path)) == ["a", "b"]
    assert not draft.exists()


@pytest.mark.parametrize("damage", ["content", "mode", "missing", "link"])
def test_a_checkout_from_before_the_boot_is_looked_at_before_it_is_used(
    repository: Repository, mirror: Mirror, root: Path, damage: str
) -> None:
    commit = repository.commit({"a": "whole", "d/b": "2"})
    wanted = listing(take(mirror, root).path)
    manifest = root / "commits" / f"{commit}.json"
    document = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**document, "boot": "another"}))
    place = root / "commits" / commit / "a"
    if damage == "content":
        place.write_text("")
    elif damage == "mode":
        place.chmod(0o755)
    else:
        place.unlink()
        if damage == "link":
            place.symlink_to("d/b")
    assert listing(take(mirror, root).path) == wanted
    assert json.loads(manifest.read_bytes())["boot"] == document["boot"]


def test_content_has_a_digest_that_changes_with_it_and_with_nothing_else(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"conf/a": "1", "other": "1"})
    first = take(mirror, root)
    repository.commit({"other": "2"})
    second = take(mirror, root)
    (repository.path / "conf/a").chmod(0o755)
    repository.commit()
    third = take(mirror, root)
    assert first.digest("conf") == second.digest("conf") != third.digest("conf")
    assert first.digest("conf/a") != third.digest("conf/a")
    assert first.digest(".") != second.digest(".")
    assert first.digest("nowhere") is None


def test_checkouts_that_nobody_needs_are_swept(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"a": "1", "same": "1"})
    first = take(mirror, root)
    repository.commit({"a": "2"})
    second = take(mirror, root)
    assert sweep(root, [second.commit]) == [first.commit]
    assert sorted(os.listdir(root / "commits")) == [second.commit, f"{second.commit}.json"]
    assert (second.path / "same").read_text() == "1"


# Repositories that mean harm.


@pytest.mark.parametrize(
    "name", ["..", ".git", ".GIT", "a\x1bb", "a\nb", "x" * 300], ids=lambda name: repr(name)[:12]
)
def test_names_that_lead_out_or_cannot_be_shown_are_refused(
    repository: Repository, mirror: Mirror, root: Path, name: str
) -> None:
    repository.commit({"a": "1"})
    repository.commit_tree([("100644", name, repository.blob("evil"))])
    with pytest.raises(UnsafeTree) as caught:
        take(mirror, root)
    assert str(caught.value).isprintable()
    assert not list(root.glob("commits/*")) if root.exists() else True


def test_a_path_below_a_link_is_refused(
    tmp_path: Path, repository: Repository, mirror: Mirror, root: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    repository.commit({"a": "1"})
    inner = repository.git("mktree", given=f"100644 blob {repository.blob('x')}\tf\n".encode())
    repository.commit_tree(
        [("120000", "link", repository.blob(str(outside))), ("40000", "link", inner)]
    )
    with pytest.raises(GitOpsError):
        take(mirror, root)
    assert not list(outside.iterdir())


def test_a_tree_that_grows_out_of_nothing_is_given_up_early(
    repository: Repository, root: Path, tmp_path: Path
) -> None:
    # Ten levels of ten names for one and the same thing are ten thousand million files.
    name = repository.blob("bomb")
    mode, kind = "100644", "blob"
    for _ in range(10):
        lines = "".join(f"{mode} {kind} {name}\td{n}\n" for n in range(10))
        name = repository.git("mktree", given=lines.encode())
        mode, kind = "040000", "tree"
    commit = repository.git("commit-tree", name, "-m", "bomb")
    repository.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(TooLarge, match="more than 100,000 files"):
        take(repository.mirror(tmp_path / "mirror"), root)


def test_files_over_the_limit_are_refused_before_one_is_written(
    repository: Repository, root: Path, tmp_path: Path
) -> None:
    repository.commit({f"f{n}": "0" * 2**20 for n in range(3)})
    mirror = repository.mirror(tmp_path / "mirror", limits={"size": "2m"})
    with pytest.raises(TooLarge, match="have more than 2,097,152 bytes"):
        take(mirror, root)
    assert not list((root / "commits").iterdir())


def test_lfs_pointers_and_submodules_are_known(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    first = repository.commit({"model.bin": pointer, "small": "1"})
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{first},lib/module")
    repository.git("commit", "--quiet", "--message", "a submodule")
    checkout = take(mirror, root)
    assert checkout.lfs == ("model.bin",)
    assert checkout.submodules == ("lib/module",)
    assert (checkout.path / "lib/module").is_dir()
    repository.git("commit", "--quiet", "--allow-empty", "--message", "again")
    assert take(mirror, root).lfs == ("model.bin",)


# The stable tree.


def test_the_tree_becomes_what_the_commit_is(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"a": "1", "d/b": "1", "gone/deep/c": "1"})
    (repository.path / "link").symlink_to("a")
    repository.commit()
    checkout, first = bring(mirror, root)
    assert sorted(first.written) == ["a", "d/b", "gone/deep/c", "link"]
    assert listing(checkout.stable) == listing(checkout.path)
    repository.commit({"a": "2", "gone/deep/c": None, "new/e": "1"})
    (repository.path / "link").unlink()
    (repository.path / "link").symlink_to("d/b")
    repository.commit()
    checkout, second = bring(mirror, root)
    assert sorted(second.written) == ["a", "link", "new/e"]
    assert second.removed == ["gone/deep/c"]
    assert listing(checkout.stable) == listing(checkout.path)
    assert current(root) == checkout.commit
    assert not asyncio.run(switch(checkout)).changed


def test_what_did_not_change_keeps_its_inode_so_that_mounts_of_it_live_on(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"conf/same": "1", "conf/other": "1"})
    checkout, _ = bring(mirror, root)
    directory = os.open(checkout.stable / "conf", os.O_PATH)
    file = os.open(checkout.stable / "conf/same", os.O_RDONLY)
    try:
        repository.commit({"conf/other": "2", "conf/new": "3"})
        bring(mirror, root)
        # As a container sees it that has the directory mounted.
        seen = f"/proc/self/fd/{directory}"
        assert Path(seen, "other").read_text() == "2"
        assert Path(seen, "new").read_text() == "3"
        assert os.fstat(file).st_ino == (checkout.stable / "conf/same").stat().st_ino
        assert os.fstat(directory).st_ino == (checkout.stable / "conf").stat().st_ino
    finally:
        os.close(directory)
        os.close(file)


def test_what_containers_write_stays(repository: Repository, mirror: Mirror, root: Path) -> None:
    repository.commit({"data/.keep": "", "old/a": "1"})
    checkout, _ = bring(mirror, root)
    (checkout.stable / "data/db").write_text("rows")
    (checkout.stable / "old/log").write_text("lines")
    repository.commit({"old/a": None, "b": "1"})
    bring(mirror, root)
    assert (checkout.stable / "data/db").read_text() == "rows"
    assert (checkout.stable / "old/log").read_text() == "lines"
    assert not (checkout.stable / "old/a").exists()


def test_a_tree_that_is_given_up_keeps_what_containers_wrote(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"a": "1", "data/.keep": "", "d/e/f": "1"})
    checkout, _ = bring(mirror, root)
    (checkout.stable / "data/db").write_text("rows")
    assert asyncio.run(switching.clear(root))
    assert sorted(listing(checkout.stable)) == ["data", "data/db"]
    bring(mirror, root)
    assert (checkout.stable / "data/db").read_text() == "rows"
    (checkout.stable / "data/db").unlink()
    assert not asyncio.run(switching.clear(root))
    assert not checkout.stable.exists()
    assert not asyncio.run(switching.clear(root))


def test_a_file_of_a_container_in_the_way_is_kept_beside(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"a": "1"})
    checkout, _ = bring(mirror, root)
    (checkout.stable / "conf").write_text("a container's")
    (checkout.stable / "dir").mkdir()
    (checkout.stable / "dir/mine").write_text("a container's")
    repository.commit({"conf": "the commit's", "dir": "a file now"})
    checkout, switched = bring(mirror, root)
    suffix = f".kept-{checkout.commit[:12]}"
    assert sorted(switched.kept) == [f"conf{suffix}", f"dir{suffix}"]
    assert (checkout.stable / "conf").read_text() == "the commit's"
    assert (checkout.stable / f"conf{suffix}").read_text() == "a container's"
    assert (checkout.stable / f"dir{suffix}/mine").read_text() == "a container's"


def test_a_directory_becomes_a_file_and_back(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"x/y/z": "1"})
    bring(mirror, root)
    repository.commit({"x/y/z": None})
    for place in ("x/y", "x"):
        (repository.path / place).rmdir()
    repository.commit({"x": "a file"})
    checkout, switched = bring(mirror, root)
    assert listing(checkout.stable) == listing(checkout.path)
    assert switched.kept == []
    repository.commit({"x": None})
    repository.commit({"x/y/z": "2"})
    checkout, switched = bring(mirror, root)
    assert listing(checkout.stable) == listing(checkout.path)
    assert switched.kept == []


def test_a_changed_file_of_the_commit_is_put_right(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({"a": "1", "d/b": "1", "c": "1"})
    checkout, _ = bring(mirror, root)
    (checkout.stable / "a").write_text("x")
    (checkout.stable / "c").chmod(0o777)
    (checkout.stable / "d/b").unlink()
    (checkout.stable / "d").rmdir()
    assert sorted(asyncio.run(switch(checkout)).written) == ["a", "c", "d/b"]
    assert listing(checkout.stable) == listing(checkout.path)


def test_a_change_that_hides_is_found_and_what_nobody_touched_is_not_read_again(
    repository: Repository, mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"a": "1", "b": "1"})
    checkout, _ = bring(mirror, root)
    monkeypatch.setattr(switching, "_TOO_YOUNG", 0)
    asyncio.run(switch(checkout))  # now that they are old enough, they are known
    times = (checkout.stable / "a").stat()
    (checkout.stable / "a").write_text("x")
    os.utime(checkout.stable / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    compared = []
    same = same_content

    def counted(directory: int, name: str, source: Path) -> bool:
        compared.append(name)
        return same(directory, name, source)

    monkeypatch.setattr(switching, "same_content", counted)
    assert asyncio.run(switch(checkout)).written == ["a"]
    assert compared == ["a"]


def test_a_container_can_neither_harm_the_checkout_nor_lead_a_switch_out_of_the_tree(
    tmp_path: Path, repository: Repository, mirror: Mirror, root: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_text("the host's")
    repository.commit({"d/b": "1", "d/e/f": "1", "g": "1"})
    checkout, _ = bring(mirror, root)
    before = listing(checkout.path)
    tree = checkout.stable
    (tree / "g").write_text("through a mount")
    assert listing(checkout.path) == before
    (tree / "d").rename(tree / "moved")
    (tree / "d").symlink_to(outside)
    (tree / "g").unlink()
    (tree / "g").symlink_to(outside / "b")
    os.mkfifo(tree / "pipe")
    repository.commit({"d/b": "2", "d/e/f": None, "g": "2", "pipe": "1"})
    checkout, _ = bring(mirror, root)
    assert (outside / "b").read_text() == "the host's"
    assert os.listdir(outside) == ["b"]
    for path, entry in listing(checkout.path).items():
        assert listing(tree)[path] == entry


def test_a_switch_that_was_cut_off_anywhere_is_taken_on(
    repository: Repository, mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"a": "1", "d/b": "1", "old/c": "1", "old/d": "1"})
    first, _ = bring(mirror, root)
    (first.stable / "old/own").write_text("a container's")
    repository.commit({"a": "2", "d/b": "2", "new/e": "1", "old/c": None, "old/d": None})
    second = take(mirror, root)

    class Cut(BaseException):
        pass

    for after in range(40):
        calls = 0

        def counting(real: object, limit: int = after) -> object:
            def call(*arguments: object, **named: object) -> object:
                nonlocal calls
                calls += 1
                if calls > limit:
                    raise Cut
                return real(*arguments, **named)  # type: ignore[operator]

            return call

        with monkeypatch.context() as patched:
            for name in ("rename", "unlink", "mkdir", "rmdir"):
                patched.setattr(os, name, counting(getattr(os, name)))
            try:
                asyncio.run(switch(second))
                cut = False
            except Cut:
                cut = True
        # Going back works from there as well as going on.
        goal = first if after % 2 else second
        asyncio.run(switch(goal))
        found = listing(goal.stable)
        assert found.pop("old/own")[1] == "a container's"
        found.pop("old", None)
        wanted = listing(goal.path)
        wanted.pop("old", None)
        assert found == wanted
        asyncio.run(switch(first))
        if not cut:
            break
    else:
        pytest.fail("the switch never came to its end")


def test_a_switch_takes_place_while_others_read_and_they_see_whole_files(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    size = 2**16
    repository.commit({"a": "0" * size})
    zero, _ = bring(mirror, root)
    repository.commit({"a": "1" * size})
    one = take(mirror, root)

    async def both() -> None:
        running = True

        def read() -> set[str]:
            seen = set()
            while running:
                text = (one.stable / "a").read_text()
                assert len(text) == size
                seen.add("".join(sorted(set(text))))
            return seen

        reading = asyncio.ensure_future(asyncio.to_thread(read))
        for number in range(50):
            await switch(one if number % 2 == 0 else zero)
        running = False
        assert await reading <= {"0", "1"}

    asyncio.run(both())


def test_a_large_tree_is_checked_out_beside_other_work(
    repository: Repository, mirror: Mirror, root: Path
) -> None:
    repository.commit({f"d{n % 50}/f{n}": f"{n}" for n in range(1000)})

    async def work() -> int:
        checking = asyncio.ensure_future(taken(mirror, root))
        turns = 0
        while not checking.done():
            await asyncio.sleep(0.001)
            turns += 1
        checkout = await checking
        await switch(checkout)
        return turns

    assert asyncio.run(work()) > 3
