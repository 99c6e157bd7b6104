"""Relative paths of a spec, made absolute (or relative to the directory of an outer file).

Which attributes are paths is a table; the rules are those of the reference implementation:
`~` is expanded, addresses (`https://…`, `git@…`) are left alone, a builder's `service:x` too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator

from specs import patterns
from specs.errors import SpecIssue
from specs.patterns import Patterns
from specs.source import Node, Path, issue

_REMOTE_PREFIXES = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")
_LAYOUT = "oci-layout://"
_WINDOWS_ABSOLUTE = re.compile(r"^(?:[a-zA-Z]:[\\/]|\\\\)")


class Resolver:
    """Joins paths with `base`, which may itself be relative; `home` stands for `~`.

    `follow` follows the symbolic links of an absolute path. `within`, if given, is a directory
    that no relative path may leave.
    """

    def __init__(
        self, base: str, home: str, follow: Callable[[str], str], within: str | None = None
    ) -> None:
        self.base = base
        self.home = home
        self.follow = follow
        self.within = within

    def path(self, text: str) -> str:
        """`text` joined with the base, cleaned; absolute ones stay as they are."""
        text = expand_user(text, self.home)
        if not text or text.startswith("/") or _WINDOWS_ABSOLUTE.match(text):
            return text
        path = join(self.base, text)
        if self.within and path.startswith("/") and not is_within(path, (self.within,)):
            raise OutsideError(f"{text} leads out of the repository")
        return path

    def context(self, text: str) -> str:
        """A build context: a directory, or an address that is left alone."""
        if text.startswith(_LAYOUT):
            return _LAYOUT + self.path(text.removeprefix(_LAYOUT))
        if "://" in text or text.startswith(("service:", *_REMOTE_PREFIXES)):
            return text
        return self.path(text)

    def real_path(self, text: str) -> str:
        """A path with its symbolic links followed, as far as they exist."""
        path = self.path(text)
        return self.follow(path) if path.startswith("/") else path


def context_path(context: str) -> str:
    """The directory of a build context, also of `oci-layout://path[:tag][@digest]`."""
    if not context.startswith(_LAYOUT):
        return context
    path, slash, last = context.removeprefix(_LAYOUT).rpartition("/")
    return path + slash + last.partition("@")[0].partition(":")[0]


class OutsideError(ValueError):
    """A relative path leaves the directory that a load is confined to."""


def is_within(path: str, places: Iterable[str]) -> bool:
    """Whether the absolute, clean `path` is one of `places` or below one."""
    return any(path == place or path.startswith(f"{place.rstrip('/')}/") for place in places)


def expand_user(text: str, home: str) -> str:
    """`~/x` below the home directory. `~name/x` is left alone, as nobody's home is known."""
    if text == "~" or text.startswith("~/"):
        return posixpath.normpath(home + text[1:]) if home else text
    return text


def join(base: str, text: str) -> str:
    """Two paths joined and cleaned, without a look at the file system."""
    path = posixpath.normpath(posixpath.join(base, text))
    return path[1:] if path.startswith("//") else path


def resolve(root: Node, resolver: Resolver, issues: list[SpecIssue]) -> None:
    """Makes every path of the tree absolute, or relative to an outer directory, in place."""
    for path, node, rule in patterns.matches(root, _RULES):
        try:
            rule(resolver, node)
        except OutsideError as exc:
            issues.append(issue(str(exc), node=node, path=path))


def check_links(root: Node, allows: Callable[[str], bool], within: str) -> list[SpecIssue]:
    """The paths of a resolved tree that `allows` refuses, since links lead them elsewhere.

    A bind mount outside of the directory `within` is the host's, and stands there to be seen.
    """
    issues = []
    for path, node, rule in patterns.matches(root, _RULES):
        mounted = rule in (_mount, _volume)
        for found in _sources(node) if mounted else (node,):
            text = found.value
            if type(text) is not str:
                continue
            text = context_path(text)
            if not text.startswith("/"):
                continue
            if mounted and not is_within(text, (within,)):
                continue
            if not allows(text):
                message = f"{_shown(text, within)} leads out of the repository"
                issues.append(issue(message, node=found, path=path))
    for name, service in _services(root):
        build = service.get("build")
        if build is None or type(build.value) is not dict:
            continue
        context, dockerfile = build.value.get("context"), build.value.get("dockerfile")
        if context is None or dockerfile is None or not str(context.value).startswith("/"):
            continue
        text = join(str(context.value), str(dockerfile.value))
        if not allows(text):
            place: Path = ("services", name, "build", "dockerfile")
            message = f"{_shown(text, within)} leads out of the repository"
            issues.append(issue(message, node=dockerfile, path=place))
    return issues


def _shown(path: str, within: str) -> str:
    return path.removeprefix(f"{within}/")


def _services(root: Node) -> Iterator[tuple[str, dict[str, Node]]]:
    services = root.value.get("services")
    for name, service in services.value.items() if services is not None else ():
        if type(service.value) is dict:
            yield name, service.value


def _sources(node: Node) -> list[Node]:
    """The places on the host that a mount or a volume's options name."""
    if type(node.value) is not dict:
        return []
    kind, options = node.value.get("type"), node.value.get("driver_opts")
    if kind is not None:
        source = node.value.get("source")
        return [source] if kind.value == "bind" and source is not None else []
    if options is None or type(options.value) is not dict:
        return []
    device = options.value.get("device")
    return [device] if device is not None else []


def _path(resolver: Resolver, node: Node) -> None:
    if type(node.value) is str:
        node.value = resolver.path(node.value)


def _context(resolver: Resolver, node: Node) -> None:
    if type(node.value) is str:
        node.value = resolver.context(node.value)


def _extends(resolver: Resolver, node: Node) -> None:
    if type(node.value) is str and not node.value.startswith(_REMOTE_PREFIXES):
        node.value = resolver.path(node.value)


def _watch(resolver: Resolver, node: Node) -> None:
    if type(node.value) is str:
        node.value = resolver.real_path(node.value)


def _mount(resolver: Resolver, node: Node) -> None:
    if type(node.value) is dict:
        kind, source = node.value.get("type"), node.value.get("source")
        if kind is not None and kind.value == "bind" and source is not None:
            _path(resolver, source)


def _volume(resolver: Resolver, node: Node) -> None:
    # driver local with o=bind is a bind mount under a volume's name.
    def text(owner: Node | None, key: str) -> object:
        found = owner.value.get(key) if owner is not None and type(owner.value) is dict else None
        return found.value if found is not None else None

    if type(node.value) is dict and text(node, "driver") == "local":
        options = node.value.get("driver_opts")
        if options is not None and text(options, "o") == "bind" and text(options, "device"):
            _path(resolver, options.value["device"])


_RULES: Patterns[Callable[[Resolver, Node], None]] = Patterns(
    {
        "services.*.build.additional_contexts.*": _context,
        "services.*.build.context": _context,
        "services.*.build.ssh.*": _path,
        "services.*.develop.watch.*.path": _watch,
        "services.*.env_file.*.path": _path,
        "services.*.extends.file": _extends,
        "services.*.label_file.*": _path,
        "services.*.volumes.*": _mount,
        "services.*.x-bayplan.fall_back_on.*": _watch,
        "configs.*.file": _path,
        "secrets.*.file": _path,
        "volumes.*": _volume,
    }
)
