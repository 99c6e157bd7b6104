"""Merging of trees: override files, `extends`, included resources.

Mappings merge by key, lists append, scalars are replaced; the tables list the paths with a rule
of their own and the lists whose items are unique by a key. Source: Compose Specification,
13-merge, and the tables of its reference implementation.
"""

from __future__ import annotations

from collections.abc import Callable

from specs import notation, patterns
from specs.errors import SpecIssue
from specs.golang import format_value
from specs.patterns import Patterns
from specs.source import Node, Path, issue, wrap

Merger = Callable[[Node, Node, Path, list[SpecIssue]], Node]
Key = Callable[[Node], str]


def merge(base: Node, override: Node, issues: list[SpecIssue], path: Path = ()) -> Node:
    """`base` with `override` laid over it. Neither is used afterwards.

    `path` is where the two stand in a project, for the tables. What cannot be merged (a list
    over a mapping) goes to `issues`.
    """
    return _merge(base, override, path, _SPECIAL.at(path), issues)


def _merge(
    base: Node,
    override: Node,
    path: Path,
    table: Patterns[Merger] | None,
    issues: list[SpecIssue],
) -> Node:
    if table is not None and table.rule is not None:
        return table.rule(base, override, path, issues)
    if override.value is None:
        return base
    if type(base.value) is dict:
        if type(override.value) is not dict:
            return _conflict(base, override, path, "a mapping", issues)
        return _merge_maps(base, override, path, table, issues)
    if type(base.value) is list:
        if type(override.value) is not list:
            return _conflict(base, override, path, "a list", issues)
        return Node(_appended(base.value, override.value), base.mark, override.key_mark)
    return override


def _appended(base: list[Node], override: list[Node]) -> list[Node]:
    # An item that is already there in the same form is not repeated.
    items = list(base)
    known = [item.plain() for item in base]
    for item in override:
        plain = item.plain()
        if not any(type(plain) is type(other) and plain == other for other in known):
            items.append(item)
            known.append(plain)
    return items


def _conflict(base: Node, override: Node, path: Path, what: str, issues: list[SpecIssue]) -> Node:
    issues.append(issue(f"cannot override {what} with another kind", node=override, path=path))
    return base


def _merge_maps(
    base: Node,
    override: Node,
    path: Path,
    table: Patterns[Merger] | None,
    issues: list[SpecIssue],
) -> Node:
    merged = dict(base.value)
    for key, child in override.value.items():
        existing = merged.get(key)
        if existing is None:
            merged[key] = child
        else:
            below = table.step(key) if table is not None else None
            merged[key] = _merge(existing, child, (*path, key), below, issues)
    return Node(merged, base.mark, base.key_mark or override.key_mark)


def _replace(base: Node, override: Node, path: Path, issues: list[SpecIssue]) -> Node:
    return override


def _as_list(node: Node) -> list[Node]:
    """Any of the notations of a key-value list as `key=value` strings, sorted if a mapping."""
    value = node.value
    if type(value) is dict:
        items = []
        for key, child in value.items():
            if child.value is None:
                items.append(Node(key, child.key_mark or child.mark))
            elif type(child.value) is list:
                items.extend(
                    Node(f"{key}={format_value(item.value)}", item.mark) for item in child.value
                )
            else:
                items.append(Node(f"{key}={format_value(child.value)}", child.mark))
        return sorted(items, key=lambda item: str(item.value))
    if type(value) is list:
        return list(value)
    if type(value) is str:
        return [Node(value, node.mark)]
    return []


def _append(base: Node, override: Node, path: Path, issues: list[SpecIssue]) -> Node:
    return Node(_as_list(base) + _as_list(override), base.mark, base.key_mark)


def _append_new(base: Node, override: Node, path: Path, issues: list[SpecIssue]) -> Node:
    items = _as_list(base)
    known = {item.value for item in items}
    items += [item for item in _as_list(override) if item.value not in known]
    return Node(items, base.mark, base.key_mark)


