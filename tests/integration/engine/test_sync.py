"""Bringing files of the host into containers."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from orchestrator.engine.copying import find, open_tree
from orchestrator.engine.errors import ContainerFull, ContainerGone
from orchestrator.engine.sync import TEMPORARY, ContainerFiles, Delete, Put
from runtime.container.config import File, Mount, Tmpfs
from tests.integration.runtime.yard import BUSYBOX, Yard

TIME = 1_600_000_000_123_456_789
FOREVER = ("sleep", "1000")


def files_of(yard: Yard, id: str, **settings: str) -> ContainerFiles:
    return ContainerFiles(yard.root, yard.sockets, id, **settings)


def make(path: Path, content: str = "new\n", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    os.utime(path, ns=(TIME, TIME))
    return path


def look(yard: Yard, id: str, path: str) -> os.stat_result | None:
    """What lies at `path` in a container in whatever state."""
    with open_tree(yard.root, yard.sockets, id) as tree:
        try:
            place = find(tree.fd, path, follow=False)
        except FileNotFoundError:
            return None
        place.close()
        return place.status


def read(yard: Yard, id: str, path: str) -> str:
    with open_tree(yard.root, yard.sockets, id) as tree:
        place = find(tree.fd, path, follow=True)
        with open(f"/proc/self/fd/{place.directory}/{place.name}".rstrip("/")) as file:
            text = file.read()
        place.close()
    return text


@pytest.fixture(params=["running", "read-only", "paused", "stopped", "created"])
def container(request: pytest.FixtureRequest, yard: Yard) -> str:
    settings = {"user": "bob", "read_only": request.param == "read-only"}
    if request.param == "created":
        return yard.create(*FOREVER, **settings)
    if request.param == "stopped":
        id = yard.start("true", **settings)
        yard.finish(id)
        return id
    id = yard.start(*FOREVER, **settings)
    if request.param == "paused":
        yard.containers.pause(id, True)
    return id


def test_files_arrive_with_mode_and_time_and_belong_to_the_containers_user(
    yard: Yard, container: str, tmp_path: Path
) -> None:
    script = make(tmp_path / "src" / "run.sh", "#!/bin/sh\n", 0o6755)
    link = tmp_path / "src" / "link"
    link.symlink_to("run.sh")
    private = tmp_path / "src" / "private"
    private.mkdir(mode=0o700)
    os.chown(script, 4321, 4321)
    before = os.umask(0o077)
    try:
        synced = files_of(yard, container).apply(
            [
                Put(source=script, target="/app/deep/run.sh"),
                Put(source=link, target="/app/deep/link"),
                Put(source=private, target="/app/private"),
            ]
        )
    finally:
        os.umask(before)

    assert (synced.written, synced.bytes, synced.skipped) == (3, 10, ())
    file = look(yard, container, "/app/deep/run.sh")
    assert file is not None and stat.S_ISREG(file.st_mode)
    assert (stat.S_IMODE(file.st_mode), file.st_mtime_ns) == (0o755, TIME)
    assert (file.st_uid, file.st_gid) == (1000, 1000)
    linked = look(yard, container, "/app/deep/link")
    assert linked is not None and stat.S_ISLNK(linked.st_mode) and linked.st_uid == 1000
    for path, mode in (("/app", 0o755), ("/app/deep", 0o755), ("/app/private", 0o700)):
        directory = look(yard, container, path)
        assert directory is not None
        assert (stat.S_IMODE(directory.st_mode), directory.st_uid) == (mode, 1000)
    if yard.containers.get(container).status == "running":
        assert yard.exec(container, "cat", "/app/deep/link").output == "#!/bin/sh\n"
        assert yard.exec(container, "touch", "/new").exit_code != 0


def test_files_are_replaced_and_removed(yard: Yard, container: str, tmp_path: Path) -> None:
    files = files_of(yard, container)
    source = make(tmp_path / "file", "first\n")
    files.apply([Put(source=source, target="/etc/hosts"), Put(source=source, target="/new/a")])
    make(source, "second, which is longer\n", 0o600)
    synced = files.apply([Put(source=source, target="/new/a"), Delete(target="/etc/group")])

    assert (synced.written, synced.deleted) == (1, 1)
    assert read(yard, container, "/etc/hosts") == "first\n"
    assert read(yard, container, "/new/a") == "second, which is longer\n"
    assert look(yard, container, "/etc/group") is None
    gone = files.apply([Delete(target="/new"), Delete(target="/new/a"), Delete(target="/no/such")])
    assert (gone.deleted, gone.skipped) == (1, ())
    assert look(yard, container, "/new") is None


def test_nothing_stays_open_or_mounted(yard: Yard, container: str, tmp_path: Path) -> None:
    source = make(tmp_path / "file")
    open_before = len(os.listdir("/proc/self/fd"))
    files = files_of(yard, container)
    files.apply([Put(source=source, target="/app/file"), Delete(target="/app")])
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert str(yard.directory) not in Path("/proc/self/mountinfo").read_text()
    files.close()
    assert files.apply([Put(source=source, target="/app/file")]).written == 0


def test_a_container_needs_no_shell_and_no_files_of_users(yard: Yard, tmp_path: Path) -> None:
    layer = tmp_path / "distroless"
    layer.mkdir()
    shutil.copy(BUSYBOX, layer / "program")
    id = yard.start("/program", "sleep", "1000", layers=(str(layer),), user="65532:65532")
    files_of(yard, id).apply([Put(source=make(tmp_path / "file"), target="/srv/file")])
    found = look(yard, id, "/srv/file")
    assert found is not None and (found.st_uid, found.st_gid) == (65532, 65532)


def test_another_user_may_own_what_arrives(yard: Yard, tmp_path: Path) -> None:
    id = yard.start(*FOREVER)
    source = make(tmp_path / "file")
    files_of(yard, id, user="bob:crew").apply([Put(source=source, target="/file")])
    found = look(yard, id, "/file")
    assert found is not None and (found.st_uid, found.st_gid) == (1000, 2000)


def test_volumes_are_written_and_what_is_mounted_for_reading_is_not(
    yard: Yard, tmp_path: Path
) -> None:
    writable, closed = tmp_path / "writable", tmp_path / "closed"
    writable.mkdir()
    make(closed / "file", "kept\n")
    mounts = (
        Mount(source=str(writable), target="/data"),
        Mount(source=str(closed), target="/closed", read_only=True),
    )
    source = make(tmp_path / "file")
    changes: list[Put | Delete] = [
        Put(source=source, target="/data/sub/file"),
        Put(source=source, target="/closed/file"),
        Put(source=source, target="/closed/sub/file"),
        Delete(target="/closed/file"),
    ]
    for id in (
        yard.start(*FOREVER, read_only=True, mounts=mounts),
        yard.create(*FOREVER, mounts=mounts),
    ):
        synced = files_of(yard, id).apply(changes)
        assert synced.written == 1
        assert [path for path, _ in synced.skipped] == [c.target for c in changes[1:]]
        assert {reason for _, reason in synced.skipped} == {"it is mounted read-only"}
        assert (writable / "sub" / "file").read_text() == "new\n"
        assert [path.name for path in closed.iterdir()] == ["file"]
        shutil.rmtree(writable / "sub")


def test_a_volume_gets_the_images_content_before_the_first_file(yard: Yard, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    id = yard.create(*FOREVER, mounts=(Mount(source=str(volume), target="/etc", seed=True),))
    files_of(yard, id).apply([Put(source=make(tmp_path / "file"), target="/etc/file")])
    assert {path.name for path in volume.iterdir()} == {"passwd", "group", "file"}


def test_memory_is_written_while_there_is_any(yard: Yard, tmp_path: Path) -> None:
    source = make(tmp_path / "file")
    settings = {"tmpfs": (Tmpfs(target="/cache"),), "read_only": True}
    running, created = yard.start(*FOREVER, **settings), yard.create(*FOREVER, **settings)
    put = Put(source=source, target="/cache/sub/file")
    assert files_of(yard, running).apply([put]).written == 1
    assert yard.exec(running, "cat", "/cache/sub/file").output == "new\n"
    skipped = files_of(yard, created).apply([put, Put(source=source, target="/proc/x")]).skipped
    reason = "only a running container has something there"
    assert skipped == (("/cache/sub/file", reason), ("/proc/x", reason))


def test_the_hosts_own_files_are_left_alone_where_they_are_mounted(
    yard: Yard, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    file = make(project / "sub" / "file")
    link = project / "link"
    link.symlink_to("sub")
    id = yard.start(*FOREVER, mounts=(Mount(source=str(project), target="/app"),))
    inode, changed = file.stat().st_ino, project.stat().st_mtime_ns
    files = files_of(yard, id)
    synced = files.apply(
        [
            Put(source=file, target="/app/sub/file"),
            Put(source=link, target="/app/link"),
            Put(source=project / "sub", target="/app/sub"),
            Delete(source=file, target="/app/sub/file"),
        ]
    )
    assert (synced.written, synced.deleted) == (0, 0)
    assert synced.skipped == (("/app/sub/file", "it is there again"),)
    assert (file.stat().st_ino, project.stat().st_mtime_ns) == (inode, changed)
    assert files.differing([Put(source=file, target="/app/sub/file")]) == []


def test_a_file_that_is_mounted_by_itself_is_written_in_place(yard: Yard, tmp_path: Path) -> None:
    host = make(tmp_path / "host.conf", "a longer old content\n", 0o640)
    id = yard.start(
        *FOREVER,
        mounts=(Mount(source=str(host), target="/etc/host.conf"),),
        files=(File(target="/etc/hosts", content="127.0.0.1 localhost\n"),),
    )
    source = make(tmp_path / "file", "new\n", 0o755)
    synced = files_of(yard, id).apply(
        [
            Put(source=source, target="/etc/host.conf"),
            Put(source=source, target="/etc/hosts"),
            Put(source=host, target="/etc/host.conf"),
        ]
    )
    assert (synced.written, synced.skipped) == (2, ())
    assert host.read_text() == "new\n"
    assert stat.S_IMODE(host.stat().st_mode) == 0o640
    assert yard.exec(id, "cat", "/etc/host.conf", "/etc/hosts").output == "new\nnew\n"
    assert "/etc/host.conf" in yard.exec(id, "cat", "/proc/mounts").output
    (tmp_path / "link").symlink_to("file")
    gone = files_of(yard, id).apply(
        [Delete(target="/etc/hosts"), Put(source=tmp_path / "link", target="/etc/hosts")]
    )
    assert [reason for _, reason in gone.skipped] == ["something is mounted there"] * 2


def test_what_is_mounted_in_a_directory_survives_its_removal(yard: Yard, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    make(volume / "kept")
    single = make(tmp_path / "single")
    mounts = (
        Mount(source=str(volume), target="/app/modules"),
        Mount(source=str(single), target="/app/sub/single"),
    )
    source = make(tmp_path / "file")
    for id in (yard.start(*FOREVER, mounts=mounts), yard.create(*FOREVER, mounts=mounts)):
        files = files_of(yard, id)
        files.apply([Put(source=source, target=f"/app/{name}") for name in ("a", "sub/b")])
        synced = files.apply(
            [
                Delete(target="/app"),
                Delete(target="/app/modules"),
                Put(source=source, target="/app"),
                Put(source=source, target="/app/modules"),
            ]
        )
        assert synced.deleted == synced.written == 0
        assert {reason for _, reason in synced.skipped} == {
            "something is mounted in it",
            "something is mounted there",
        }
        assert look(yard, id, "/app/a") is None and look(yard, id, "/app/sub/b") is None
        assert look(yard, id, "/app/modules/kept") is not None
        assert look(yard, id, "/app/sub/single") is not None
        assert [path.name for path in volume.iterdir()] == ["kept"]


def test_files_directories_and_links_take_each_others_place(yard: Yard, tmp_path: Path) -> None:
    id = yard.start(*FOREVER)
    files = files_of(yard, id)
    src = tmp_path / "src"
    make(src / "a"), make(src / "b"), make(src / "c")
    files.apply([Put(source=src / name, target=f"/app/{name}/below") for name in "abc"])

    (src / "b").unlink()
    (src / "b").symlink_to("a")
    synced = files.apply([Put(source=src / name, target=f"/app/{name}") for name in "abc"])
    assert (synced.written, synced.skipped) == (3, ())
    assert yard.exec(id, "cat", "/app/a", "/app/b").output == "new\nnew\n"

    for name in "abc":
        (src / name).unlink()
        make(src / name / "below" / "deep", name)
    # What is in a directory may be told of without it, but for one that takes a link's place.
    synced = files.apply(
        [
            Put(source=src / "a" / "below" / "deep", target="/app/a/below/deep"),
            Put(source=src / "b", target="/app/b"),
            Put(source=src / "b" / "below" / "deep", target="/app/b/below/deep"),
            Put(source=src / "c", target="/app/c"),
            Put(source=src / "c" / "below" / "deep", target="/app/c/below/deep"),
        ]
    )
    assert (synced.written, synced.skipped) == (5, ())
    shown = yard.exec(id, "cat", *(f"/app/{name}/below/deep" for name in "abc"))
    assert shown.output == "abc"


def test_a_file_that_is_no_part_of_what_is_synced_stays_in_the_way(
    yard: Yard, tmp_path: Path
) -> None:
    id = yard.start(*FOREVER)
    source = make(tmp_path / "src" / "file")
    synced = files_of(yard, id).apply([Put(source=source, target="/etc/passwd/file")])
    assert synced.skipped == (("/etc/passwd/file", "not a directory"),)
    assert yard.exec(id, "head", "-n1", "/etc/passwd").output.startswith("root:")


def test_a_link_on_the_way_is_followed_and_the_last_one_replaced(
    yard: Yard, tmp_path: Path
) -> None:
    id = yard.start("sh", "-c", "mkdir /srv; ln -s /srv /app; ln -s nowhere /f; exec sleep 1000")
    yard_ready = yard.exec(id, "sh", "-c", "until [ -L /f ]; do :; done")
    assert yard_ready.exit_code == 0
    file = make(tmp_path / "src" / "file")
    synced = files_of(yard, id).apply(
        [Put(source=file, target="/app/file"), Put(source=file, target="/f")]
    )
    assert (synced.written, synced.skipped) == (2, ())
    assert yard.exec(id, "readlink", "/app").output == "/srv\n"
    assert yard.exec(id, "cat", "/srv/file", "/f").output == "new\nnew\n"


def test_a_link_that_is_changed_leads_the_next_file_elsewhere(yard: Yard, tmp_path: Path) -> None:
    id = yard.start(*FOREVER)
    src = tmp_path / "src"
    file, link = make(src / "file"), src / "link"
    changes: list[Put | Delete] = [
        Put(source=file, target="/one/file"),
        Put(source=file, target="/two/file"),
        Put(source=link, target="/now"),
    ]
    link.symlink_to("/one")
    files = files_of(yard, id)
    files.apply([*changes, Put(source=file, target="/now/first")])
    link.unlink()
    link.symlink_to("/two")
    # The way is known from the first file on.
    first = Put(source=file, target="/now/again")
    files.apply([first, *changes, Put(source=file, target="/now/second")])
    assert yard.exec(id, "ls", "/one", "/two").output.split() == [
        *("/one:", "again", "file", "first"),
        *("/two:", "file", "second"),
    ]
    synced = files.apply([first, Delete(target="/now"), Put(source=file, target="/now/third")])
    assert (synced.written, synced.deleted) == (2, 1)
    assert yard.exec(id, "ls", "/now").output == "third\n"


def test_what_cannot_be_copied_is_skipped_with_the_reason(yard: Yard, tmp_path: Path) -> None:
    id = yard.start(*FOREVER)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file = make(tmp_path / "file")
    changes: list[Put | Delete] = [
        Put(source=tmp_path / "gone", target="/made/gone"),
        Put(source=pipe, target="/made/pipe"),
        Put(source=tmp_path / ("x" * 300), target="/made/long"),
        Put(source=file, target="/dev/null"),
        Put(source=file, target="/"),
        Put(source=file, target="/tmp/../etc/passwd"),
        Put(source=file, target="/proc/new"),
        Put(source=file, target="/proc/sys/kernel/hostname"),
        Delete(target="/"),
        Put(source=file, target="/fine"),
    ]
    synced = files_of(yard, id).apply(changes)
    assert synced.written == 1
    assert [path for path, _ in synced.skipped] == [change.target for change in changes[:-1]]
    reasons = dict(synced.skipped)
    assert reasons["/made/gone"] == "it is gone"
    assert reasons["/made/pipe"] == "it is neither a file, a directory nor a link"
    assert reasons["/made/long"] == "it cannot be read: file name too long"
    assert reasons["/dev/null"] == "a device is in its place"
    assert look(yard, id, "/made") is None
    assert yard.exec(id, "sh", "-c", "echo lost > /dev/null").exit_code == 0


def test_a_full_file_system_is_told_and_keeps_what_was_there(yard: Yard, tmp_path: Path) -> None:
    id = yard.start(*FOREVER, tmpfs=(Tmpfs(target="/small", size=128 * 1024),))
    source = make(tmp_path / "file", "old\n")
    files = files_of(yard, id)
    files.apply([Put(source=source, target="/small/file")])
    make(source, "x" * 1024 * 1024)
    with pytest.raises(ContainerFull, match="/small/file") as raised:
        files.apply([Put(source=source, target="/small/file")])
    assert isinstance(raised.value.__cause__, OSError)
    assert yard.exec(id, "ls", "-A", "/small").output == "file\n"
    assert yard.exec(id, "cat", "/small/file").output == "old\n"


def test_holes_stay_holes(yard: Yard, tmp_path: Path) -> None:
    id = yard.start(*FOREVER)
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
        file.seek(10 * 1024 * 1024)
        file.write(b"data")
        file.seek(40 * 1024 * 1024)
        file.write(b"more" * 100_000)
    files = files_of(yard, id)
    assert files.apply([Put(source=source, target="/sparse")]).bytes == 64 * 1024 * 1024
    found = look(yard, id, "/sparse")
    assert found is not None and found.st_size == 64 * 1024 * 1024
    assert found.st_blocks * 512 < 2 * 1024 * 1024
    os.utime(source)
    assert files.differing([Put(source=source, target="/sparse")]) == []


def test_no_nesting_is_too_deep_to_be_removed(yard: Yard) -> None:
    id = yard.start(*FOREVER)
    script = "mkdir /deep; cd /deep; i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done"
    assert yard.exec(id, "sh", "-c", script).exit_code == 0
    assert files_of(yard, id).apply([Delete(target="/deep")]).deleted == 1
    assert yard.exec(id, "sh", "-c", script).exit_code == 0
    yard.containers.delete(id, force=True)


def test_only_what_differs_is_named(yard: Yard, container: str, tmp_path: Path) -> None:
    src = tmp_path / "src"
    puts = [Put(source=make(src / f"{number}"), target=f"/app/{number}") for number in range(6)]
    link, directory = src / "link", src / "dir"
    link.symlink_to("0")
    directory.mkdir()
    puts += [Put(source=link, target="/app/link"), Put(source=directory, target="/app/dir")]
    files = files_of(yard, container)
    assert files.differing(puts) == puts
    files.apply(puts)
    assert files.differing(puts) == []

    (src / "0").touch()
    (src / "1").chmod(0o755)
    make(src / "2", "old\n")  # the same size, the same time: taken for the same
    (src / "3").write_text("old\n")
    make(src / "4", "longer\n")
    (src / "5").unlink()
    link.unlink()
    link.symlink_to("1")
    directory.rmdir()
    make(directory)
    assert [put.source.name for put in files.differing(puts)] == ["1", "3", "4", "5", "link", "dir"]


def test_a_reader_sees_the_old_or_the_new(yard: Yard, tmp_path: Path) -> None:
    size = 300_000
    source = make(tmp_path / "file", "a" * size)
    script = f"""
    until [ -f /file ]; do :; done; echo ready
    while [ ! -f /end ]; do
      left=$(tr -d a < /file | wc -c); all=$(wc -c < /file)
      [ $left = 0 ] || [ $left = {size} ] || echo torn $left
      [ $all = {size} ] || echo torn $all
    done
    echo done
    """
    id = yard.start("sh", "-c", script)
    files = files_of(yard, id)
    put = Put(source=source, target="/file")
    files.apply([put])
    yard.wait_for_output(id, "ready")
    for number in range(200):
        make(source, "ab"[number % 2] * size)
        assert files.apply([put]).written == 1
    files.apply([Put(source=source, target="/end")])
    yard.finish(id)
    assert yard.log(id).split() == ["ready", "done"]


def test_a_container_may_come_and_go_between_changes(yard: Yard, tmp_path: Path) -> None:
    source = make(tmp_path / "file", "1\n")
    id = yard.start(*FOREVER)
    files = files_of(yard, id)
    put = Put(source=source, target="/app/file")
    files.apply([put])
    yard.kill(id)
    make(source, "2\n")
    files.apply([put])
    yard.containers.start(id)
    assert yard.exec(id, "cat", "/app/file").output == "2\n"
    make(source, "3\n")
    files.apply([put])
    assert yard.exec(id, "cat", "/app/file").output == "3\n"
    yard.containers.delete(id, force=True)
    with pytest.raises(ContainerGone):
        files.apply([put])
    yard.containers.create(yard.config(*FOREVER, id=id))
    assert files.apply([put]).written == 1


def test_files_arrive_whenever_the_container_ends(yard: Yard, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    id = yard.start("true", mounts=(Mount(source=str(volume), target="/data"),))
    files = files_of(yard, id)
    source = tmp_path / "file"
    for number in range(30):
        make(source, str(number))
        changes = [Put(source=source, target=place) for place in ("/file", "/data/file")]
        assert files.apply(changes).written == 2
        assert read(yard, id, "/file") == (volume / "file").read_text() == str(number)
        yard.finish(id)
        # Nothing has landed below the volume's mount.
        assert list((yard.containers.upper(id) / "data").iterdir()) == []
        yard.containers.start(id)


def test_links_that_are_swapped_meanwhile_lead_nowhere_outside(yard: Yard, tmp_path: Path) -> None:
    host = tmp_path / "host"
    make(host / "file", "of the host\n")
    make(host / "deep" / "file", "of the host\n")
    script = f"""
    mkdir -p {host}/deep /d/deep; echo ready
    while :; do
      mv /d /e; ln -s {host} /d; rm -f /d; ln -s / /d; rm -f /d; mv /e /d
      mv /d/deep /d/peed; ln -s ../../../../../../..{host} /d/deep; rm -f /d/deep
      mv /d/peed /d/deep
    done 2>/dev/null
    """
    id = yard.start("sh", "-c", script)
    yard.wait_for_output(id, "ready")
    source = make(tmp_path / "file", "synced\n")
    files = files_of(yard, id)
    written = 0
    for _round in range(300):
        written += files.apply(
            [
                Put(source=source, target="/d/file"),
                Put(source=source, target="/d/deep/file"),
                Delete(target="/d/deep/file"),
                Put(source=source, target="/d/new/file"),
                Delete(target="/d/new"),
            ]
        ).written
    assert written, "not one file arrived"
    shown = sorted(str(path.relative_to(host)) for path in host.rglob("*"))
    assert shown == ["deep", "deep/file", "file"]
    assert (host / "file").read_text() == (host / "deep" / "file").read_text() == "of the host\n"


def test_thousands_of_files_arrive_and_go(yard: Yard, tmp_path: Path) -> None:
    id = yard.start(*FOREVER, user="bob")
    puts = [
        Put(
            source=make(tmp_path / "src" / f"{number % 300}" / f"{number}", str(number)),
            target=f"/app/{number % 300}/{number}",
        )
        for number in range(2000)
    ]
    files = files_of(yard, id)
    synced = files.apply(puts)
    assert (synced.written, synced.skipped) == (2000, ())
    assert files.differing(puts) == []
    assert yard.exec(id, "sh", "-c", "find /app -type f | wc -l").output == "2000\n"
    assert yard.exec(id, "sh", "-c", f"find /app -name '{TEMPORARY}*'").output == ""
    assert files.apply([Delete(target="/app")]).deleted == 1
