"""`RUN --mount`: what a step sees beside the image, and what of it its cache key covers.

Source: BuildKit reference.md ("RUN --mount"). Sources are looked up by descriptor in the
context or stage and copied (or linked) to a directory of the build's own before anything
runs, so that nobody can swap them, and ignored files are not seen.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.build.agent_relay import relayed
from runtime.build.cache_mounts import mount_name
from runtime.build.copying import Copier, Destination
from runtime.build.memory_files import file_in_memory
from runtime.build.sources import SourceTree
from runtime.build.steps import BuildSecret
from runtime.container.config import File, Mount, Tmpfs
from runtime.images.leases import Lease
from runtime.images.merged import MergedTree
from runtime.images.upper import UpperTree
from runtime.linux.files import locked, try_lock

_KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_OPTIONS = {
    "bind": {"target", "source", "from", "rw"},
    "cache": {"id", "target", "ro", "sharing", "from", "source", "mode", "uid", "gid"},
    "tmpfs": {"target", "size"},
    "secret": {"id", "target", "required", "mode", "uid", "gid", "env"},
    "ssh": {"id", "target", "required", "mode", "uid", "gid"},
}
_ALIASES = {"dst": "target", "destination": "target", "src": "source"}
_SWITCHES = {"ro": True, "readonly": True, "rw": False, "readwrite": False}
_PLACES = 64
_PATIENCE = 0.1


class MountRefused(ValueError):
    """A --mount that cannot be had as asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMount:
    """One --mount, its values expanded. `read_only` None takes the kind's default; `size` in
    bytes."""

    kind: str
    target: str = ""
    source: str = ""
    from_: str | None = None
    id: str = ""
    read_only: bool | None = None
    sharing: str = "shared"
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Mounts that are ready, and the variables that they bring."""

    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    files: tuple[File, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def parse_mount(text: str, expand: Callable[[str], str], cwd: str) -> StepMount:
    """Parse `type=cache,target=/x,…`; raises MountRefused. Relative targets start at `cwd`."""
    values: dict[str, str] = {}
    read_only: bool | None = None
    for word in text.split(","):
        key, equals, value = word.partition("=")
        key = _ALIASES.get(key.strip().lower(), key.strip().lower())
        if key in _SWITCHES:
            wanted = _boolean(key, value) if equals else True
            read_only = _SWITCHES[key] if wanted else not _SWITCHES[key]
            continue
        if key == "required" and not equals:
            value = "true"
        elif not equals:
            raise MountRefused(f"--mount={text}: {key!r} needs a value")
        if key in values:
            raise MountRefused(f"--mount={text}: {key!r} stands twice")
        values[key] = expand(value)
    kind = values.pop("type", "bind").lower()
    if kind not in _KINDS:
        raise MountRefused(f"--mount={text}: unknown type {kind!r}: it is {', '.join(_KINDS)}")
    if unknown := sorted(set(values) - _OPTIONS[kind]):
        raise MountRefused(f"--mount={text}: a {kind} mount has no option {unknown[0]!r}")
    mount = StepMount(
        kind=kind,
        target=_absolute(values.get("target", ""), cwd),
        source=values.get("source", ""),
        from_=values.get("from"),
        id=values.get("id", ""),
        read_only=read_only,
        sharing=values.get("sharing", "shared"),
        required=_boolean("required", values.get("required", "false")),
        mode=None if "mode" not in values else _number(text, values["mode"], 8),
        uid=None if "uid" not in values else _number(text, values["uid"], 10),
        gid=None if "gid" not in values else _number(text, values["gid"], 10),
        env=values.get("env", ""),
        size=None if "size" not in values else _size(text, values["size"]),
    )
    if mount.sharing not in ("shared", "private", "locked"):
        raise MountRefused(f"--mount={text}: sharing is shared, private or locked")
    if kind in ("bind", "cache", "tmpfs") and not mount.target:
        raise MountRefused(f"--mount={text}: a {kind} mount needs a target")
    if mount.target == "/":
        raise MountRefused(f"--mount={text}: nothing can be mounted on /")
    if kind == "secret" and not (mount.id or mount.target):
        raise MountRefused(f"--mount={text}: a secret needs an id")
    return mount


class StepMounts:
    """Prepares mounts. `caches` is the directory of cache mounts, `locks` that of their locks;
    `secrets` and `ssh` (the sockets of agents) are by ID; `wait` passes seconds while
    another step holds a cache mount, and raises where the build is to end."""

    def __init__(
        self,
        *,
        caches: Path,
        locks: Path,
        lease: Lease,
        open_source: Callable[[str | None, int], AbstractContextManager[SourceTree]],
        secrets: Mapping[str, BuildSecret],
        ssh: Mapping[str, str],
        wait: Callable[[float], object],
    ) -> None:
        self._caches = caches
        self._locks = locks
        self._lease = lease
        self._open_source = open_source
        self._secrets = secrets
        self._ssh = ssh
        self._wait = wait

    def key(self, mounts: Sequence[StepMount], line: int) -> list[dict[str, Any]]:
        """What of the mounts decides a step's result: content of binds, not of caches and
        secrets."""
        fields: list[dict[str, Any]] = []
        for mount in mounts:
            entry: dict[str, Any] = {"kind": mount.kind, "target": mount.target}
            if mount.kind == "bind":
                with self._open_source(mount.from_, line) as source:
                    selected = self._selected(source, mount)
                    entry["content"] = source.digest(tuple(source.items(selected)))
            elif mount.kind != "tmpfs":
                entry |= {"id": mount.id, "env": mount.env}
                flags = {"mode": mount.mode, "uid": mount.uid, "gid": mount.gid}
                entry |= {name: value for name, value in flags.items() if value is not None}
            fields.append(entry)
        return fields

    @contextlib.contextmanager
    def prepared(self, mounts: Sequence[StepMount], line: int) -> Iterator[Prepared]:
        """Have the mounts ready for the length of a step."""
        binds: list[Mount] = []
        tmpfs: list[Tmpfs] = []
        files: list[File] = []
        env: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            for mount in mounts:
                match mount.kind:
                    case "bind":
                        binds.append(self._bind(mount, line))
                    case "cache":
                        binds.append(self._cache(mount, line, stack))
                    case "tmpfs":
                        tmpfs.append(Tmpfs(target=mount.target, size=mount.size))
                    case "secret":
                        self._secret(mount, binds, files, env, stack)
                    case _:
                        self._agent(mount, binds, env, stack)
            yield Prepared(mounts=tuple(binds), tmpfs=tuple(tmpfs), files=tuple(files), env=env)

    def _bind(self, mount: StepMount, line: int) -> Mount:
        read_only = mount.read_only is not False
        path = self._materialised(mount, line, share=read_only and mount.from_ is not None)
        return Mount(source=str(path), target=mount.target, read_only=read_only)

    def _materialised(self, mount: StepMount, line: int, *, share: bool) -> Path:
        """A copy of a mount's source; with `share`, files are links to the layer's own."""
        place = self._lease.path("mount")
        place.mkdir(mode=0o755)
        with (
            self._open_source(mount.from_, line) as source,
            MergedTree(()) as nothing,
            UpperTree(place, nothing, privileged=os.geteuid() == 0, follow_own=False) as tree,
        ):
            parts = self._selected(source, mount)
            items = tuple(source.items(parts))
            copier = Copier(tree, source, owner=None, mode=None, share=share)
            copier.copy_as(items, Destination(path="/it", directory=False))
        return place / "it"

    def _selected(self, source: SourceTree, mount: StepMount) -> tuple[bytes, ...]:
        chosen = source.select(mount.source or "/")
        if len(chosen) != 1:
            where = mount.from_ or "the build context"
            raise MountRefused(f"the mount's source {mount.source!r} is not in {where}")
        return chosen[0].parts

    def _cache(self, mount: StepMount, line: int, stack: contextlib.ExitStack) -> Mount:
        name = mount_name(mount.id or mount.target)
        directory = self._held(name, mount.sharing, stack)
        # Against pruning, which takes this lock alone for itself.
        used = self._locks / f"{directory.parent.name}.used"
        stack.enter_context(locked(used, shared=True))
        if not directory.exists():
            with locked(self._locks / f"{name}.new"):
                if not directory.exists():
                    self._new_cache(directory, mount, line)
        os.utime(directory.parent)  # when it was last of use
        return Mount(source=str(directory), target=mount.target, read_only=mount.read_only is True)

    def _held(self, name: str, sharing: str, stack: contextlib.ExitStack) -> Path:
        if sharing == "locked":
            while (held := try_lock(self._locks / name)) is None:
                self._wait(_PATIENCE)
            stack.callback(os.close, held)
        if sharing != "private":
            return self._caches / name / "data"
        for number in range(_PLACES):
            held = try_lock(self._locks / f"{name}.{number}")
            if held is not None:
                stack.callback(os.close, held)
                return self._caches / f"{name}.{number}" / "data"
        raise MountRefused(f"all {_PLACES} private copies of the cache mount are in use")

    def _new_cache(self, directory: Path, mount: StepMount, line: int) -> None:
        if mount.from_ is not None:
            draft = self._materialised(mount, line, share=False)
            if not draft.is_dir():
                raise MountRefused(f"the cache's source {mount.source!r} is not a directory")
        else:
            draft = self._lease.path("cache")
            draft.mkdir()
        os.chmod(draft, 0o755 if mount.mode is None else mount.mode)
        if os.geteuid() == 0:
            os.chown(draft, mount.uid or 0, mount.gid or 0)
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory.parent / "id").write_text(mount.id or mount.target)
        os.rename(draft, directory)

    def _secret(
        self,
        mount: StepMount,
        binds: list[Mount],
        files: list[File],
        env: dict[str, str],
        stack: contextlib.ExitStack,
    ) -> None:
        name = mount.id or posixpath.basename(mount.target)
        secret = self._secrets.get(name)
        if secret is None:
            if mount.required:
                raise MountRefused(f"the secret {name!r} is required, but was not given")
            return
        text = _text(secret.content)
        if mount.env:
            if text is None:
                raise MountRefused(
                    f"the secret {name!r} is not text, so it cannot be the variable {mount.env}"
                )
            env[mount.env] = text
        if not mount.target and mount.env:
            return
        target = mount.target or f"/run/secrets/{name}"
        mode = secret.mode if mount.mode is None else mount.mode
        uid = secret.uid if mount.uid is None else mount.uid
        gid = secret.gid if mount.gid is None else mount.gid
        if text is None:
            held = file_in_memory(secret.content, mode=mode, uid=uid, gid=gid)
            path = str(stack.enter_context(held))
            binds.append(Mount(source=path, target=target, read_only=True))
            return
        files.append(File(target=target, content=text, mode=mode, uid=uid, gid=gid, secret=True))

    def _agent(
        self,
        mount: StepMount,
        binds: list[Mount],
        env: dict[str, str],
        stack: contextlib.ExitStack,
    ) -> None:
        name = mount.id or "default"
        path = self._ssh.get(name)
        if path is None:
            if mount.required:
                raise MountRefused(f"the ssh agent {name!r} is required, but was not given")
            return
        if (mount.uid, mount.gid, mount.mode) != (None, None, None):
            own = self._lease.path("agent")
            mode = 0o600 if mount.mode is None else mount.mode
            relay = relayed(path, own, uid=mount.uid or 0, gid=mount.gid or 0, mode=mode)
            stack.enter_context(relay)
            path = str(own)
        target = mount.target or f"/run/buildkit/ssh_agent.{len(binds)}"
        binds.append(Mount(source=path, target=target))
        env.setdefault("SSH_AUTH_SOCK", target)


def _text(content: bytes) -> str | None:
    """The content as text, None where it is none, or has a NUL byte."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _absolute(path: str, cwd: str) -> str:
    return posixpath.normpath(posixpath.join("/", cwd, path)) if path else ""


def _boolean(key: str, value: str) -> bool:
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise MountRefused(f"{key} is true or false, not {value!r}")


def _number(text: str, digits: str, base: int) -> int:
    try:
        value = int(digits, base)
    except ValueError as exc:
        raise MountRefused(f"--mount={text}: {digits!r} is not a number") from exc
    if value < 0:
        raise MountRefused(f"--mount={text}: {digits!r} is negative")
    return value


def _size(text: str, value: str) -> int:
    units = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    digits = value.rstrip("bBkKmMgG")
    unit = value[len(digits) :].lower()
    unit = unit[:-1] if len(unit) == 2 and unit.endswith("b") else unit
    if unit not in units or not digits.isdecimal():
        raise MountRefused(f"--mount={text}: {value!r} is not a size such as 64m")
    return int(digits) * units[unit]
