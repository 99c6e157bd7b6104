"""A service over its image becomes what the runtime runs, by Docker's rules."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from orchestrator.engine.errors import EngineError
from orchestrator.engine.filesystem import Content, anonymous_volumes
from orchestrator.engine.process import effective_process, signal_number
from orchestrator.engine.translate import Surroundings, container_config
from runtime.container.config import (
    ContainerConfig,
    Device,
    ImageMount,
    IoLimit,
    Mount,
    Tmpfs,
    Ulimit,
)
from runtime.oci.image_config import ImageConfig, ImageHealthcheck

ID = "0123456789abcdef" * 4


def image(**fields: Any) -> ImageConfig:
    return ImageConfig(architecture="amd64", **{"cmd": ("run",), **fields})


def config(
    service: dict[str, Any], of: ImageConfig | None = None, **around: Any
) -> ContainerConfig:
    service = {"name": "web", **service}
    of = of or image()
    anonymous = anonymous_volumes(ID, service, of.volumes, {})
    paths = {"shop_data": "/v/shop_data"} | {name: f"/v/{name}" for name in anonymous.values()}
    return container_config(
        id=ID,
        spec={"service": service, "volumes": {"data": "shop_data"}, "networks": {}},
        process=effective_process(service, of, "shop-web-1"),
        surroundings=Surroundings(
            layers=("/l",),
            anonymous=anonymous,
            volume_paths=paths,
            **{"hostname": ID[:12], "hosts": "", "resolv_conf": "", **around},
        ),
        labels={},
    )


@pytest.mark.parametrize(
    ("service", "of", "argv"),
    [
        ({}, image(entrypoint=("init",)), ("init", "run")),
        ({"command": ["serve"]}, image(entrypoint=("init",)), ("init", "serve")),
        ({"entrypoint": ["mine"]}, image(entrypoint=("init",)), ("mine",)),
        ({"entrypoint": ["mine"], "command": ["x"]}, image(), ("mine", "x")),
        ({"entrypoint": []}, image(entrypoint=("init",)), ("run",)),
        ({"command": []}, image(entrypoint=("init",)), ("init",)),
    ],
)
def test_entrypoint_and_command_merge(
    service: dict[str, Any], of: ImageConfig, argv: tuple[str, ...]
) -> None:
    assert config(service, of).argv == argv


def test_nothing_to_run_is_an_error_with_a_hint() -> None:
    with pytest.raises(EngineError, match="shop-web-1 has no command") as caught:
        config({}, image(cmd=None))
    assert caught.value.hint == "set `command` or `entrypoint`, or CMD in the image"


def test_the_environment_is_the_images_overridden_and_unset_by_the_services() -> None:
    made = config(
        {"environment": {"B": "mine", "C": "c"}, "unset_environment": ["A"]},
        image(env=("A=a", "B=b", "D=x=y")),
    )
    assert made.env == ("B=mine", "D=x=y", "C=c", f"HOSTNAME={ID[:12]}")


def test_user_and_directory_fall_back_to_the_images() -> None:
    made = config({}, image(user="app", working_dir="/srv"))
    assert (made.user, made.cwd) == ("app", "/srv")
    made = config({"user": "7:8", "working_dir": "/"}, image(user="app", working_dir="/srv"))
    assert (made.user, made.cwd) == ("7:8", "/")


def test_stopping_follows_service_image_and_default() -> None:
    assert (config({}).stop_signal, config({}).stop_timeout) == (signal.SIGTERM, 10)
    assert config({}, image(stop_signal="SIGQUIT")).stop_signal == signal.SIGQUIT
    made = config({"stop_signal": "INT", "stop_grace_period": 2_000_000_000})
    assert (made.stop_signal, made.stop_timeout) == (signal.SIGINT, 2)


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", signal.SIGRTMIN + 3)],
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["SIGNOTHING", "0", "999", "RTMIN+99"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="not a signal"):
        signal_number(text)


def test_the_healthcheck_merges_key_by_key() -> None:
    of = image(healthcheck=ImageHealthcheck(test=("CMD", "ok"), interval=7, retries=2))
    assert effective_process({"healthcheck": {"interval": 9}}, of, "c").health == {
        "test": ["CMD", "ok"],
        "interval": 9,
        "retries": 2,
    }
    assert effective_process({"healthcheck": {"disable": True}}, of, "c").health is None


def test_mounts_of_every_kind() -> None:
    made = config(
        {
            "volumes": [
                {"type": "bind", "source": "/host", "target": "/a", "read_only": True},
                {"type": "volume", "source": "data", "target": "/b"},
                {"type": "volume", "source": "data", "target": "/c", "volume": {"nocopy": True}},
                {"type": "tmpfs", "target": "/d", "tmpfs": {"size": 100}},
            ],
            "tmpfs": ["/run:size=64m,mode=755", "/tmp"],
        }
    )
    assert made.mounts == (
        Mount(source="/host", target="/a", read_only=True, create_source=True),
        Mount(source="/v/shop_data", target="/b", seed=True),
        Mount(source="/v/shop_data", target="/c"),
    )
    assert made.tmpfs == (
        Tmpfs(target="/run", size=64 * 1024 * 1024, mode=0o755),
        Tmpfs(target="/tmp"),
        Tmpfs(target="/d", size=100),
    )


def test_an_images_volumes_become_anonymous_unless_something_is_mounted_there() -> None:
    service = {"volumes": [{"type": "volume", "target": "/x"}], "tmpfs": ["/cache"]}
    names = anonymous_volumes(ID, service, ("/data", "/cache/"), {"/data": "inherited"})
    assert set(names) == {"/x", "/data"}
    assert names["/data"] == "inherited"
    assert anonymous_volumes(ID, service, (), {})["/x"] == names["/x"]
    seeded = {m.target: m.seed for m in config(service, image(volumes=("/data",))).mounts}
    assert seeded == {"/x": True, "/data": True}


def test_secrets_lie_in_memory_with_their_owner_and_configs_on_disk() -> None:
    made = config(
        {
            "secrets": [{"source": "key", "uid": "7", "mode": 0o400}],
            "configs": [{"source": "conf", "target": "/etc/app.conf"}],
        },
        contents={
            "secrets.key": Content(data=b"s3cret", secret=True),
            "configs.conf": Content(data=b"a=1", secret=False),
        },
    )
    config_file, secret = made.files[-2:]
    assert (config_file.target, config_file.mode, config_file.secret) == (
        "/etc/app.conf",
        0o444,
        False,
    )
    assert (secret.target, secret.uid, secret.mode, secret.secret) == (
        "/run/secrets/key",
        7,
        0o400,
        True,
    )


def test_limits_come_from_the_service_or_its_deploy_section() -> None:
    limits = {"limits": {"cpus": 0.5, "memory": 1000, "pids": 9}, "reservations": {"memory": 10}}
    made = config({"deploy": {"resources": limits}}).resources
    assert (made.cpus, made.memory, made.pids, made.memory_reservation) == (0.5, 1000, 9, 10)
    assert config({"mem_limit": 7, "cpus": 2.0}).resources.memory == 7
    assert config({}).resources.cpus is None


def test_images_are_mounted_with_their_layers() -> None:
    made = config(
        {
            "volumes": [
                {"type": "image", "source": "tools:1", "target": "/tools"},
                {
                    "type": "image",
                    "source": "tools:1",
                    "target": "/site",
                    "image": {"subpath": "srv//site"},
                },
            ]
        },
        image(volumes=("/tools",)),
        image_layers=dict.fromkeys(("/tools", "/site"), ("/l/1", "/l/2")),
        borrowed=(ImageMount(layers=(), target="/site"), ImageMount(layers=(), target="/more")),
    )
    assert made.mounts == ()
    assert made.images == (
        ImageMount(layers=("/l/1", "/l/2"), target="/tools"),
        ImageMount(layers=("/l/1", "/l/2"), target="/site", subpath="srv/site"),
        ImageMount(layers=(), target="/more"),
    )
    assert ContainerConfig.from_json(made.to_json()) == made


def test_no_swapping_at_all_is_a_limit() -> None:
    assert config({"mem_swappiness": 0}).resources.memory_swappiness == 0
    assert config({}).resources.memory_swappiness is None


def test_limits_of_block_devices_are_gathered_by_device() -> None:
    disk, other = "/dev/vda", "/dev/vdb"
    blkio = {
        "weight_device": [{"path": disk, "weight": 300}],
        "device_read_bps": [{"path": disk, "rate": 1024}, {"path": other, "rate": 5}],
        "device_write_iops": [{"path": disk, "rate": 7}],
    }
    assert config({"blkio_config": blkio}).resources.io == (
        IoLimit(path=disk, weight=300, read_bps=1024, write_iops=7),
        IoLimit(path=other, read_bps=5),
    )


def test_devices_ulimits_and_logging() -> None:
    made = config(
        {
            "devices": [{"source": "/dev/fuse"}],
            "ulimits": {"nofile": {"soft": 1, "hard": 2}, "nproc": {"single": 3}},
            "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
        }
    )
    assert made.devices == (Device(source="/dev/fuse", target="/dev/fuse"),)
    assert made.ulimits == (
        Ulimit(name="nofile", soft=1, hard=2),
        Ulimit(name="nproc", soft=3, hard=3),
    )
    assert (made.log.max_size, made.log.max_files) == (10 * 1024 * 1024, 3)


def test_security_options() -> None:
    made = config(
        {"security_opt": ["no-new-privileges:true", "seccomp=unconfined", "label:disable"]}
    )
    assert (made.no_new_privileges, made.seccomp, made.masked_paths) == (True, "unconfined", True)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ({"security_opt": ["seccomp=mine.json"]}, "security_opt seccomp=mine.json is not"),
        ({"logging": {"driver": "syslog"}}, "logging driver syslog is not supported"),
        ({"tmpfs": ["/x:uid=7"]}, "option uid=7 is not supported"),
        ({"volumes": [{"type": "npipe", "target": "/x"}]}, "type npipe is not supported"),
        (
            {
                "volumes": [
                    {
                        "type": "volume",
                        "source": "data",
                        "target": "/x",
                        "volume": {"subpath": "a/../../b"},
                    }
                ]
            },
            "leads out of the volume",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(service: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        config(service)


def test_a_part_of_a_volume_is_found_without_leaving_it_and_never_filled() -> None:
    use = {"type": "volume", "source": "data", "target": "/x", "volume": {"subpath": "a/./b/"}}
    assert config({"volumes": [use]}).mounts == (
        Mount(source="/v/shop_data/a/b", target="/x", beneath="/v/shop_data"),
    )


def test_namespaces_are_joined_or_the_hosts() -> None:
    made = config({"pid": "host", "ipc": "service:db"}, namespaces={"ipc": "/proc/7/ns/ipc"})
    assert (made.pid_namespace, made.ipc_namespace) == ("host", "/proc/7/ns/ipc")


def test_the_files_of_the_network_are_the_containers_own() -> None:
    made = config({}, hostname="box", hosts="h", resolv_conf="r")
    assert [(f.target, f.content) for f in made.files] == [
        ("/etc/hostname", "box\n"),
        ("/etc/hosts", "h"),
        ("/etc/resolv.conf", "r"),
    ]
