"""What is mounted, as data."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from runtime.container.config import ContainerConfig, Device, Mount, Tmpfs
from runtime.container.paths import Instance
from runtime.container.rootfs import (
    Bind,
    Filesystem,
    HostDevice,
    Link,
    Mask,
    Node,
    Operation,
    ReadOnly,
    mount_operations,
    root_overlay,
)
from runtime.linux import mounts


def config(**settings: object) -> ContainerConfig:
    return ContainerConfig(id="c", layers=("/l1", "/l2"), argv=("true",), **settings)  # type: ignore[arg-type]  # typed by the field


def place(operation: Operation) -> str:
    return (
        operation.path if isinstance(operation, Node | Link | Mask | ReadOnly) else operation.target
    )


def places(operations: tuple[Operation, ...], kind: type) -> list[str]:
    return [place(operation) for operation in operations if isinstance(operation, kind)]


def test_the_default_mounts_come_parents_first() -> None:
    operations = mount_operations(config(), ())
    assert places(operations, Filesystem) == [
        "/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm",
    ]  # fmt: skip
    assert places(operations, Node) == [
        "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty",
    ]  # fmt: skip
    assert places(operations, Link) == [
        "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/ptmx",
    ]  # fmt: skip


def test_system_mounts_are_confined_and_refuse_links() -> None:
    operations = mount_operations(config(), ())
    by_place = {item.target: item for item in operations if isinstance(item, Filesystem)}
    safe = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC
    for target in ("/proc", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"):
        assert by_place[target].attributes & safe == safe
    for target in ("/sys", "/sys/fs/cgroup"):
        assert by_place[target].attributes & mounts.MOUNT_ATTR_RDONLY
    assert all(by_place[target].strict for target in ("/proc", "/dev", "/sys"))
    assert ("size", str(64 * 1024 * 1024)) in by_place["/dev/shm"].options


def test_what_the_user_mounts_comes_by_depth_after_the_system_and_before_the_masks() -> None:
    operations = mount_operations(
        config(
            mounts=(Mount(source="/a", target="/data/sub/"), Mount(source="/b", target="/data")),
            tmpfs=(Tmpfs(target="/data/sub/fast", size=10, mode=0o700),),
        ),
        (Bind(source="/f", target="/etc/hosts"),),
    )
    names = [place(operation) for operation in operations]
    mine = [name for name in names if name.startswith(("/data", "/etc"))]
    assert mine == ["/data", "/data/sub", "/etc/hosts", "/data/sub/fast"]
    assert names.index("/dev/shm") < names.index("/data") < names.index("/proc/kcore")


def test_a_mount_replaces_what_would_be_at_its_place_and_below() -> None:
    for target in ("/dev/shm", "/dev/shm/", "//dev/./shm"):
        operations = mount_operations(config(mounts=(Mount(source="/x", target=target),)), ())
        assert places(operations, Filesystem).count("/dev/shm") == 0
        assert places(operations, Bind) == ["/dev/shm"]
    operations = mount_operations(config(mounts=(Mount(source="/dev", target="/dev"),)), ())
    assert not [name for name in places(operations, Filesystem) if name.startswith("/dev")]
    assert places(operations, Node) == places(operations, Link) == []


def test_of_two_at_one_place_the_user_s_first_one_counts() -> None:
    operations = mount_operations(
        config(
            mounts=(Mount(source="/1", target="/x"), Mount(source="/2", target="/x/")),
            tmpfs=(Tmpfs(target="/x"),),
        ),
        (Bind(source="/f", target="/x"),),
    )
    found = [
        item for item in operations if not isinstance(item, Node | Link) and place(item) == "/x"
    ]
    assert found == [Bind(source="/1", target="/x")]


def test_masks_come_last_and_not_for_the_privileged() -> None:
    operations = mount_operations(config(), ())
    kinds = [type(item) for item in operations]
    first = kinds.index(Mask)
    assert set(kinds[first:]) == {Mask, ReadOnly}
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(places(operations, Mask))
    assert "/proc/sys" in places(operations, ReadOnly)
    for relaxed in (config(privileged=True), config(masked_paths=False)):
        assert not {Mask, ReadOnly} & {type(item) for item in mount_operations(relaxed, ())}


def test_the_host_s_ipc_brings_its_shared_memory() -> None:
    operations = mount_operations(config(ipc_namespace="host"), ())
    assert "/dev/shm" in places(operations, Bind)
    assert "/dev/shm" not in places(operations, Filesystem)


def test_devices_come_before_the_mounts_of_the_user() -> None:
    operations = mount_operations(
        config(
            devices=(Device(source="/dev/fuse", target="/dev//fuse"),),
            mounts=(Mount(source="/x", target="/dev/shm"),),
        ),
        (),
    )
    names = [type(item) for item in operations]
    assert HostDevice(source="/dev/fuse", target="/dev/fuse") in operations
    assert names.index(HostDevice) < names.index(Bind)


def test_the_root_is_the_container_s_own_unless_told() -> None:
    paths = Instance(Path("/s"), Path("/r")).container("c")
    overlay = root_overlay(config(), paths)
    assert overlay.layers == ("/l1", "/l2")
    assert (overlay.upper, overlay.work) == ("/s/containers/c/upper", "/s/containers/c/work")
    overlay = root_overlay(config(upper="/u", work="/w", volatile=True), paths)
    assert (overlay.upper, overlay.work, overlay.volatile) == ("/u", "/w", True)
    bare = ContainerConfig(id="c", layers=(), argv=("true",))
    assert root_overlay(bare, paths).layers == (str(paths.empty),)


target = st.lists(
    st.sampled_from(["a", "b", "dev", "shm", "proc", "."]), min_size=1, max_size=4
).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(target, max_size=6))
def test_no_mount_ever_hides_a_later_one_s_parent(targets: list[str]) -> None:
    """Whatever is asked for, each place has one mount, and parents come before what is in them."""
    operations = mount_operations(
        config(mounts=tuple(Mount(source=f"/s{n}", target=t) for n, t in enumerate(targets))), ()
    )
    mine = [item.target for item in operations if isinstance(item, Bind)]
    assert len(set(mine)) == len(mine)
    for earlier, later in itertools.combinations(mine, 2):
        assert not earlier.startswith(later.rstrip("/") + "/")
