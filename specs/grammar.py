"""The grammar of a Compose file: every key of every section, in short and long form.

Source: the Compose Specification (compose-spec.json). `json_schema()` derives from the same data,
so what editors are told is what the loader accepts.
"""

from __future__ import annotations

from specs.schema import Anything, JsonSchema, List, Map, Object, OneOf, Scalar, Type

NAME = "^[a-zA-Z0-9._-]+$"

STRING = Scalar("string")
BOOLEAN = Scalar("boolean")
INTEGER = Scalar("integer")
NUMBER = Scalar("number")
FLAG = Scalar("boolean", "string")
COUNT = Scalar("integer", "string")
AMOUNT = Scalar("number", "string")
STRINGS = List(STRING)
UNIQUE_STRINGS = List(STRING, unique=True)

STRING_OR_LIST = OneOf(STRING, UNIQUE_STRINGS)
COMMAND = OneOf(Scalar("null"), STRING, STRINGS)
LIST_OR_MAP = OneOf(Map(Scalar("string", "number", "boolean", "null")), UNIQUE_STRINGS)
OPTIONS = Map(Scalar("string", "number"), keys="^.+$", closed=False)
EXTRA_HOSTS = OneOf(Map(OneOf(STRING, STRINGS)), UNIQUE_STRINGS)
ULIMITS = Map(
    OneOf(COUNT, Object({"hard": COUNT, "soft": COUNT}, required=("soft", "hard"))),
    keys="^[a-z]+$",
    closed=False,
)
FILE_REFERENCES = List(
    OneOf(
        STRING,
        Object({"source": STRING, "target": STRING, "uid": STRING, "gid": STRING, "mode": AMOUNT}),
    )
)

_DEVICE_REQUEST: dict[str, Type] = {
    "capabilities": UNIQUE_STRINGS,
    "count": Scalar("string", "integer"),
    "device_ids": UNIQUE_STRINGS,
    "driver": STRING,
    "options": LIST_OR_MAP,
}
GPUS = OneOf(Scalar("string", enum=("all",)), List(Object(_DEVICE_REQUEST, open=True)))
RESERVED_DEVICES = List(Object(_DEVICE_REQUEST, required=("capabilities",)))

BUILD = OneOf(
    STRING,
    Object(
        {
            "context": STRING,
            "dockerfile": STRING,
            "dockerfile_inline": STRING,
            "entitlements": STRINGS,
            "args": LIST_OR_MAP,
            "ssh": LIST_OR_MAP,
            "labels": LIST_OR_MAP,
            "cache_from": STRINGS,
            "cache_to": STRINGS,
            "no_cache": FLAG,
            "no_cache_filter": STRING_OR_LIST,
            "additional_contexts": LIST_OR_MAP,
            "network": STRING,
            "provenance": FLAG,
            "sbom": FLAG,
            "pull": FLAG,
            "target": STRING,
            "shm_size": COUNT,
            "extra_hosts": EXTRA_HOSTS,
            "isolation": STRING,
            "privileged": FLAG,
            "secrets": FILE_REFERENCES,
            "tags": STRINGS,
            "ulimits": ULIMITS,
            "platforms": STRINGS,
        }
    ),
)

_DEVICE_RATES = List(Object({"path": STRING, "rate": COUNT}, extensions=False))
BLKIO_CONFIG = Object(
    {
        "device_read_bps": _DEVICE_RATES,
        "device_read_iops": _DEVICE_RATES,
        "device_write_bps": _DEVICE_RATES,
        "device_write_iops": _DEVICE_RATES,
        "weight": COUNT,
        "weight_device": List(Object({"path": STRING, "weight": COUNT}, extensions=False)),
    },
    extensions=False,
)

HEALTHCHECK = Object(
    {
        "disable": FLAG,
        "interval": STRING,
        "retries": AMOUNT,
        "test": OneOf(STRING, STRINGS),
        "timeout": STRING,
        "start_period": STRING,
        "start_interval": STRING,
    }
)

_HOOK: dict[str, Type] = {
    "command": COMMAND,
    "user": STRING,
    "privileged": FLAG,
    "working_dir": STRING,
    "environment": LIST_OR_MAP,
}
HOOK = Object(_HOOK, required=("command",))
INIT_HOOK = Object({**_HOOK, "image": STRING, "per_replica": FLAG})

