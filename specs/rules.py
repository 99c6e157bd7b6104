"""Rules that a schema cannot state, on one attribute's long form.

Sources: Compose Specification; the reference implementation's validation table.
"""

from __future__ import annotations

from collections.abc import Callable

from specs import notation, patterns
from specs.errors import SpecIssue
from specs.patterns import Patterns
from specs.source import Node, Path, issue

Check = Callable[[Node, Path, list[SpecIssue]], None]


def check(root: Node, issues: list[SpecIssue]) -> None:
    """Appends every broken rule below `root` to `issues`."""
    for path, node, rule in patterns.matches(root, _RULES):
        rule(node, path, issues)


def _file_object(*sources: str) -> Check:
    def rule(node: Node, path: Path, issues: list[SpecIssue]) -> None:
        if type(node.value) is not dict:
            return
        given = [key for key in sources if key in node.value]
        listed = ", ".join(sources[:-1]) + f" or {sources[-1]}"
        if len(given) > 1:
            issues.append(issue(f"{' and '.join(given)} exclude each other", node=node, path=path))
        elif not given and "driver" not in node.value and "external" not in node.value:
            issues.append(issue(f"one of {listed} must be set", node=node, path=path))

    return rule


def _volume(node: Node, path: Path, issues: list[SpecIssue]) -> None:
    if type(node.value) is not dict:
        return
    external = node.value.get("external")
    if external is None or external.value is not True:
        return
    extra = [
        key for key in node.value if key not in ("external", "name") and not key.startswith("x-")
    ]
    if extra:
        issues.append(
            issue(
                f"is external, so {', '.join(sorted(extra))} cannot be set here",
                node=node,
                path=path,
            )
        )


def _port(node: Node, path: Path, issues: list[SpecIssue]) -> None:
    if type(node.value) is not dict:
        return
    host = node.value.get("host_ip")
    if host is not None and not notation.is_ip_address(str(host.value)):
        issues.append(
            issue(f"{host.value!r} is not an IP address", node=host, path=(*path, "host_ip"))
        )
    target = node.value.get("target")
    if target is None:
        issues.append(issue("port has no target", node=node, path=path))
    elif type(target.value) is int and not 0 < target.value <= 65535:
        issues.append(
            issue(f"container port {target.value} is out of range 1–65535", node=target, path=path)
        )
    published = node.value.get("published")
    if published is not None:
        try:
            notation.check_published(str(published.value))
        except ValueError as exc:
            issues.append(issue(str(exc), node=published, path=path))


def _watch_path(node: Node, path: Path, issues: list[SpecIssue]) -> None:
    if node.value == "":
        issues.append(issue("must not be empty", node=node, path=path))


def _device_request(node: Node, path: Path, issues: list[SpecIssue]) -> None:
    if type(node.value) is dict and "count" in node.value and "device_ids" in node.value:
        issues.append(issue("count and device_ids exclude each other", node=node, path=path))


def _bind(node: Node, path: Path, issues: list[SpecIssue]) -> None:
    if type(node.value) is not dict:
        return
    kind = node.value.get("type")
    if kind is not None and kind.value == "bind" and "source" not in node.value:
        issues.append(issue("bind mount has no source", node=node, path=path))


_RULES: Patterns[Check] = Patterns(
    {
        "configs.*": _file_object("file", "environment", "content"),
        "secrets.*": _file_object("file", "environment"),
        "volumes.*": _volume,
        "services.*.deploy.resources.reservations.devices.*": _device_request,
        "services.*.develop.watch.*.path": _watch_path,
        "services.*.gpus.*": _device_request,
        "services.*.ports.*": _port,
        "services.*.volumes.*": _bind,
    }
)
