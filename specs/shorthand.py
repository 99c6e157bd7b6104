"""Short forms to long forms: after this pass every attribute has one shape.

The table is the ecosystem's; a rule gets the node of its path and rewrites it in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specs import notation, patterns, shellwords
from specs.errors import SpecIssue
from specs.golang import format_value
from specs.patterns import Patterns
from specs.source import Budget, Node, Path, issue, wrap


class _Report:
    """Where a rule's faults and warnings go; `lenient` leaves what cannot be read as it is."""

    def __init__(
        self,
        issues: list[SpecIssue],
        warnings: list[SpecIssue],
        *,
        lenient: bool,
        budget: Budget,
    ) -> None:
        self.issues = issues
        self.warnings = warnings
        self.lenient = lenient
        self.budget = budget

    def fail(self, message: str, node: Node, path: Path) -> None:
        if not self.lenient:
            self.issues.append(issue(message, node=node, path=path))

    def warn(self, message: str, node: Node, path: Path, hint: str | None = None) -> None:
        self.warnings.append(issue(message, node=node, path=path, hint=hint))


Rule = Callable[[Node, Path, _Report], None]


def canonicalise(
    root: Node,
    *,
    issues: list[SpecIssue],
    warnings: list[SpecIssue],
    lenient: bool = False,
    budget: Budget | None = None,
) -> None:
    """Rewrites every short form below `root` in place.

    `lenient` is for trees whose variables are not substituted: what cannot be read stays.
    """
    report = _Report(issues, warnings, lenient=lenient, budget=budget or Budget())
    for path, node, rule in patterns.matches(root, _RULES):
        rule(node, path, report)


