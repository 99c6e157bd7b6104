"""What a project implies without saying so: default network, names, dependencies.

The last pass over the tree before the models. Source: Compose Specification, and the
reference implementation's normalisation.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from specs.source import Node, wrap

Lookup = Callable[[str], str | None]

_SHARED_NAMESPACES = ("network_mode", "ipc", "pid", "uts", "cgroup")


def normalise(root: Node, name: str, lookup: Lookup) -> None:
    """Completes the tree in place; `lookup` finds the values of bare environment keys."""
    services = root.value.get("services")
    entries = services.value if services is not None and type(services.value) is dict else {}
    _default_network(root, entries)
    for service in entries.values():
        if type(service.value) is dict:
            _service(service, lookup)
    for section in ("networks", "volumes", "configs", "secrets"):
        resources = root.value.get(section)
        if resources is not None and type(resources.value) is dict:
            for key, resource in resources.value.items():
                _name(resource, key, name)


def _default_network(root: Node, services: dict[str, Node]) -> None:
    used = False
    for service in services.values():
        value = service.value
        if type(value) is not dict or "provider" in value or "network_mode" in value:
            continue
        networks = value.get("networks")
        if networks is None or not networks.value:
            value["networks"] = wrap({"default": None}, service.mark)
            used = True
        elif type(networks.value) is dict and "default" in networks.value:
            used = True
    networks = root.value.get("networks")
    if networks is None or type(networks.value) is not dict:
        networks = Node({}, root.mark)
    if used:
        networks.value.setdefault("default", Node(None, root.mark))
    if networks.value:
        root.value["networks"] = networks


def _service(service: Node, lookup: Lookup) -> None:
    value = service.value
    policy = value.get("pull_policy")
    if policy is not None and policy.value == "if_not_present":
        value["pull_policy"] = policy.at("missing")
    build = value.get("build")
    if build is not None and type(build.value) is dict:
        build.value.setdefault("context", Node(".", build.mark))
        if "dockerfile" not in build.value and "dockerfile_inline" not in build.value:
            build.value["dockerfile"] = Node("Dockerfile", build.mark)
        if "args" in build.value:
            _resolve(build.value["args"], lookup, keep=False)
    if "environment" in value:
        _resolve(value["environment"], lookup, keep=True)
    volumes = value.get("volumes")
    if volumes is not None and type(volumes.value) is list:
        for mount in volumes.value:
            target = mount.value.get("target") if type(mount.value) is dict else None
            if target is not None and type(target.value) is str and target.value:
                target.value = posixpath.normpath(target.value)
    _dependencies(service)
    deploy, scale = value.get("deploy"), value.get("scale")
    if scale is not None and deploy is not None and type(deploy.value) is dict:
        deploy.value.setdefault("replicas", scale)


def _resolve(node: Node, lookup: Lookup, *, keep: bool) -> None:
    """Gives bare keys their value; those without one stay (`keep`) or go."""
    if type(node.value) is list:
        items = []
        for item in node.value:
            if type(item.value) is str and "=" not in item.value:
                found = lookup(item.value)
                if found is not None:
                    items.append(item.at(f"{item.value}={found}"))
                elif keep:
                    items.append(item)
            else:
                items.append(item)
        node.value = items
    elif type(node.value) is dict:
        entries = {}
        for key, child in node.value.items():
            if child.value is None:
                found = lookup(key)
                if found is not None:
                    entries[key] = child.at(found)
                elif keep:
                    entries[key] = child
            else:
                entries[key] = child
        node.value = entries


def _dependencies(service: Node) -> None:
    value = service.value
    dependencies = value.get("depends_on")
    known = dict(dependencies.value) if dependencies is not None and dependencies.value else {}

    def add(name: str, node: Node, *, restart: bool) -> None:
        implied = {"condition": "service_started", "restart": restart, "required": True}
        known.setdefault(name, wrap(implied, node.mark))

    for link in _strings(value.get("links")):
        parts = str(link.value).split(":")
        add(parts[0] if len(parts) == 2 else str(link.value), link, restart=True)
    for key in _SHARED_NAMESPACES:
        node = value.get(key)
        if node is not None and type(node.value) is str and node.value.startswith("service:"):
            add(node.value.removeprefix("service:"), node, restart=True)
    for source in _strings(value.get("volumes_from")):
        if not str(source.value).startswith("container:"):
            add(str(source.value).partition(":")[0], source, restart=False)
    if known:
        value["depends_on"] = Node(known, service.mark, service.key_mark)


def _strings(node: Node | None) -> list[Node]:
    return node.value if node is not None and type(node.value) is list else []


def _name(resource: Node, key: str, project: str) -> None:
    if resource.value is None:
        resource.value = {}
    value = resource.value
    if type(value) is not dict or ("name" in value and value["name"].value is not None):
        return
    external = value.get("external")
    own = external is None or str(external.value).lower() not in ("true", "1", "t")
    value["name"] = Node(f"{project}_{key}" if own else key, resource.mark)
