"""Local volumes: directories that outlive containers.

`<root>/volumes/<name>/_data` holds the content, `volume.json` beside it what was asked for. With
the `local` driver's options `o: bind` and `device` a host directory stands for the content.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from runtime.errors import NotFound, RuntimeFault, Unsupported
from runtime.linux import files
from runtime.removal import discard
from runtime.tree_sizes import tree_size

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume; `mountpoint` is its content's directory, `created_at` in ns since 1970."""

    name: str
    mountpoint: str
    driver: str = "local"
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0


class Volumes:
    """The volumes below `root`; safe for several threads and processes."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "volumes"
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o711)

    def create(
        self,
        name: str,
        *,
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        beneath: str = "",
    ) -> Volume:
        """Make the volume, or give the one that is there, whatever its options.

        `beneath` is a directory that no link on the way to the `device` may lead out of.
        """
        if not _NAME.fullmatch(name):
            raise RuntimeFault(
                f"volume name {name!r} is not valid",
                hint="a letter or digit, then letters, digits, dots, dashes and underscores",
            )
        if driver != "local":
            raise Unsupported(
                f"volume {name}: driver {driver}", hint="only the driver local is built in"
            )
        options = dict(driver_opts or {})
        target = self._target(name, options, beneath)
        with files.locked(self._directory / ".lock"):
            with contextlib.suppress(NotFound):
                return self.get(name)
            draft = Path(tempfile.mkdtemp(prefix=".new-", dir=self._directory))
            try:
                draft.chmod(0o711)
                (draft / "_data").mkdir(mode=0o755)
                volume = Volume(
                    name=name,
                    mountpoint=target or str(self._directory / name / "_data"),
                    driver_opts=options,
                    labels=dict(labels or {}),
                    created_at=time.time_ns(),
                )
                files.write_atomically(draft / "volume.json", json.dumps(asdict(volume)).encode())
                draft.rename(self._directory / name)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            files.sync_directory(self._directory)
        return volume

    def _target(self, name: str, options: Mapping[str, str], beneath: str) -> str | None:
        """The host directory that stands for the volume, where its options name one."""
        if not options:
            return None
        bind = "bind" in options.get("o", "").split(",") or options.get("type") == "bind"
        if not bind or "device" not in options:
            raise Unsupported(
                f"volume {name}: options {', '.join(sorted(options))}",
                hint="only a bind (type: none, o: bind, device: /path) is built in",
            )
        device = options["device"]
        if beneath:
            # The links are followed when it is mounted, as they are then.
            return _beneath(name, os.path.normpath(device), beneath)
        if not os.path.isdir(device):
            raise _no_directory(name, device)
        return os.path.realpath(device)

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        if not _NAME.fullmatch(name):
            raise NotFound("volume", name)
        try:
            return Volume(**json.loads((self._directory / name / "volume.json").read_bytes()))
        except FileNotFoundError as error:
            raise NotFound("volume", name) from error

    def list(self) -> Sequence[Volume]:
        found = []
        for entry in sorted(self._directory.iterdir()):
            if not entry.name.startswith("."):
                with contextlib.suppress(NotFound):
                    found.append(self.get(entry.name))
        return found

    def remove(self, name: str) -> None:
        """Remove a volume and its content; a bound host directory stays. Raises NotFound."""
        self.get(name)
        with files.locked(self._directory / ".lock"):
            doomed = self._directory / f".gone-{name}"
            discard(doomed)  # of a removal that was cut short
            try:
                (self._directory / name).rename(doomed)
            except FileNotFoundError as error:
                raise NotFound("volume", name) from error
        discard(doomed)

    def size(self, name: str) -> int:
        """Bytes that the content takes on disk."""
        return tree_size(self.get(name).mountpoint, on_disk=True)

    def sweep(self) -> None:
        """Remove what a crash has left half made or half removed."""
        with files.locked(self._directory / ".lock"):  # nobody is making one
            left = [*self._directory.glob(".new-*"), *self._directory.glob(".gone-*")]
            for entry in left:
                with contextlib.suppress(OSError, RuntimeFault):
                    discard(entry)


def _beneath(name: str, device: str, beneath: str) -> str:
    """`device`, when it is a directory in `beneath` through whatever links."""
    top = os.open(beneath, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = files.RESOLVE_BENEATH | files.RESOLVE_NO_MAGICLINKS
        path = os.path.relpath(device, beneath)
        os.close(files.openat2(top, path, os.O_PATH | os.O_DIRECTORY, resolve=resolve))
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise RuntimeFault(f"volume {name}: {device} leads out of {beneath}") from error
        raise _no_directory(name, device) from error
    finally:
        os.close(top)
    return device


def _no_directory(name: str, device: str) -> RuntimeFault:
    return RuntimeFault(
        f"volume {name}: {device} is not a directory on this host", hint="create it first"
    )