DEVELOP = Object(
    {
        "watch": List(
            Object(
                {
                    "ignore": STRING_OR_LIST,
                    "include": STRING_OR_LIST,
                    "path": STRING,
                    "action": Scalar(
                        "string", enum=("rebuild", "sync", "restart", "sync+restart", "sync+exec")
                    ),
                    "target": STRING,
                    "exec": HOOK,
                    "initial_sync": BOOLEAN,
                },
                required=("path", "action"),
            )
        )
    },
    nullable=True,
)

_UPDATE = Object(
    {
        "parallelism": COUNT,
        "delay": STRING,
        "failure_action": STRING,
        "monitor": STRING,
        "max_failure_ratio": AMOUNT,
        "order": Scalar("string", enum=("start-first", "stop-first")),
    }
)
DEPLOY = Object(
    {
        "mode": STRING,
        "endpoint_mode": STRING,
        "replicas": COUNT,
        "labels": LIST_OR_MAP,
        "rollback_config": _UPDATE,
        "update_config": _UPDATE,
        "resources": Object(
            {
                "limits": Object({"cpus": AMOUNT, "memory": STRING, "pids": COUNT}),
                "reservations": Object(
                    {
                        "cpus": AMOUNT,
                        "memory": STRING,
                        "generic_resources": List(
                            Object(
                                {
                                    "discrete_resource_spec": Object(
                                        {"kind": STRING, "value": AMOUNT}
                                    )
                                }
                            )
                        ),
                        "devices": RESERVED_DEVICES,
                    }
                ),
            }
        ),
        "restart_policy": Object(
            {"condition": STRING, "delay": STRING, "max_attempts": COUNT, "window": STRING}
        ),
        "placement": Object(
            {
                "constraints": STRINGS,
                "preferences": List(Object({"spread": STRING})),
                "max_replicas_per_node": COUNT,
            }
        ),
    },
    nullable=True,
)

DEPENDS_ON = OneOf(
    UNIQUE_STRINGS,
    Map(
        Object(
            {
                "restart": FLAG,
                "required": BOOLEAN,
                "condition": Scalar(
                    "string",
                    enum=("service_started", "service_healthy", "service_completed_successfully"),
                ),
            },
            required=("condition",),
        ),
        keys=NAME,
    ),
)

PORTS = List(
    OneOf(
        NUMBER,
        STRING,
        Object(
            {
                "name": STRING,
                "mode": STRING,
                "host_ip": STRING,
                "target": COUNT,
                "published": Scalar("string", "integer"),
                "protocol": STRING,
                "app_protocol": STRING,
            }
        ),
    ),
    unique=True,
)

MOUNTS = List(
    OneOf(
        STRING,
        Object(
            {
                "type": Scalar(
                    "string", enum=("bind", "volume", "tmpfs", "cluster", "npipe", "image")
                ),
                "source": STRING,
                "target": STRING,
                "read_only": FLAG,
                "consistency": STRING,
                "bind": Object(
                    {
                        "propagation": STRING,
                        "create_host_path": FLAG,
                        "recursive": Scalar(
                            "string", enum=("enabled", "disabled", "writable", "readonly")
                        ),
                        "selinux": Scalar("string", enum=("z", "Z")),
                    }
                ),
                "volume": Object({"labels": LIST_OR_MAP, "nocopy": FLAG, "subpath": STRING}),
                "tmpfs": Object(
                    {
                        "size": OneOf(Scalar("integer", minimum=0), STRING),
                        "mode": AMOUNT,
                    }
                ),
                "image": Object({"subpath": STRING}),
            },
            required=("type",),
        ),
    ),
    unique=True,
)

SERVICE_NETWORKS = OneOf(
    UNIQUE_STRINGS,
    Map(
        Object(
            {
                "aliases": UNIQUE_STRINGS,
                "interface_name": STRING,
                "ipv4_address": STRING,
                "ipv6_address": STRING,
                "link_local_ips": UNIQUE_STRINGS,
                "mac_address": STRING,
                "driver_opts": OPTIONS,
                "priority": NUMBER,
                "gw_priority": NUMBER,
            },
            nullable=True,
        ),
        keys=NAME,
    ),
)

ENV_FILE = OneOf(
    STRING,
    List(
        OneOf(
            STRING,
            Object(
                {"path": STRING, "format": STRING, "required": FLAG},
                required=("path",),
                extensions=False,
            ),
        )
    ),
)

