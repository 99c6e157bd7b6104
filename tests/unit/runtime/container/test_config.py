"""The description travels as JSON and comes back the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from runtime.container.config import (
    ContainerConfig,
    Device,
    File,
    LogConfig,
    Mount,
    Resources,
    Tmpfs,
    Ulimit,
)
from runtime.container.paths import Instance
from runtime.container.prepare import check_sysctls, expand_devices, file_binds
from runtime.container.record import (
    ExitRecord,
    StartRecord,
    exit_reserve,
    read_exit,
    read_start,
    reserve_exit,
    write_exit,
    write_exits,
)
from runtime.errors import ContainerStartError, RuntimeFault

FULL = ContainerConfig(
    id="abc",
    layers=("/l/1", "/l/2"),
    argv=("sh", "-c", "echo ü\n"),
    env=("A=1", "B="),
    cwd="/w",
    user="bob:crew",
    additional_groups=("1", "x"),
    hostname="h",
    domainname="d",
    netns="/run/netns/x",
    pid_namespace="host",
    mounts=(Mount(source="/s", target="/t", propagation="rslave", seed=True),),
    tmpfs=(Tmpfs(target="/t2", size=5, mode=0o700),),
    files=(File(target="/f", content="c\n", secret=True), File(target="/g", content="")),
    devices=(Device(source="/dev/fuse", target="/dev/fuse", permissions="r"),),
    device_cgroup_rules=("c 1:3 r",),
    sysctls={"net.x": "1"},
    ulimits=(Ulimit(name="nofile", soft=1, hard=-1),),
    resources=Resources(memory=5, cpus=0.5),
    log=LogConfig(driver="none", max_size=7),
    labels={"a": "b"},
    cap_add=("ALL",),
    stop_timeout=-1,
)


def test_json_gives_the_same_back() -> None:
    assert ContainerConfig.from_json(FULL.to_json()) == FULL
    plain = ContainerConfig(id="x", layers=(), argv=())
    assert ContainerConfig.from_json(plain.to_json().encode()) == plain


def test_json_is_the_same_for_the_same() -> None:
    assert FULL.to_json() == dataclasses.replace(FULL, labels=dict(FULL.labels)).to_json()
    assert json.loads(FULL.to_json())["resources"]["memory"] == 5


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"id": "x"}', '{"id":"x","argv":[],"layers":[],"odd":1}']
)
def test_what_is_no_description_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        ContainerConfig.from_json(text)


def test_it_cannot_be_changed_only_replaced() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.cwd = "/"  # type: ignore[misc]  # that it fails is the point
    assert FULL.replace(cwd="/x").cwd == "/x"


# --- preparation ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("net.core.somaxconn", {"netns": "/n"}),
        ("net/ipv4/ip_forward", {"netns": "/n"}),
        ("kernel.shmmax", {}),
        ("kernel.sem", {}),
        ("fs.mqueue.msg_max", {}),
    ],
)
def test_a_setting_of_its_own_namespaces_is_fine(name: str, settings: dict[str, str]) -> None:
    config = ContainerConfig(id="c", layers=(), argv=(), sysctls={name: "1"}, **settings)  # type: ignore[arg-type]  # typed by the field
    check_sysctls(config)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("net.core.somaxconn", {}),
        ("kernel.shmmax", {"ipc_namespace": "host"}),
        ("fs.mqueue.msg_max", {"ipc_namespace": "/proc/1/ns/ipc"}),
        ("kernel.core_pattern", {"netns": "/n"}),
        ("kernel.hostname", {}),
        ("vm.swappiness", {}),
        ("net./../../sysrq-trigger", {"netns": "/n"}),
        ("net..x", {"netns": "/n"}),
        ("", {}),
    ],
)
def test_a_setting_of_the_host_is_refused(name: str, settings: dict[str, str]) -> None:
    config = ContainerConfig(id="c", layers=(), argv=(), sysctls={name: "1"}, **settings)  # type: ignore[arg-type]  # typed by the field
    with pytest.raises(RuntimeFault, match="not the container's own") as caught:
        check_sysctls(config)
    assert caught.value.hint is not None


def test_devices_that_are_none_stay_for_the_rules_to_refuse() -> None:
    device = Device(source="/nowhere", target="/dev/x")
    config = ContainerConfig(id="c", layers=(), argv=(), devices=(device, device))
    assert expand_devices(config) == (device,)


def test_secret_files_are_never_bound_from_a_disk() -> None:
    paths = Instance(Path("/root"), Path("/run")).container("abc")
    assert [bind.target for bind in file_binds(FULL, paths)] == ["/g"]


def test_two_instances_share_no_name(tmp_path: Path) -> None:
    tags = {Instance(tmp_path / name, tmp_path).tag for name in ("a", "b")}
    assert len(tags) == 2 and all(tag.startswith("bayplan-") for tag in tags)


# --- records --------------------------------------------------------------------------------


def test_records_come_back(tmp_path: Path) -> None:
    start = StartRecord(pid=1, pid_started=2, monitor=3, monitor_started=4, started_at=5)
    (tmp_path / "state.json").write_text(json.dumps(dataclasses.asdict(start)))
    assert read_start(tmp_path / "state.json") == start
    end = ExitRecord(exit_code=137, oom_killed=True, started_at=5, finished_at=6)
    for prepared in (False, True):
        path = tmp_path / f"exit{prepared}.json"
        if prepared:
            reserve_exit(path)
            assert exit_reserve(path).stat().st_size == 4096
        write_exit(path, end)
        assert read_exit(path) == end
        assert not exit_reserve(path).exists()


def test_many_exits_are_recorded_at_once_but_for_those_whose_directory_is_gone(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / name / "exit.json" for name in ("reserved", "plain", "gone", "last")]
    for path in paths:
        if path.parent.name != "gone":
            path.parent.mkdir()
        if path.parent.name in ("reserved", "last"):
            reserve_exit(path)
    ends = [
        ExitRecord(exit_code=code, oom_killed=False, started_at=5, finished_at=6)
        for code in range(4)
    ]
    write_exits(list(zip(paths, ends, strict=True)))
    assert [read_exit(path) for path in paths] == [ends[0], ends[1], None, ends[3]]


def test_a_torn_or_missing_record_is_none(tmp_path: Path) -> None:
    path = tmp_path / "record"
    assert read_start(path) is None and read_exit(path) is None
    for text in ("", "{", "[]", "{}", '{"pid": 1}'):
        path.write_text(text)
        assert read_start(path) is None and read_exit(path) is None


def test_a_run_of_another_boot_or_of_a_reused_pid_is_over(tmp_path: Path) -> None:
    import os

    from runtime.linux import process

    own = process.start_time(os.getpid()) or 0
    alive = StartRecord(
        pid=1, pid_started=0, monitor=os.getpid(), monitor_started=own, started_at=0
    )
    assert alive.alive()
    assert not dataclasses.replace(alive, monitor_started=own + 1).alive()
    assert not dataclasses.replace(alive, boot="another").alive()


def test_a_start_error_names_step_path_and_reason() -> None:
    error = ContainerStartError("mount", step="bind", path="/x", errno=2)
    assert str(error) == "mount /x: no such file or directory"
    assert str(ContainerStartError("mount /x at /y", step="bind", path="/y", errno=13)) == (
        "mount /x at /y: permission denied"
    )
