"""Platforms: this machine's, and the manifest of an index that fits one."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.errors import ImageError
from runtime.oci.descriptor import Descriptor, Platform
from runtime.oci.manifest import Index

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}
_QEMU = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "mips64le": "mips64el"}
_INTERPRETERS = Path("/proc/sys/fs/binfmt_misc")


def host_platform() -> Platform:
    """This machine's platform in OCI's words."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/arm64` or `arm64`; raises ImageError."""
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts.insert(0, "linux")
    if len(parts) > 3 or not all(parts):
        raise ImageError(f"{text!r} is not a platform", hint="write it as linux/arm64")
    os_name, architecture, *variant = parts
    architecture, default = _MACHINES.get(architecture, (architecture, ""))
    return Platform(os=os_name, architecture=architecture, variant=(variant or [default])[0])


def runs_here(platform: Platform, interpreters: Path = _INTERPRETERS) -> bool:
    """True where this machine executes a platform's programs: its own, or through an
    interpreter that is registered to be opened early (binfmt_misc flag F), so that it need not
    be in the image. Source: kernel Documentation/admin-guide/binfmt-misc.rst."""
    host = host_platform()
    if platform.os != host.os:
        return False
    if platform.architecture == host.architecture or (
        (host.architecture, platform.architecture) == ("amd64", "386")
    ):
        return True
    machine = _QEMU.get(platform.architecture, platform.architecture)
    try:
        lines = (interpreters / f"qemu-{machine}").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return False
    flags = next((line for line in lines if line.startswith("flags:")), "")
    return lines[:1] == ["enabled"] and "F" in flags.partition(":")[2]


def choose(index: Index, platform: Platform) -> Descriptor:
    """The manifest of an index for a platform; raises ImageError that names what there is."""
    fitting = [
        manifest
        for manifest in index.manifests
        if manifest.platform is not None
        and (manifest.platform.os, manifest.platform.architecture)
        == (platform.os, platform.architecture)
    ]
    exact = [m for m in fitting if m.platform and m.platform.variant == platform.variant]
    for candidates in (exact, fitting):
        if candidates:
            return candidates[0]
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0]
    there = ", ".join(sorted(str(m.platform) for m in index.manifests if m.platform))
    raise ImageError(f"the image is not made for {platform}; it is for {there or 'no platform'}")
