"""What a container may use and do: cgroup limits, ulimits, devices, security options. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.engine.errors import EngineError
from orchestrator.planning.observed import Spec
from runtime.container.config import Device, IoLimit, LogConfig, Resources, Ulimit

_LOG_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    no_new_privileges: bool = False
    seccomp: Literal["default", "unconfined"] = "default"
    masked_paths: bool = True


def resources(service: Spec) -> Resources:
    """Cgroup limits from the service's own attributes and `deploy.resources`."""
    deployed = (service.get("deploy") or {}).get("resources") or {}
    limits: Mapping[str, Any] = deployed.get("limits") or {}
    reservations: Mapping[str, Any] = deployed.get("reservations") or {}

    def first(*values: Any) -> Any:
        # 0 is Docker's way to write no limit.
        return next((value for value in values if value not in (None, 0, "0", "")), None)

    cpus = first(service.get("cpus"), limits.get("cpus"))
    return Resources(
        memory=first(service.get("mem_limit"), limits.get("memory")),
        memory_swap=first(service.get("memswap_limit")),
        memory_reservation=first(service.get("mem_reservation"), reservations.get("memory")),
        memory_swappiness=service.get("mem_swappiness"),
        cpus=float(cpus) if cpus is not None else None,
        cpu_shares=first(service.get("cpu_shares")),
        cpu_quota=first(service.get("cpu_quota")),
        cpu_period=first(service.get("cpu_period")),
        cpuset=service.get("cpuset") or None,
        pids=first(service.get("pids_limit"), limits.get("pids")),
        blkio_weight=first((service.get("blkio_config") or {}).get("weight")),
        io=_io_limits(service.get("blkio_config") or {}),
        cpu_rt_period=first(service.get("cpu_rt_period")),
        cpu_rt_runtime=first(service.get("cpu_rt_runtime")),
        oom_kill_disable=bool(service.get("oom_kill_disable")),
    )


_IO_LISTS = {
    "weight_device": "weight",
    "device_read_bps": "read_bps",
    "device_write_bps": "write_bps",
    "device_read_iops": "read_iops",
    "device_write_iops": "write_iops",
}


def _io_limits(config: Mapping[str, Any]) -> tuple[IoLimit, ...]:
    """The limits of `blkio_config` by device."""
    devices: dict[str, dict[str, int]] = {}
    for key, name in _IO_LISTS.items():
        for entry in config.get(key) or ():
            value = entry.get("weight" if name == "weight" else "rate")
            if value:
                devices.setdefault(str(entry["path"]), {})[name] = int(value)
    return tuple(IoLimit(path=path, **limits) for path, limits in sorted(devices.items()))


def ulimits(service: Spec) -> tuple[Ulimit, ...]:
    limits = []
    for name, value in sorted((service.get("ulimits") or {}).items()):
        single = value.get("single")
        soft, hard = (single, single) if single else (value.get("soft"), value.get("hard"))
        limits.append(Ulimit(name=name, soft=int(soft or 0), hard=int(hard or 0)))
    return tuple(limits)


def devices(service: Spec) -> tuple[Device, ...]:
    return tuple(_device(entry) for entry in service.get("devices") or ())


def security(service: Spec) -> Security:
    """Read `security_opt`; what only AppArmor or SELinux would act on is accepted when it asks
    for no confinement, which is what there is. Raises EngineError for anything else."""
    result = {"no_new_privileges": False, "seccomp": "default", "masked_paths": True}
    for option in service.get("security_opt") or ():
        separator = "=" if "=" in option else ":"
        key, _, value = str(option).partition(separator)
        match key, value:
            case "no-new-privileges", "" | "true":
                result["no_new_privileges"] = True
            case "no-new-privileges", "false":
                result["no_new_privileges"] = False
            case "seccomp", "unconfined":
                result["seccomp"] = "unconfined"
            case "seccomp", "builtin":
                pass
            case "systempaths", "unconfined":
                result["masked_paths"] = False
            case "apparmor", "unconfined":
                pass
            case "label", "disable":
                pass
            case _:
                raise EngineError(f"security_opt {option} is not supported")
    return Security(**result)  # type: ignore[arg-type]  # each value is set above with its type


def log_config(service: Spec) -> LogConfig:
    """Read `logging`: json-file and local keep files, none keeps nothing."""
    logging = service.get("logging") or {}
    driver = logging.get("driver") or "json-file"
    options: Mapping[str, Any] = logging.get("options") or {}
    if driver == "none":
        return LogConfig(driver="none")
    if driver not in ("json-file", "local"):
        raise EngineError(
            f"logging driver {driver} is not supported", hint="use json-file, local or none"
        )
    default = LogConfig()
    size, files = options.get("max-size"), options.get("max-file")
    return LogConfig(
        max_size=_log_size(str(size)) if size else default.max_size,
        max_files=max(1, int(files)) if files else default.max_files,
    )


def _log_size(text: str) -> int:
    stripped = text.lower().removesuffix("b")
    unit = _LOG_UNITS.get(stripped[-1:], 1)
    digits = stripped if unit == 1 else stripped[:-1]
    if not digits.isdecimal() or not int(digits):
        raise EngineError(f"logging option max-size: {text} is not a size")
    return int(digits) * unit


def _device(entry: Mapping[str, Any]) -> Device:
    source = str(entry["source"])
    return Device(
        source=source,
        target=str(entry.get("target") or source),
        permissions=str(entry.get("permissions") or "rwm"),
    )
