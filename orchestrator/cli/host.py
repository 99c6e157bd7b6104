"""What the kernel and the host offer, found out by trying, not by reading version numbers.

Probes run in a child with namespaces of its own (`unshare`), so that nothing is left
behind whatever they find.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable

_TIMEOUT = 20  # seconds for one probe
_MINIMUM_KERNEL = (5, 12)  # mount_setattr(2); everything else that we call is older


class Feature:
    """One feature: `cost` says what does not work without it; `needed` ones fail `doctor`."""

    __slots__ = ("cost", "needed", "probe", "title")

    def __init__(
        self, title: str, probe: Callable[[], tuple[bool, str]], *, cost: str, needed: bool = True
    ) -> None:
        self.title = title
        self.probe = probe
        self.cost = cost
        self.needed = needed


def _root() -> tuple[bool, str]:
    return os.geteuid() == 0, f"uid {os.geteuid()}"


def _kernel() -> tuple[bool, str]:
    release = os.uname().release
    numbers = release.split("-")[0].split(".")
    version = tuple(int(number) for number in numbers[:2] if number.isdigit())
    return version >= _MINIMUM_KERNEL, release


def _namespaces() -> tuple[bool, str]:
    kinds = ("mnt", "pid", "net", "uts", "ipc", "cgroup")
    missing = [kind for kind in kinds if not os.path.exists(f"/proc/self/ns/{kind}")]
    if missing:
        return False, f"no {', '.join(missing)} namespaces"
    return _try(
        "unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "true"
    )


def _overlay() -> tuple[bool, str]:
    script = (
        "mount -t tmpfs none $0 && mkdir $0/l $0/u $0/w $0/m && "
        "mount -t overlay none -o lowerdir=$0/l,upperdir=$0/u,workdir=$0/w $0/m"
    )
    with tempfile.TemporaryDirectory(prefix="bay-doctor-") as place:
        return _try("unshare", "--mount", "sh", "-c", script, place)


def _cgroups() -> tuple[bool, str]:
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        lines = [line.split() for line in mounts]
    versions = {"cgroup": "v1", "cgroup2": "v2"}
    found = [f"{versions[kind]} {place}" for _, place, kind, *_ in lines if kind in versions]
    return bool(found), ", ".join(found[:3]) + (" …" if len(found) > 3 else "")


def _controllers() -> tuple[bool, str]:
    wanted = ("memory", "cpu", "pids", "devices", "freezer")
    try:
        with open("/proc/cgroups", encoding="utf-8") as table:
            rows = [line.split() for line in table if not line.startswith("#")]
    except FileNotFoundError:
        return False, "no /proc/cgroups"
    enabled = {name for name, _, _, on in rows if on == "1"}
    missing = [name for name in wanted if name not in enabled]
    return not missing, f"no {', '.join(missing)}" if missing else ", ".join(wanted)


def _seccomp() -> tuple[bool, str]:
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="utf-8") as file:
            return "errno" in file.read().split(), "filters"
    except FileNotFoundError:
        return False, "no /proc/sys/kernel/seccomp"


def _links() -> tuple[bool, str]:
    script = (
        "import pyroute2\n"
        "with pyroute2.IPRoute() as route:\n"
        "    route.link('add', ifname='bay0', kind='bridge')\n"
        "    route.link('add', ifname='bay1', kind='veth', peer={'ifname': 'bay2'})\n"
    )
    return _try("unshare", "--net", sys.executable, "-I", "-c", script)


def _nftables() -> tuple[bool, str]:
    if not _library("libnftables.so.1"):
        return False, "libnftables.so.1 is not installed (Debian: libnftables1)"
    if shutil.which("nft") is None:
        return True, "libnftables.so.1"
    rules = "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; "
    rules += "add rule ip t c masquerade"
    return _try("unshare", "--net", "nft", rules)


def _library(name: str) -> bool:
    result = subprocess.run(
        ["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False, timeout=_TIMEOUT
    )
    return name in result.stdout


def _forwarding() -> tuple[bool, str]:
    path = "/proc/sys/net/ipv4/ip_forward"
    return os.access(path, os.W_OK), path


def _program(name: str) -> Callable[[], tuple[bool, str]]:
    def probe() -> tuple[bool, str]:
        found = shutil.which(name)
        return found is not None, found or f"{name} is not installed"

    return probe


def _seccomp_library() -> tuple[bool, str]:
    return _library("libseccomp.so.2"), "libseccomp.so.2"


def _packages() -> tuple[bool, str]:
    """Our four packages must lie side by side: a foreign one of the same name breaks us."""
    from importlib.util import find_spec

    places = {}
    for name in ("orchestrator", "specs", "runtime", "bridge"):
        spec = find_spec(name)
        places[name] = os.path.dirname(os.path.dirname(spec.origin or "")) if spec else "missing"
    home = places["orchestrator"]
    strangers = [f"{name} in {place}" for name, place in places.items() if place != home]
    return not strangers, ", ".join(strangers) or home


def _try(*command: str) -> tuple[bool, str]:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT
        )
    except FileNotFoundError:
        return False, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return False, f"{command[0]} did not end within {_TIMEOUT} s"
    complaint = result.stderr.strip().splitlines()
    return result.returncode == 0, complaint[-1] if result.returncode and complaint else "works"


FEATURES = (
    Feature("root", _root, cost="nothing works: containers, networks and mounts need root"),
    Feature("kernel 5.12", _kernel, cost="mounts cannot be prepared out of a container's reach"),
    Feature("packages of bayplan", _packages, cost="another distribution has overwritten ours"),
    Feature("namespaces", _namespaces, cost="no containers"),
    Feature("overlayfs", _overlay, cost="no images: layers cannot be stacked"),
    Feature("control groups", _cgroups, cost="no limits, and no sure way to end a container"),
    Feature(
        "controllers", _controllers, cost="limits of the missing kind are refused", needed=False
    ),
    Feature("seccomp", _seccomp, cost="containers run without a system call filter"),
    Feature(
        "libseccomp",
        _seccomp_library,
        cost="filters cannot be compiled (libseccomp2)",
        needed=False,
    ),
    Feature("bridges and veth", _links, cost="no networks"),
    Feature("nftables", _nftables, cost="no published ports, no way out of a network"),
    Feature("IPv4 forwarding", _forwarding, cost="containers reach only their own network"),
    Feature(
        "mmdebstrap",
        _program("mmdebstrap"),
        cost="bay image bootstrap cannot make base images",
        needed=False,
    ),
    Feature(
        "git",
        _program("git"),
        cost="no stacks and no build contexts from repositories",
        needed=False,
    ),
    Feature(
        "ssh",
        _program("ssh"),
        cost="no repositories over ssh (openssh-client)",
        needed=False,
    ),
    Feature(
        "ssh-keygen",
        _program("ssh-keygen"),
        cost="signed commits cannot be checked (openssh-client)",
        needed=False,
    ),
)