_PROVIDER_VALUE = Scalar("string", "number", "boolean")
PROVIDER = Object(
    {
        "type": STRING,
        "options": Map(OneOf(_PROVIDER_VALUE, List(_PROVIDER_VALUE)), keys="^.+$", closed=False),
    },
    required=("type",),
)

SERVICE = Object(
    {
        "annotations": LIST_OR_MAP,
        "attach": FLAG,
        "blkio_config": BLKIO_CONFIG,
        "build": BUILD,
        "cap_add": UNIQUE_STRINGS,
        "cap_drop": UNIQUE_STRINGS,
        "cgroup": Scalar("string", enum=("host", "private")),
        "cgroup_parent": STRING,
        "command": COMMAND,
        "configs": FILE_REFERENCES,
        "container_name": Scalar("string", pattern="[a-zA-Z0-9][a-zA-Z0-9_.-]+"),
        "cpu_count": OneOf(STRING, Scalar("integer", minimum=0)),
        "cpu_percent": OneOf(STRING, Scalar("integer", minimum=0, maximum=100)),
        "cpu_period": AMOUNT,
        "cpu_quota": AMOUNT,
        "cpu_rt_period": AMOUNT,
        "cpu_rt_runtime": AMOUNT,
        "cpu_shares": AMOUNT,
        "cpus": AMOUNT,
        "cpuset": STRING,
        "credential_spec": Object({"config": STRING, "file": STRING, "registry": STRING}),
        "depends_on": DEPENDS_ON,
        "deploy": DEPLOY,
        "develop": DEVELOP,
        "device_cgroup_rules": UNIQUE_STRINGS,
        "devices": List(
            OneOf(
                STRING,
                Object(
                    {"source": STRING, "target": STRING, "permissions": STRING},
                    required=("source",),
                ),
            )
        ),
        "dns": STRING_OR_LIST,
        "dns_opt": UNIQUE_STRINGS,
        "dns_search": STRING_OR_LIST,
        "domainname": STRING,
        "entrypoint": COMMAND,
        "env_file": ENV_FILE,
        "environment": LIST_OR_MAP,
        "expose": List(Scalar("string", "number"), unique=True),
        "extends": OneOf(
            STRING,
            Object({"service": STRING, "file": STRING}, required=("service",), extensions=False),
        ),
        "external_links": UNIQUE_STRINGS,
        "extra_hosts": EXTRA_HOSTS,
        "gpus": GPUS,
        "group_add": List(Scalar("string", "number"), unique=True),
        "healthcheck": HEALTHCHECK,
        "hostname": STRING,
        "image": STRING,
        "init": FLAG,
        "ipc": STRING,
        "isolation": STRING,
        "label_file": OneOf(STRING, STRINGS),
        "labels": LIST_OR_MAP,
        "links": UNIQUE_STRINGS,
        "logging": Object(
            {
                "driver": STRING,
                "options": Map(Scalar("string", "number", "null"), keys="^.+$", closed=False),
            }
        ),
        "mac_address": STRING,
        "mem_limit": AMOUNT,
        "mem_reservation": COUNT,
        "mem_swappiness": COUNT,
        "memswap_limit": AMOUNT,
        "models": OneOf(
            UNIQUE_STRINGS,
            Map(
                Object({"endpoint_var": STRING, "model_var": STRING}, nullable=True),
                keys=NAME,
                closed=False,
            ),
        ),
        "network_mode": STRING,
        "networks": SERVICE_NETWORKS,
        "oom_kill_disable": FLAG,
        "oom_score_adj": OneOf(STRING, Scalar("integer", minimum=-1000, maximum=1000)),
        "pid": Scalar("string", "null"),
        "pids_limit": AMOUNT,
        "platform": STRING,
        "ports": PORTS,
        "post_start": List(HOOK),
        "pre_start": List(INIT_HOOK),
        "pre_stop": List(HOOK),
        "privileged": FLAG,
        "profiles": UNIQUE_STRINGS,
        "provider": PROVIDER,
        "pull_policy": Scalar(
            "string",
            pattern="always|never|build|if_not_present|missing|refresh|daily|weekly"
            "|every_([0-9]+[wdhms])+",
        ),
        "pull_refresh_after": STRING,
        "read_only": FLAG,
        "restart": STRING,
        "runtime": STRING,
        "scale": COUNT,
        "secrets": FILE_REFERENCES,
        "security_opt": UNIQUE_STRINGS,
        "shm_size": AMOUNT,
        "stdin_open": FLAG,
        "stop_grace_period": STRING,
        "stop_signal": STRING,
        "storage_opt": Map(Anything(), keys="", closed=False),
        "sysctls": LIST_OR_MAP,
        "tmpfs": STRING_OR_LIST,
        "tty": FLAG,
        "ulimits": ULIMITS,
        "use_api_socket": BOOLEAN,
        "user": STRING,
        "userns_mode": STRING,
        "uts": STRING,
        "volumes": MOUNTS,
        "volumes_from": UNIQUE_STRINGS,
        "working_dir": STRING,
    }
)

