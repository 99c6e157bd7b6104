"""Platforms: this machine's, and the manifest of an index that fits one."""

from __future__ import annotations

import os

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


def host_platform() -> Platform:
    """This machine's platform in OCI's words."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


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
