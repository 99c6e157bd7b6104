"""What a container sees as files: binds, volumes, tmpfs, configs and secrets. Pure.

Anonymous volumes get names that derive from the container's id, so that creating it again
after a crash half-way makes no second set.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.engine.errors import EngineError
from orchestrator.planning.observed import Spec
from runtime.container.config import File, ImageMount, Mount, Tmpfs


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A config's or secret's content, read beforehand."""

    data: bytes
    secret: bool

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.data).hexdigest()


def anonymous_volumes(
    container_id: str,
    service: Spec,
    image_volumes: Iterable[str],
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """The container's anonymous volumes: {target: volume name}.

    They are the service's volumes without a source and the image's VOLUMEs that nothing else is
    mounted on; `inherited` are those of the container that this one replaces.
    """
    mounts = service.get("volumes") or ()
    targets = [
        str(mount["target"])
        for mount in mounts
        if mount.get("type") == "volume" and not mount.get("source")
    ]
    taken = {_clean(str(mount["target"])) for mount in mounts}
    taken |= {_clean(_tmpfs(entry).target) for entry in service.get("tmpfs") or ()}
    targets += [volume for volume in image_volumes if _clean(volume) not in taken]
    return {
        target: inherited.get(target) or anonymous_name(container_id, target)
        for target in dict.fromkeys(targets)
    }


def anonymous_name(container_id: str, target: str) -> str:
    """The name of a container's own anonymous volume, which it has not inherited."""
    return hashlib.sha256(f"{container_id}:{target}".encode()).hexdigest()


def mounts(
    service: Spec,
    volume_names: Mapping[str, str],
    anonymous: Mapping[str, str],
    volume_paths: Mapping[str, str],
    volume_trees: Mapping[str, str],
) -> tuple[tuple[Mount, ...], tuple[Tmpfs, ...]]:
    """Binds and tmpfs of a service.

    `volume_names` maps the project's keys to real names, `volume_paths` real names to
    directories on the host, `volume_trees` to what no link on the way there may lead out of.
    """
    binds: list[Mount] = []
    memory = [_tmpfs(entry) for entry in service.get("tmpfs") or ()]
    for entry in service.get("volumes") or ():
        target, source = str(entry["target"]), entry.get("source")
        read_only = bool(entry.get("read_only"))
        kind = entry.get("type")
        if kind == "bind":
            binds.append(_bind(entry, str(source), target, read_only))
        elif kind == "volume":
            options = entry.get("volume") or {}
            name = volume_names[source] if source else anonymous[target]
            subpath = _subpath(str(options.get("subpath") or ""), target, kind)
            binds.append(
                Mount(
                    source=f"{volume_paths[name]}/{subpath}" if subpath else volume_paths[name],
                    target=target,
                    read_only=read_only,
                    # Somebody has made what is mounted, so it is not for us to fill.
                    seed=not options.get("nocopy") and not subpath,
                    # Whoever has the volume, or what it lies in, may have left links there.
                    beneath=volume_trees.get(name) or (volume_paths[name] if subpath else ""),
                )
            )
        elif kind == "tmpfs":
            options = entry.get("tmpfs") or {}
            memory.append(
                Tmpfs(
                    target=target,
                    size=options.get("size") or None,
                    mode=options.get("mode") or 0o1777,
                    read_only=read_only,
                )
            )
        elif kind != "image":
            raise EngineError(f"volume at {target}: type {kind} is not supported")
    mounted = {bind.target for bind in binds}
    for target, name in anonymous.items():
        if target not in mounted:
            binds.append(Mount(source=volume_paths[name], target=target, seed=True))
    return tuple(binds), tuple(memory)


def image_mounts(service: Spec, layers: Mapping[str, tuple[str, ...]]) -> tuple[ImageMount, ...]:
    """Mounts of images; `layers` has their unpacked layers by target."""
    found = []
    for mount in service.get("volumes") or ():
        if mount.get("type") == "image":
            target = str(mount["target"])
            subpath = str((mount.get("image") or {}).get("subpath") or "")
            found.append(
                ImageMount(
                    layers=layers[target],
                    target=target,
                    subpath=_subpath(subpath, target, "image"),
                )
            )
    return tuple(found)


def _subpath(path: str, target: str, kind: str) -> str:
    """A path in a volume or image, empty for all; raises EngineError for one that leads out."""
    if not path:
        return ""
    plain = posixpath.normpath(path)
    if plain.startswith("/") or plain.split("/")[0] == "..":
        raise EngineError(
            f"{kind} at {target}: subpath {path} leads out of the {kind}",
            hint=f"give a path relative to the {kind}'s root",
        )
    return "" if plain == "." else plain


def volume_source(text: str) -> tuple[str, str, str]:
    """`SERVICE[:MODE]` or `container:NAME[:MODE]` as ("service" or "container", name, mode)."""
    kind, _, rest = text.partition(":")
    if kind != "container":
        kind, rest = "service", text
    name, _, mode = rest.partition(":")
    if mode not in ("", "ro", "rw"):
        raise EngineError(f"volumes_from {text}: mode {mode} is not known", hint="use ro or rw")
    return kind, name, mode


def content_files(service: Spec, contents: Mapping[str, Content]) -> tuple[File, ...]:
    """Configs and secrets as files; `contents` are keyed "configs.NAME" and "secrets.NAME"."""
    files = []
    for kind, directory in (("configs", "/"), ("secrets", "/run/secrets/")):
        for use in service.get(kind) or ():
            name = str(use["source"])
            target = str(use.get("target") or name)
            content = contents[f"{kind}.{name}"]
            mode = use.get("mode")
            try:
                text = content.data.decode()
            except UnicodeDecodeError as exc:
                raise EngineError(f"{kind} {name} is not text in UTF-8") from exc
            files.append(
                File(
                    target=target if target.startswith("/") else directory + target,
                    content=text,
                    mode=0o444 if mode is None else int(mode),
                    uid=_owner(use.get("uid"), kind, name),
                    gid=_owner(use.get("gid"), kind, name),
                    secret=content.secret,
                )
            )
    return tuple(files)


def _owner(value: object, kind: str, name: str) -> int:
    text = str(value or "0")
    if not text.isdecimal():
        raise EngineError(f"{kind} {name}: {text} is not a numeric owner")
    return int(text)


def _bind(entry: Mapping[str, Any], source: str, target: str, read_only: bool) -> Mount:
    options = entry.get("bind") or {}
    return Mount(
        source=source,
        target=target,
        read_only=read_only,
        recursive=options.get("recursive") != "disabled",
        propagation=options.get("propagation") or "rprivate",
        create_source=options.get("create_host_path") is not False,
        beneath=str(options.get("beneath") or ""),
    )


_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


def _tmpfs(entry: object) -> Tmpfs:
    """Read `target[:option,…]` with Docker's options (size, mode, ro)."""
    target, _, text = str(entry).partition(":")
    size: int | None = None
    mode = 0o1777
    read_only = False
    for option in filter(None, text.split(",")):
        key, _, value = option.partition("=")
        if key == "size":
            unit = _UNITS.get(value[-1:].lower(), 1)
            digits = value if unit == 1 else value[:-1]
            if not digits.isdecimal():
                raise EngineError(f"tmpfs {target}: {option} is not a size")
            size = int(digits) * unit
        elif key == "mode":
            mode = int(value, 8)
        elif key in ("ro", "rw"):
            read_only = key == "ro"
        elif key not in ("exec", "noexec", "suid", "nosuid", "dev", "nodev"):
            raise EngineError(f"tmpfs {target}: option {option} is not supported")
    return Tmpfs(target=target, size=size, mode=mode, read_only=read_only)


def _clean(path: str) -> str:
    return path.rstrip("/") or "/"