def _string_to_list(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is str:
        node.value = [Node(node.value, node.mark)]


def _list_to_map(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is list:
        node.value = {
            item.value: Node(None, item.mark, item.mark)
            for item in node.value
            if type(item.value) is str
        }


def _key_values(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is list:
        entries = {}
        for item in node.value:
            key, _, text = str(item.value).partition("=")
            entries[key] = Node(text, item.mark, item.mark)
        node.value = entries


def _env_file(node: Node, path: Path, report: _Report) -> None:
    _string_to_list(node, path, report)
    if type(node.value) is not list:
        return
    for item in node.value:
        if type(item.value) is str:
            item.value = {"path": Node(item.value, item.mark)}
        if type(item.value) is dict:
            item.value.setdefault("required", Node(True, item.mark))


def _build(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is str:
        node.value = {"context": Node(node.value, node.mark)}


def _extends(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is str:
        node.value = {"service": Node(node.value, node.mark)}


def _depends_on(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is list:
        node.value = {
            item.value: wrap({"condition": "service_started"}, item.mark) for item in node.value
        }
    if type(node.value) is dict:
        for child in node.value.values():
            if type(child.value) is dict:
                child.value.setdefault("required", Node(True, child.mark))


def _ports(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is not list:
        return
    ports: list[Node] = []
    for index, item in enumerate(node.value):
        value = item.value
        if type(value) is dict:
            ports.append(item)
            continue
        text = value if type(value) is str else format_value(value)
        try:
            entries = notation.parse_ports(text)
        except ValueError as exc:
            report.fail(str(exc), item, (*path, index))
            ports.append(item)
        else:
            if len(entries) > 1:
                report.budget.spend(len(entries) * 5, item, (*path, index))
            ports.extend(wrap(entry, item.mark) for entry in entries)
    node.value = ports


def _mount(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is not str:
        return
    try:
        mount, ignored = notation.parse_mount(node.value)
    except ValueError as exc:
        report.fail(str(exc), node, path)
        return
    for option in ignored:
        report.warn(f"mount option {option!r} has no meaning and is ignored", node, path)
    node.value = wrap(mount, node.mark).value


def _device(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is str:
        try:
            node.value = wrap(notation.parse_device(node.value), node.mark).value
        except ValueError as exc:
            report.fail(str(exc), node, path)


def _command(node: Node, path: Path, report: _Report) -> None:
    operator = shellwords.ends_early(node.value) if type(node.value) is str else None
    if operator is not None:
        report.warn(
            f"the command ends at its unquoted {operator!r}, the rest is ignored",
            node,
            path,
            hint='run it in a shell: ["sh", "-c", "…"]',
        )


def _file_reference(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is str:
        node.value = {"source": Node(node.value, node.mark)}


def _gpus(node: Node, path: Path, report: _Report) -> None:
    if node.value == "all":
        node.value = [wrap({"count": "all"}, node.mark)]


def _ssh(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is list:
        entries = {}
        for item in node.value:
            key, separator, text = str(item.value).partition("=")
            entries[key] = Node(text if separator else None, item.mark, item.mark)
        node.value = entries


def _external(node: Node, path: Path, report: _Report) -> None:
    if type(node.value) is not dict:
        return
    external = node.value.get("external")
    if external is None or type(external.value) is not dict:
        return
    name = external.value.get("name")
    given = node.value.get("name")
    if name is not None:
        if given is not None and given.value != name.value:
            report.fail(
                f"external.name {name.value!r} and name {given.value!r} differ, use name alone",
                external,
                (*path, "external"),
            )
            return
        report.warn(
            "external.name is deprecated",
            external,
            (*path, "external"),
            hint="write name: and external: true",
        )
        node.value["name"] = name
    external.value = True


_RULES: Patterns[Rule] = Patterns(
    {
        "services.*.build": _build,
        "services.*.build.additional_contexts": _key_values,
        "services.*.build.secrets.*": _file_reference,
        "services.*.build.ssh": _ssh,
        "services.*.command": _command,
        "services.*.configs.*": _file_reference,
        "services.*.depends_on": _depends_on,
        "services.*.develop.watch.*.ignore": _string_to_list,
        "services.*.develop.watch.*.include": _string_to_list,
        "services.*.devices.*": _device,
        "services.*.dns": _string_to_list,
        "services.*.entrypoint": _command,
        "services.*.env_file": _env_file,
        "services.*.extends": _extends,
        "services.*.gpus": _gpus,
        "services.*.label_file": _string_to_list,
        "services.*.models": _list_to_map,
        "services.*.networks": _list_to_map,
        "services.*.ports": _ports,
        "services.*.secrets.*": _file_reference,
        "services.*.volumes.*": _mount,
        "services.*.x-bayplan.fall_back_on": _string_to_list,
        "configs.*": _external,
        "networks.*": _external,
        "secrets.*": _external,
        "volumes.*": _external,
    }
)


def set_defaults(root: Node) -> None:
    """Fills in the attributes that have a value even when they are not given."""
    for _, node, defaults in patterns.matches(root, _DEFAULTS):
        if type(node.value) is dict:
            defaults(node)


def _default_build(node: Node) -> None:
    node.value.setdefault("context", Node(".", node.mark))


def _default_secret(node: Node) -> None:
    source = node.value.get("source")
    if "target" not in node.value and source is not None:
        node.value["target"] = Node(f"/run/secrets/{source.value}", node.mark)


def _default_port(node: Node) -> None:
    node.value.setdefault("protocol", Node("tcp", node.mark))
    node.value.setdefault("mode", Node("ingress", node.mark))


def _default_device_request(node: Node) -> None:
    if "count" not in node.value and "device_ids" not in node.value:
        node.value["count"] = Node("all", node.mark)


def _default_bind(node: Node) -> None:
    node.value.setdefault("create_host_path", Node(True, node.mark))


_DEFAULTS: Patterns[Callable[[Node], Any]] = Patterns(
    {
        "services.*.build": _default_build,
        "services.*.deploy.resources.reservations.devices.*": _default_device_request,
        "services.*.gpus.*": _default_device_request,
        "services.*.ports.*": _default_port,
        "services.*.secrets.*": _default_secret,
        "services.*.volumes.*.bind": _default_bind,
    }
)
