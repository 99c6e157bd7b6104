"""Base images without a registry: Debian and Ubuntu suites made by mmdebstrap(1).

mmdebstrap writes a tar to its standard output, which becomes the image's only layer while
it is being written. It verifies packages by the distribution's own keys, and knows the
distribution's default mirror.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from runtime.errors import ImageError, Unsupported
from runtime.images.reference import DEFAULT_DOMAIN, OFFICIAL, Reference
from runtime.images.store import Image, ImageStore, host_platform
from runtime.oci.image_config import HistoryEntry, ImageConfig

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SUITES = {
    "debian": {
        "latest": "stable",
        "11": "bullseye",
        "12": "bookworm",
        "13": "trixie",
        "14": "forky",
    },
    "ubuntu": {"latest": "noble", "20.04": "focal", "22.04": "jammy", "24.04": "noble"},
}
_KNOWN = {
    "debian": ("bullseye", "bookworm", "trixie", "forky", "stable", "testing", "unstable", "sid"),
    "ubuntu": ("focal", "jammy", "noble"),
}
_SUITE = re.compile(r"[a-z][a-z0-9.-]*\Z")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?:[:=/][A-Za-z0-9.+~:-]+)?\Z")
_TAIL = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSystem:
    """What to bootstrap: a distribution's suite."""

    distribution: str
    suite: str


def base_system(reference: Reference, *, any_suite: bool = False) -> BaseSystem:
    """The distribution and suite that a reference such as `debian:bookworm` names.

    Version numbers and `-slim` are understood. Raises ImageError for what is not known;
    with `any_suite` (a mirror is given) every suite of a known distribution will do.
    """
    distribution = reference.path.rpartition("/")[2]
    known = _KNOWN.get(distribution)
    if reference.domain != DEFAULT_DOMAIN or reference.path != f"{OFFICIAL}/{distribution}":
        known = None
    if known is None:
        raise ImageError(
            f"cannot bootstrap {reference.familiar()}: no such distribution",
            hint="known are " + " and ".join(f"{name}:SUITE" for name in sorted(_KNOWN)),
        )
    tag = (reference.tag or "latest").removesuffix("-slim")
    suite = _SUITES[distribution].get(tag, tag)
    if suite not in known and not (any_suite and _SUITE.match(suite)):
        raise ImageError(
            f"cannot bootstrap {reference.familiar()}: {distribution} has no suite {suite!r} "
            "that is known here",
            hint=f"known are {', '.join(known)}; others need a mirror (--mirror)",
        )
    return BaseSystem(distribution=distribution, suite=suite)


def bootstrap(
    store: ImageStore,
    reference: str,
    *,
    include: Sequence[str] = (),
    mirror: str | None = None,
    progress: Callable[[str], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Image:
    """Make `reference` (`debian:bookworm`) an image of this store and give it that name.

    `include` are further packages; `mirror` replaces the distribution's default;
    `progress` is called with each line that mmdebstrap prints, from another thread;
    SOURCE_DATE_EPOCH in `environ` (default: the caller's own) makes it reproducible.
    """
    parsed = Reference.parse(reference)
    if parsed.digest is not None:
        raise ImageError(f"cannot bootstrap {reference}: the digest is not known beforehand")
    system = base_system(parsed, any_suite=mirror is not None)
    for package in include:
        if not _PACKAGE.match(package):
            raise ImageError(f"cannot bootstrap {reference}: {package!r} is no package's name")
    if mirror is not None and (mirror.startswith("-") or "\n" in mirror):
        raise ImageError(f"cannot bootstrap {reference}: {mirror!r} is not a mirror")
    environ = os.environ if environ is None else environ
    epoch = source_date_epoch(environ)
    program = shutil.which("mmdebstrap", path=environ.get("PATH"))
    if program is None:
        raise Unsupported(
            f"cannot bootstrap {reference}: mmdebstrap is not installed",
            hint="install it: apt-get install mmdebstrap",
        )
    argv = [
        program,
        "--variant=minbase",
        "--format=tar",
        *(("--mode=root",) if os.geteuid() == 0 else ()),
        # A layer is discarded as a whole if the machine goes down: dpkg need not sync.
        "--dpkgopt=force-unsafe-io",
        '--aptopt=Acquire::Languages "none"',
        # The machine that makes the image must not show in it.
        '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"',
        *((f"--include={','.join(include)}",) if include else ()),
        system.suite,
        "-",
        *((mirror,) if mirror is not None else ()),
    ]
    created = datetime.fromtimestamp(epoch, UTC) if epoch is not None else datetime.now(UTC)
    stamp = created.strftime("%Y-%m-%dT%H:%M:%SZ")
    with store.lease() as lease:
        with _running(argv, environ, progress) as process:
            assert process.stdout is not None
            layer = store.add_layer(process.stdout, lease=lease)
        platform = host_platform()
        words = " ".join(("bay image bootstrap", parsed.familiar(), *include))
        config = ImageConfig(
            architecture=platform.architecture,
            variant=platform.variant,
            os=platform.os,
            created=stamp,
            env=(f"PATH={PATH}",),
            cmd=("bash",),
            labels={"org.opencontainers.image.version": system.suite},
            history=(HistoryEntry(created=stamp, created_by=words, comment="mmdebstrap"),),
        )
        return store.create_image(config, (layer,), (reference,), lease=lease)


def source_date_epoch(environ: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH in seconds, None where it is not set; raises ImageError."""
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise ImageError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    if len(text) > len(str(_LATEST)) or int(text) > _LATEST:
        raise ImageError(f"SOURCE_DATE_EPOCH is {text[:20]}, which is after the year 9999")
    return int(text)


_LATEST = 253_402_300_799


@contextlib.contextmanager
def _running(
    argv: Sequence[str], environ: Mapping[str, str], progress: Callable[[str], None] | None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run mmdebstrap; leaving the block early ends it, and a failure of its own is raised."""
    tail: deque[str] = deque(maxlen=_TAIL)
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=dict(environ),
    )
    assert process.stderr is not None and process.stdout is not None
    reader = threading.Thread(
        target=_forward, args=(process.stderr.fileno(), tail, progress), daemon=True
    )
    reader.start()
    failure: BaseException | None = None
    try:
        yield process
    except BaseException as exc:
        failure = exc
        process.stdout.close()
        if process.poll() is None and not isinstance(exc, ImageError):
            process.terminate()  # it removes its temporary files itself
    process.stdout.close()
    status = process.wait()
    reader.join()
    process.stderr.close()
    # A cut archive is the consequence of a failure of mmdebstrap, which says more.
    if status > 0 and (failure is None or isinstance(failure, ImageError)):
        said = "\n".join(tail)
        raise ImageError(
            f"mmdebstrap failed with exit code {status}:\n{said}",
            hint="check the network, the suite and the names of the packages",
        ) from failure
    if failure is not None:
        raise failure
    if status:
        raise ImageError(f"mmdebstrap was ended by signal {-status}")


def _forward(fd: int, tail: deque[str], progress: Callable[[str], None] | None) -> None:
    with os.fdopen(os.dup(fd), "rb") as lines:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if text:
                tail.append(text)
                if progress is not None:
                    progress(text)
