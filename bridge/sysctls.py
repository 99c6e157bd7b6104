"""Kernel parameters of the calling thread's network namespace (/proc/sys/net)."""

from __future__ import annotations

from pathlib import Path

from bridge.errors import NetworkError

_NET = Path("/proc/sys/net")


def set_parameter(name: str, value: int, *, optional: bool = False) -> bool:
    """Set `name` (a path below /proc/sys/net) and tell whether it was another value before.

    With `optional`, a kernel without it is as good. Raises NetworkError.
    """
    path = _NET / name
    wanted = str(value)
    try:
        if path.read_text().strip() == wanted:
            return False
        path.write_text(wanted)
    except FileNotFoundError as exc:
        if optional:
            return False
        raise NetworkError(f"kernel parameter net/{name} does not exist") from exc
    except OSError as exc:
        raise NetworkError(
            f"cannot set kernel parameter net/{name} to {value}: {exc.strerror}",
            hint="is /proc/sys mounted read-only?",
        ) from exc
    return True