def _as_map(node: Node, default: dict[str, object] | None = None) -> Node:
    if type(node.value) is list:
        entries = {}
        for item in node.value:
            if type(item.value) is str:
                child = wrap(default, item.mark) if default else Node(None, item.mark)
                child.key_mark = item.mark
                entries[item.value] = child
        return Node(entries, node.mark, node.key_mark)
    if type(node.value) is dict:
        return node
    return Node({}, node.mark, node.key_mark)


def _as_maps(base: Node, override: Node, path: Path, issues: list[SpecIssue]) -> Node:
    return _merge_maps(_as_map(base), _as_map(override), path, _SPECIAL.at(path), issues)


def _dependencies(base: Node, override: Node, path: Path, issues: list[SpecIssue]) -> Node:
    default: dict[str, object] = {"condition": "service_started", "required": True}
    return _merge_maps(_as_map(base, default), _as_map(override, default), path, None, issues)


def _build(base: Node, override: Node, path: Path, issues: list[SpecIssue]) -> Node:
    def long(node: Node) -> Node:
        if type(node.value) is str:
            return Node({"context": Node(node.value, node.mark)}, node.mark, node.key_mark)
        return _as_map(node)

    return _merge_maps(long(base), long(override), path, _SPECIAL.at(path), issues)


def _logging(base: Node, override: Node, path: Path, issues: list[SpecIssue]) -> Node:
    if type(base.value) is not dict or type(override.value) is not dict:
        return override
    # Options of one driver mean nothing to another.
    ours, theirs = base.value.get("driver"), override.value.get("driver")
    if ours is None or theirs is None or ours.value == theirs.value:
        return _merge_maps(base, override, path, None, issues)
    return override


def _pools(base: Node, override: Node, path: Path, issues: list[SpecIssue]) -> Node:
    if type(base.value) is not list or type(override.value) is not list:
        return _conflict(base, override, path, "a list", issues)

    def subnet(pool: Node) -> object:
        found = pool.value.get("subnet") if type(pool.value) is dict else None
        return found.value if found is not None else None

    # The later file says which pools there are; a pool that it takes over keeps its settings.
    known = {subnet(pool): pool for pool in base.value}
    merged = [
        _merge_maps(_as_map(known[subnet(pool)]), _as_map(pool), path, None, issues)
        if subnet(pool) in known
        else pool
        for pool in override.value
    ]
    return Node(merged, base.mark, base.key_mark)


_SPECIAL: Patterns[Merger] = Patterns(
    {
        "networks.*.ipam.config": _pools,
        "networks.*.labels": _append,
        "volumes.*.labels": _append,
        "services.*.annotations": _append,
        "services.*.build": _build,
        "services.*.build.additional_contexts": _append,
        "services.*.build.args": _append,
        "services.*.build.extra_hosts": _append_new,
        "services.*.build.labels": _append,
        "services.*.command": _replace,
        "services.*.depends_on": _dependencies,
        "services.*.deploy.labels": _append,
        "services.*.dns": _append,
        "services.*.dns_opt": _append,
        "services.*.dns_search": _append,
        "services.*.entrypoint": _replace,
        "services.*.env_file": _append,
        "services.*.environment": _append,
        "services.*.extra_hosts": _append_new,
        "services.*.healthcheck.test": _replace,
        "services.*.label_file": _append,
        "services.*.labels": _append,
        "services.*.logging": _logging,
        "services.*.models": _as_maps,
        "services.*.networks": _as_maps,
        "services.*.sysctls": _append,
        "services.*.tmpfs": _append,
        "services.*.ulimits.*": _replace,
        "services.*.volumes.*.volume.labels": _append,
    }
)


class UniquenessError(ValueError):
    """An item of a list has no key that it could be unique by."""


def _by_key(item: Node) -> str:
    if type(item.value) is not str:
        raise UniquenessError("must be a string")
    return item.value.partition("=")[0]


