"""A blueprint and its surroundings become the runtime's ContainerConfig. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.engine.endpoints import SHORT_ID
from orchestrator.engine.filesystem import Content, content_files, image_mounts, mounts
from orchestrator.engine.limits import devices, log_config, resources, security, ulimits
from orchestrator.engine.process import Process
from orchestrator.planning.observed import Spec
from runtime.container.config import ContainerConfig, File, ImageMount, Mount, Tmpfs


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a container finds on this host.

    `namespaces` maps "network", "pid" and "ipc" to the path of a namespace that is joined;
    `volume_paths` real volume names to directories, `volume_trees` to the shared trees around
    them; `image_layers` the targets of mounted images to their unpacked layers; `borrowed` are
    the mounts of other containers that it has besides its own; `hosts` and `resolv_conf` are the
    texts of those files.
    """

    layers: tuple[str, ...]
    anonymous: Mapping[str, str] = field(default_factory=dict)
    volume_paths: Mapping[str, str] = field(default_factory=dict)
    volume_trees: Mapping[str, str] = field(default_factory=dict)
    image_layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    contents: Mapping[str, Content] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)
    borrowed: tuple[Mount | ImageMount, ...] = ()
    hostname: str
    hosts: str
    resolv_conf: str


def container_config(
    *,
    id: str,
    spec: Spec,
    process: Process,
    surroundings: Surroundings,
    labels: Mapping[str, str],
) -> ContainerConfig:
    """Raises EngineError for a value that cannot be honoured."""
    service = spec["service"]
    hostname = surroundings.hostname
    binds, memory = mounts(
        service,
        spec["volumes"],
        surroundings.anonymous,
        surroundings.volume_paths,
        surroundings.volume_trees,
    )
    images = image_mounts(service, surroundings.image_layers)
    own = _targets(binds) | _targets(memory) | _targets(images)
    borrowed = [mount for mount in surroundings.borrowed if mount.target not in own]
    options = security(service)
    oneoff = spec.get("oneoff") or {}
    shm_size = service.get("shm_size")
    env = process.env
    if not any(entry.startswith("HOSTNAME=") for entry in env):
        env = (*env, f"HOSTNAME={hostname}")
    return ContainerConfig(
        id=id,
        layers=surroundings.layers,
        argv=process.argv,
        env=env,
        cwd=process.cwd,
        user=process.user,
        additional_groups=tuple(str(group) for group in service.get("group_add") or ()),
        hostname=hostname,
        domainname=str(service.get("domainname") or ""),
        netns=surroundings.namespaces.get("network"),
        pid_namespace=_namespace(service, "pid", surroundings),
        ipc_namespace=_namespace(service, "ipc", surroundings),
        uts_namespace="host" if service.get("uts") == "host" else "private",
        cgroup_namespace="host" if service.get("cgroup") == "host" else "private",
        mounts=(*binds, *(mount for mount in borrowed if isinstance(mount, Mount))),
        images=(*images, *(mount for mount in borrowed if isinstance(mount, ImageMount))),
        tmpfs=memory,
        files=(
            *_network_files(surroundings),
            *content_files(service, surroundings.contents),
        ),
        devices=devices(service),
        device_cgroup_rules=tuple(service.get("device_cgroup_rules") or ()),
        read_only=bool(service.get("read_only")),
        shm_size=int(shm_size) if shm_size else 64 * 1024 * 1024,
        privileged=bool(service.get("privileged")),
        cap_add=tuple(service.get("cap_add") or ()),
        cap_drop=tuple(service.get("cap_drop") or ()),
        no_new_privileges=options.no_new_privileges,
        seccomp=options.seccomp,
        masked_paths=options.masked_paths,
        sysctls={key: str(value) for key, value in (service.get("sysctls") or {}).items()},
        ulimits=ulimits(service),
        oom_score_adj=service.get("oom_score_adj") or None,
        init=bool(service.get("init")),
        tty=bool(service.get("tty")),
        stdin_open=bool(service.get("stdin_open")),
        await_attach=bool(oneoff.get("attach")),
        terminal_size=tuple(oneoff["size"]) if oneoff.get("size") else None,
        resources=resources(service),
        cgroup_parent=service.get("cgroup_parent") or None,
        stop_signal=process.stop_signal,
        stop_timeout=int(process.stop_timeout),
        log=log_config(service),
        labels=labels,
        group="" if oneoff else labels.get("com.docker.compose.project", ""),
    )


def container_hostname(id: str, service: Spec) -> str:
    return str(service.get("hostname") or id[:SHORT_ID])


def _targets(mounts: Iterable[Mount | Tmpfs | ImageMount]) -> set[str]:
    return {mount.target for mount in mounts}


def _namespace(service: Spec, attribute: str, surroundings: Surroundings) -> str:
    if attribute in surroundings.namespaces:
        return surroundings.namespaces[attribute]
    return "host" if service.get(attribute) == "host" else "private"


def _network_files(surroundings: Surroundings) -> tuple[File, ...]:
    return (
        File(target="/etc/hostname", content=f"{surroundings.hostname}\n"),
        File(target="/etc/hosts", content=surroundings.hosts),
        File(target="/etc/resolv.conf", content=surroundings.resolv_conf),
    )
