"""What a container finds on its disks: layers, mounts, volumes, files, secrets, devices."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from runtime.container.config import Device, File, Mount, Propagation, Tmpfs
from runtime.container.overlay import mount_overlay
from runtime.container.rootfs import Overlay
from runtime.errors import ContainerStartError, InvalidState, RuntimeFault
from runtime.linux import mounts, namespaces
from tests.integration.runtime.yard import Yard, until

WHITEOUT = os.makedev(0, 0)


def test_layers_are_merged_and_written_to_by_copy(yard: Yard, tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "etc").mkdir()
    (top / "etc/name").write_text("above\n")
    os.mknod(top / "etc/group", stat.S_IFCHR, WHITEOUT)
    layers = (str(yard.layer), str(top))
    run = yard.sh("cat /etc/name; ls /etc; echo new > /etc/name; cat /etc/name", layers=layers)
    assert run.output.split() == ["above", "name", "passwd", "new"]
    assert (top / "etc/name").read_text() == "above\n"


def test_an_image_without_layers_has_an_empty_root(yard: Yard) -> None:
    with pytest.raises(ContainerStartError) as caught:
        yard.start("sh", layers=())
    assert caught.value.exit_code == 127


def test_a_read_only_root_cannot_be_written_but_its_mounts_can(yard: Yard, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    run = yard.sh(
        "touch /x 2>&1; touch /vol/x && touch /dev/shm/x && touch /fast/x && echo fine",
        read_only=True,
        mounts=(Mount(source=str(volume), target="/vol"),),
        tmpfs=(Tmpfs(target="/fast"),),
    )
    assert run.output == "touch: /x: Read-only file system\nfine\n"
    assert (volume / "x").exists()


def test_tmpfs_has_its_size_and_mode(shared: Yard) -> None:
    run = shared.sh(
        "stat -c %a /fast; df -k /fast | tail -n 1; stat -c %a /plain; touch /ro/x 2>&1",
        tmpfs=(
            Tmpfs(target="/fast", size=1024 * 1024, mode=0o750),
            Tmpfs(target="/plain/"),
            Tmpfs(target="/ro", read_only=True),
        ),
    )
    lines = run.output.splitlines()
    assert lines[0] == "750" and lines[1].split()[1] == "1024" and lines[2] == "1777"
    assert lines[3].endswith("Read-only file system")


def test_binds_are_writable_or_read_only_with_all_below(yard: Yard, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    file = tmp_path / "file"
    file.write_text("from the host\n")
    run = yard.sh(
        "cat /etc/deep/file; touch /rw/x; touch /ro/y 2>&1; touch /ro/sub/y 2>&1",
        mounts=(
            Mount(source=str(source), target="/rw"),
            Mount(source=str(source), target="/ro", read_only=True),
            Mount(source=str(file), target="/etc/deep/file"),
        ),
    )
    assert run.output.splitlines()[0] == "from the host"
    assert run.output.count("Read-only") == 2
    assert sorted(path.name for path in source.iterdir()) == ["sub", "x"]


def test_the_same_bind_twice_is_one(yard: Yard, tmp_path: Path) -> None:
    mount = Mount(source=str(tmp_path), target="/vol")
    run = yard.sh("grep -c ' /vol ' /proc/mounts", mounts=(mount, mount))
    assert run.output == "1\n"


def test_a_missing_source_is_made_where_that_is_wanted_and_else_said(
    yard: Yard, tmp_path: Path
) -> None:
    missing = tmp_path / "not" / "there"
    with pytest.raises(ContainerStartError, match=f"mount {missing}: no such file") as caught:
        yard.start("true", mounts=(Mount(source=str(missing), target="/m"),))
    assert caught.value.hint is not None
    mount = Mount(source=str(missing), target="/m", create_source=True)
    assert yard.run("ls", "/m", mounts=(mount,)).exit_code == 0
    assert missing.is_dir()
    mount = Mount(source="/proc/self/nothing", target="/m", create_source=True)
    with pytest.raises(RuntimeFault, match="create /proc/self/nothing"):
        yard.start("true", mounts=(mount,))


def test_a_file_over_a_directory_is_an_error_that_names_both(yard: Yard, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ContainerStartError, match=f"mount {file} at /etc: "):
        yard.start("true", mounts=(Mount(source=str(file), target="/etc"),))


def test_a_target_with_dots_is_refused(yard: Yard, tmp_path: Path) -> None:
    with pytest.raises(ContainerStartError, match="invalid argument"):
        yard.start("true", mounts=(Mount(source=str(tmp_path), target="/a/../../b"),))


def test_a_mount_replaces_the_default_one_at_its_place(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    run = yard.sh("ls /dev/shm", mounts=(Mount(source=str(tmp_path), target="/dev/shm/"),))
    assert "mark" in run.output


def test_a_shared_bind_carries_mounts_out_and_a_private_one_does_not(
    yard: Yard, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    mounts.bind(str(source), str(source))
    try:
        mounts.change_propagation(str(source), mounts.MS_SHARED)
        cases: tuple[tuple[Propagation, bool], ...] = (
            ("rshared", True), ("rslave", False), ("rprivate", False),
        )  # fmt: skip
        for propagation, seen in cases:
            id = yard.start(
                "sh",
                "-c",
                "mount -t tmpfs none /vol/sub && touch /vol/sub/inside && echo done && sleep 1000",
                mounts=(Mount(source=str(source), target="/vol", propagation=propagation),),
                cap_add=("SYS_ADMIN",),
            )
            yard.wait_for_output(id, "done")
            assert (source / "sub/inside").exists() is seen
            yard.exec(id, "umount", "/vol/sub")
            yard.kill(id)
    finally:
        mounts.unmount(str(source), mounts.MNT_DETACH)


def test_files_of_the_runtime_have_owner_mode_and_content(yard: Yard) -> None:
    files = (
        File(target="/etc/hosts", content="127.0.0.1 localhost\n"),
        File(target="/deep/down/file", content="text", mode=0o640, uid=1000, gid=2000),
    )
    run = yard.sh(
        "cat /etc/hosts; stat -c '%a %u %g' /deep/down/file; echo x >> /etc/hosts", files=files
    )
    assert run.output == "127.0.0.1 localhost\n640 1000 2000\n"
    assert run.exit_code == 0


def test_a_mount_of_the_user_wins_over_a_file_of_the_runtime(yard: Yard, tmp_path: Path) -> None:
    own = tmp_path / "hosts"
    own.write_text("mine\n")
    run = yard.run(
        "cat",
        "/etc/hosts",
        files=(File(target="/etc/hosts", content="theirs\n"),),
        mounts=(Mount(source=str(own), target="/etc//hosts"),),
    )
    assert run.output == "mine\n"


def test_secrets_are_in_memory_alone(yard: Yard) -> None:
    text = "correct horse battery staple"
    secret = File(target="/run/secrets/key", content=text, mode=0o400, uid=1000, secret=True)
    script = "cat /run/secrets/key; stat -c '%a %u' /run/secrets/key; echo x > /run/secrets/key"
    id = yard.start("sh", "-c", f"{script}; sleep 1000", files=(secret,), read_only=True)
    output = yard.wait_for_output(id, "Read-only")
    assert output.startswith(f"{text}400 1000\n")
    assert yard.exec(id, "cat", "/run/secrets/key", user="bob").output == text
    lines = yard.exec(id, "grep", "/run/secrets/key", "/proc/mounts").output.split()
    assert lines[2] == "tmpfs"
    log = yard.containers.log_path(id)
    for path in (*yard.root.rglob("*"), *yard.sockets.rglob("*")):
        on_disk = path.is_file() and path != log and _filesystem(path) != _TMPFS
        assert not on_disk or text.encode() not in path.read_bytes(), path
    yard.kill(id)
    yard.containers.start(id)
    assert yard.exec(id, "cat", "/run/secrets/key").output == text


def test_a_secret_that_a_reboot_took_can_be_given_again(yard: Yard) -> None:
    secret = File(target="/s", content="one", secret=True)
    empty = File(target="/empty", content="", secret=True)
    id = yard.create("cat", "/s", "/empty", files=(secret, empty))
    yard.containers.update(id, yard.containers.config(id).replace(stop_timeout=3))
    (yard.instance.secrets / id).unlink()
    with pytest.raises(ContainerStartError, match="secret /s is gone"):
        yard.containers.start(id)
    yard.containers.update(id, yard.containers.config(id).replace(files=(secret, empty)))
    yard.containers.start(id)
    yard.finish(id)
    assert yard.log(id) == "one"


_TMPFS = 0x01021994


def _filesystem(path: Path) -> int:
    fd = os.open(path, os.O_PATH)
    try:
        return mounts.filesystem_type(fd)
    finally:
        os.close(fd)


def test_devices_of_the_host_appear_with_their_permissions(yard: Yard) -> None:
    run = yard.sh(
        "head -c 1 /dev/mine > /dev/null && echo read; (echo > /dev/mine) 2>&1; ls -l /dev/mine",
        devices=(Device(source="/dev/zero", target="/dev/mine", permissions="r"),),
    )
    # The default rules let zero be written whatever is said here.
    assert run.output.startswith("read\n") and "1,   5" in run.output
    with pytest.raises(RuntimeFault, match="device /nowhere"):
        yard.start("true", devices=(Device(source="/nowhere", target="/dev/x"),))
    with pytest.raises(RuntimeFault, match="is not a device"):
        yard.start("true", devices=(Device(source="/etc/passwd", target="/dev/x"),))


def test_a_directory_of_devices_gives_each(yard: Yard, tmp_path: Path) -> None:
    os.mknod(tmp_path / "a", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    (tmp_path / "sub").mkdir()
    os.mknod(tmp_path / "sub/b", stat.S_IFCHR, os.makedev(1, 7))
    (tmp_path / "sub/b").chmod(0o666)
    (tmp_path / "no-device").touch()
    run = yard.sh(
        "ls -lR /dev/all | grep -o 'crw.*' | awk '{ print $1, $5, $6, $NF }'",
        devices=(Device(source=str(tmp_path), target="/dev/all"),),
    )
    assert run.output == "crw------- 1, 5 a\ncrw-rw-rw- 1, 7 b\n"


def test_a_privileged_container_has_the_devices_of_the_host(yard: Yard) -> None:
    run = yard.sh("ls /dev; touch /sys/fs/cgroup/x 2>&1", privileged=True)
    block = [entry.name for entry in Path("/dev").iterdir() if entry.is_block_device()]
    assert set(block) <= set(run.output.split())
    assert "Read-only" not in run.output


# --- volumes --------------------------------------------------------------------------------


@pytest.fixture
def image(yard: Yard, tmp_path: Path) -> tuple[str, ...]:
    """Two layers with something at /data, of which the upper hides some."""
    low, high = tmp_path / "low", tmp_path / "high"
    for path in ("data/sub", "data/gone", "data/opaque", "data/replaced"):
        (low / path).mkdir(parents=True)
    (low / "data/both").write_text("low\n")
    (low / "data/low").write_text("low\n")
    (low / "data/hidden").write_text("low\n")
    (low / "data/sub/low").write_text("low\n")
    (low / "data/gone/x").write_text("low\n")
    (low / "data/opaque/x").write_text("low\n")
    (low / "data/replaced/x").write_text("low\n")
    (low / "data/link").symlink_to("/etc/passwd")
    os.mkfifo(low / "data/pipe")
    (low / "data/pipe").chmod(0o622)
    os.chown(low / "data/low", 1000, 2000)
    (low / "data/low").chmod(0o4750)
    os.setxattr(low / "data/low", "user.note", b"kept")
    (low / "alias").symlink_to("data")
    (high / "data/sub").mkdir(parents=True)
    (high / "data/opaque").mkdir()
    (high / "data").chmod(0o2775)
    os.chown(high / "data", 0, 2000)
    (high / "data").chmod(0o2775)
    (high / "data/both").write_text("high\n")
    (high / "data/sub/high").write_text("high\n")
    (high / "data/replaced").write_text("a file\n")
    for name in ("hidden", "gone"):
        os.mknod(high / "data" / name, stat.S_IFCHR, WHITEOUT)
    os.setxattr(high / "data/opaque", "trusted.overlay.opaque", b"y")
    return (str(yard.layer), str(low), str(high))


def _seeded(path: Path) -> Mount:
    path.mkdir(exist_ok=True)
    return Mount(source=str(path), target="/data", seed=True)


@pytest.mark.parametrize("target", ["/data", "/alias"])
def test_an_empty_volume_gets_the_image_s_content(
    yard: Yard, tmp_path: Path, image: tuple[str, ...], target: str
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    mount = Mount(source=str(volume), target=target, seed=True)
    assert yard.run("ls", target, layers=image, mounts=(mount,)).exit_code == 0
    found = sorted(str(path.relative_to(volume)) for path in volume.rglob("*"))
    assert found == [
        "both", "link", "low", "opaque", "pipe", "replaced", "sub", "sub/high", "sub/low",
    ]  # fmt: skip
    assert (volume / "both").read_text() == "high\n"
    assert (volume / "replaced").read_text() == "a file\n"
    assert os.readlink(volume / "link") == "/etc/passwd"
    status = (volume / "low").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 2000, 0o4750)
    assert os.getxattr(volume / "low", "user.note") == b"kept"
    assert stat.S_IMODE((volume / "pipe").stat().st_mode) == 0o622
    status = volume.stat()
    assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (2000, 0o2775)
    assert "trusted.bayplan.seeding" not in os.listxattr(volume)


def test_a_volume_with_content_and_one_without_the_wish_are_left_alone(
    yard: Yard, tmp_path: Path, image: tuple[str, ...]
) -> None:
    mount = _seeded(tmp_path / "volume")
    (tmp_path / "volume/mine").touch()
    assert yard.run("ls", "/data", layers=image, mounts=(mount,)).output == "mine\n"
    empty = tmp_path / "empty"
    empty.mkdir()
    yard.run("true", layers=image, mounts=(Mount(source=str(empty), target="/data"),))
    assert list(empty.iterdir()) == []


def test_a_whiteout_above_the_place_hides_it(
    yard: Yard, tmp_path: Path, image: tuple[str, ...]
) -> None:
    top = tmp_path / "top"
    top.mkdir()
    os.mknod(top / "data", stat.S_IFCHR, WHITEOUT)
    yard.run("true", layers=(*image, str(top)), mounts=(_seeded(tmp_path / "volume"),))
    assert list((tmp_path / "volume").iterdir()) == []


def test_a_copy_that_was_cut_short_is_finished(
    yard: Yard, tmp_path: Path, image: tuple[str, ...]
) -> None:
    volume = tmp_path / "volume"
    mount = _seeded(volume)
    (volume / "both").write_text("changed\n")
    (volume / ".bayplan-seed").write_text("half")
    os.setxattr(volume, "trusted.bayplan.seeding", b"1")
    yard.run("true", layers=image, mounts=(mount,))
    assert (volume / "both").read_text() == "changed\n"
    assert (volume / "sub/low").exists() and not (volume / ".bayplan-seed").exists()


def test_two_containers_that_seed_one_volume_at_once_agree(
    yard: Yard, tmp_path: Path, image: tuple[str, ...]
) -> None:
    mount = _seeded(tmp_path / "volume")
    ids = [yard.create("ls", "/data/sub", layers=image, mounts=(mount,)) for _ in range(6)]
    threads = [threading.Thread(target=yard.containers.start, args=(id,)) for id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for id in ids:
        yard.finish(id)
        assert yard.log(id) == "high\nlow\n"


# --- older kernels --------------------------------------------------------------------------


def test_an_overlay_is_mounted_by_path_where_the_kernel_knows_no_better(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = []
    for number in range(3):
        layer = tmp_path / f"odd:na\\me {number}"
        layer.mkdir()
        (layer / "file").write_text(f"{number}\n")
        layers.append(str(layer))
    for name in ("upper", "work", "place"):
        (tmp_path / name).mkdir()

    def refuse(*_args: object, **_settings: object) -> int:
        raise OSError(errno.EINVAL, "no lowerdir+")

    monkeypatch.setattr(mounts, "new_filesystem", refuse)
    overlay = Overlay(
        layers=tuple(layers), upper=str(tmp_path / "upper"), work=str(tmp_path / "work")
    )
    here = Path.cwd()
    content: list[str] = []

    def mount() -> None:
        namespaces.unshare(namespaces.CLONE_NEWNS | _CLONE_FS)
        mounts.change_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
        fd = mount_overlay(overlay, str(tmp_path / "place"))
        content.append(os.read(os.open("file", os.O_RDONLY, dir_fd=fd), 10).decode())
        os.close(fd)

    thread = threading.Thread(target=mount)
    thread.start()
    thread.join()
    assert content == ["2\n"]
    assert Path.cwd() == here


_CLONE_FS = 0x200


def test_a_container_that_is_removed_while_it_is_used_is_an_error(yard: Yard) -> None:
    id = yard.start("sleep", "1000")
    upper = yard.containers.upper(id)
    yard.exec(id, "touch", "/made")
    assert (upper / "made").exists()
    with pytest.raises(InvalidState):
        yard.containers.delete(id)
    yard.containers.delete(id, force=True)
    until(lambda: not upper.exists(), what="the writable layer is gone")