def _by_target(item: Node) -> str:
    value = item.value
    if type(value) is dict:
        target = value.get("target")
        if target is None or type(target.value) is not str:
            raise UniquenessError("mount has no target")
        return target.value
    if type(value) is str:
        try:
            return str(notation.parse_mount(value)[0]["target"])
        except ValueError as exc:
            raise UniquenessError(str(exc)) from exc
    return ""


def _by_device(item: Node) -> str:
    if type(item.value) is dict:
        target = item.value.get("target")
        if target is None or type(target.value) is not str:
            raise UniquenessError("device has no target")
        return target.value
    parts = str(item.value).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _by_number(item: Node) -> str:
    if type(item.value) not in (str, int):
        raise UniquenessError("must be a string or a whole number")
    return str(item.value)


def _by_port(item: Node) -> str:
    value = item.value
    if type(value) is not dict:
        return format_value(value)
    target = value.get("target")
    if target is None:
        raise UniquenessError("port has no target")

    def text(key: str, default: str) -> str:
        return str(value[key].value) if key in value else default

    # host_ip first, so that a port of one address never stands in for that of another.
    host, protocol = text("host_ip", "0.0.0.0"), text("protocol", "tcp")
    return f"{host}:{text('published', '')}:{target.value}/{protocol}"


def _by_path(item: Node) -> str:
    if type(item.value) is dict:
        path = item.value.get("path")
        if path is None:
            raise UniquenessError("env file has no path")
        return str(path.value)
    return str(item.value)


def _by_mount_point(directory: str) -> Key:
    def key(item: Node) -> str:
        if type(item.value) is str:
            return f"{directory}/{item.value}"
        if type(item.value) is not dict:
            raise UniquenessError("must be a string or a mapping")
        target = item.value.get("target")
        if target is not None:
            return str(target.value)
        source = item.value.get("source")
        return f"{directory}/{source.value if source is not None else ''}"

    return key


_UNIQUE: Patterns[Key] = Patterns(
    {
        "networks.*.ipam.options": _by_key,
        "networks.*.labels": _by_key,
        "services.*.annotations": _by_key,
        "services.*.build.additional_contexts": _by_key,
        "services.*.build.args": _by_key,
        "services.*.build.labels": _by_key,
        "services.*.build.platform": _by_key,
        "services.*.build.tags": _by_key,
        "services.*.cap_add": _by_key,
        "services.*.cap_drop": _by_key,
        "services.*.configs": _by_mount_point(""),
        "services.*.deploy.labels": _by_key,
        "services.*.devices": _by_device,
        "services.*.dns": _by_key,
        "services.*.dns_opt": _by_key,
        "services.*.dns_search": _by_key,
        "services.*.env_file": _by_path,
        "services.*.environment": _by_key,
        "services.*.expose": _by_number,
        "services.*.labels": _by_key,
        "services.*.links": _by_key,
        "services.*.networks.*.aliases": _by_key,
        "services.*.networks.*.link_local_ips": _by_key,
        "services.*.ports": _by_port,
        "services.*.profiles": _by_key,
        "services.*.secrets": _by_mount_point("/run/secrets"),
        "services.*.sysctls": _by_key,
        "services.*.tmpfs": _by_key,
        "services.*.volumes": _by_target,
    }
)


def enforce_uniqueness(root: Node, issues: list[SpecIssue]) -> None:
    """Keeps the last of the items with one key, at the first one's place, in every such list."""
    for path, node, key_of in patterns.matches(root, _UNIQUE):
        if type(node.value) is not list or not node.value:
            continue
        positions: dict[str, int] = {}
        items: list[Node] = []
        for index, item in enumerate(node.value):
            try:
                key = key_of(item)
            except UniquenessError as exc:
                issues.append(issue(str(exc), node=item, path=(*path, index)))
                items.append(item)
                continue
            if key in positions:
                items[positions[key]] = item
            else:
                positions[key] = len(items)
                items.append(item)
        node.value = items