_EXTERNAL = OneOf(FLAG, Object({"name": STRING}))
_OPEN_EXTERNAL = OneOf(FLAG, Object({"name": STRING}, open=True, extensions=False))

NETWORK = Object(
    {
        "name": STRING,
        "driver": STRING,
        "driver_opts": OPTIONS,
        "ipam": Object(
            {
                "driver": STRING,
                "config": List(
                    Object(
                        {
                            "subnet": STRING,
                            "ip_range": STRING,
                            "gateway": STRING,
                            "aux_addresses": Map(STRING, keys="^.+$"),
                        }
                    )
                ),
                "options": Map(STRING, keys="^.+$"),
            }
        ),
        "external": _EXTERNAL,
        "internal": FLAG,
        "enable_ipv4": FLAG,
        "enable_ipv6": FLAG,
        "attachable": FLAG,
        "labels": LIST_OR_MAP,
    },
    nullable=True,
)
VOLUME = Object(
    {
        "name": STRING,
        "driver": STRING,
        "driver_opts": OPTIONS,
        "external": _EXTERNAL,
        "labels": LIST_OR_MAP,
    },
    nullable=True,
)
SECRET = Object(
    {
        "name": STRING,
        "environment": STRING,
        "file": STRING,
        "external": _OPEN_EXTERNAL,
        "labels": LIST_OR_MAP,
        "driver": STRING,
        "driver_opts": OPTIONS,
        "template_driver": STRING,
    }
)
CONFIG = Object(
    {
        "name": STRING,
        "content": STRING,
        "environment": STRING,
        "file": STRING,
        "external": _OPEN_EXTERNAL,
        "labels": LIST_OR_MAP,
        "template_driver": STRING,
    }
)
MODEL = Object(
    {"name": STRING, "model": STRING, "context_size": INTEGER, "runtime_flags": STRINGS},
    required=("model",),
)
INCLUDE = OneOf(
    STRING,
    Object(
        {"path": STRING_OR_LIST, "env_file": STRING_OR_LIST, "project_directory": STRING},
        extensions=False,
    ),
)

PROJECT = Object(
    {
        "version": STRING,
        "name": STRING,
        "include": List(INCLUDE),
        "services": Map(SERVICE, keys=NAME),
        "models": Map(MODEL, keys=NAME),
        "networks": Map(NETWORK, keys=NAME),
        "volumes": Map(VOLUME, keys=NAME),
        "secrets": Map(SECRET, keys=NAME),
        "configs": Map(CONFIG, keys=NAME),
    }
)

_SHARED: dict[str, Type] = {
    "service": SERVICE,
    "network": NETWORK,
    "volume": VOLUME,
    "secret": SECRET,
    "config": CONFIG,
    "model": MODEL,
    "include": INCLUDE,
    "build": BUILD,
    "deploy": DEPLOY,
    "develop": DEVELOP,
    "healthcheck": HEALTHCHECK,
    "hook": HOOK,
    "init_hook": INIT_HOOK,
    "list_or_map": LIST_OR_MAP,
    "string_or_list": STRING_OR_LIST,
    "command": COMMAND,
    "ulimits": ULIMITS,
    "extra_hosts": EXTRA_HOSTS,
    "file_references": FILE_REFERENCES,
    "unique_strings": UNIQUE_STRINGS,
}


def json_schema() -> JsonSchema:
    """The grammar as a JSON Schema (draft 2020-12), for editors and other tools."""
    names = {id(type_): name for name, type_ in _SHARED.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bayplan project",
        **PROJECT.export(names),
        "$defs": {name: type_.export(names) for name, type_ in _SHARED.items()},
    }
