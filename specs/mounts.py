"""What a service sees of files: mounts, and references to configs and secrets.

Source: Compose Specification, services: volumes, configs, secrets.
"""

# ruff: noqa: RUF012  # pydantic copies a field's default for every instance

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from specs.values import Bytes, Flag, Model, TextMap, Unsigned


def _read_mode(value: Any) -> Any:
    # A file mode is written in octal; YAML has already read `0440` so, a string has not.
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError as exc:
            raise ValueError(f"{value!r} is not a file mode like 0440") from exc
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


class Octal:
    """Marks a field as a file mode, which Compose prints as a string of octal digits."""


Mode = Annotated[int, BeforeValidator(_read_mode), Octal]


class FileReference(Model):
    """A config or secret that a service (or a build) is given as a file.

    `source` is its name in the project, `target` the path in the container (relative ones:
    secrets below /run/secrets), `mode` its permission bits.
    """

    source: str = ""
    target: str = ""
    uid: str = ""
    gid: str = ""
    mode: Mode | None = None


class BindOptions(Model):
    """Options of a `bind` mount; `create_host_path` makes a missing source directory.

    `digest` identifies what the source holds, where it is known: what a repository's commit has
    there. `beneath` is a directory that no link on the way to the source may lead out of. A file
    can say neither.
    """

    selinux: str = ""
    propagation: str = ""
    create_host_path: Flag = True
    recursive: str = ""
    digest: str | None = None
    beneath: str = ""


class VolumeOptions(Model):
    """Options of a `volume` mount; `nocopy` leaves out what the image has at the target."""

    labels: TextMap = {}
    nocopy: Flag = False
    subpath: str = ""


class TmpfsOptions(Model):
    """Options of a `tmpfs` mount: `size` in bytes, `mode` permission bits."""

    size: Bytes = 0
    mode: Unsigned = 0


class ImageOptions(Model):
    """Options of an `image` mount."""

    subpath: str = ""


class ServiceVolume(Model):
    """One mount of a service: `type` is bind, volume, tmpfs, image, cluster or npipe.

    `source` is an absolute path for bind, a volume's name in the project for volume (empty:
    anonymous), an image reference for image. `target` is an absolute path in the container.
    """

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: Flag = False
    consistency: str = ""
    bind: BindOptions | None = None
    volume: VolumeOptions | None = None
    tmpfs: TmpfsOptions | None = None
    image: ImageOptions | None = None
