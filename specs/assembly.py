"""The stages of loading, in the ecosystem's order: files to one canonical tree.

For each document: interpolate, rename old extensions, include, drop what `!reset` says, extend,
merge over what is already there, keep lists unique, check against the grammar, expand short forms.
Then, once for each group of files: defaults, rules, paths. Reading goes through a Reader, so that
this module touches neither files nor the environment itself.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from specs import (
    aliases,
    grammar,
    interpolation,
    locations,
    merge,
    resets,
    rules,
    schema,
    shorthand,
)
from specs.errors import SpecError, SpecIssue
from specs.source import Budget, Document, Node, Path, Source, issue

# Files that include each other in a row, and services that extend each other in a row.
_INCLUDE_LIMIT = 50
_EXTENDS_LIMIT = 100
_REMOTE = ("oci://", "git@", "ssh://", "git://", "http://", "https://")
_SECTIONS = ("services", "volumes", "networks", "secrets", "configs", "models")


class Reader(Protocol):
    """Where files come from."""

    def read(self, path: str, *, asked_at: Node | None = None, attribute: Path = ()) -> Source:
        """The text of a file, rendered if it is a template. Raises SpecError."""

    def documents(self, path: str) -> list[Document]:
        """The documents of a file, for this caller alone: trees are changed in place."""

    def environment_of(
        self, directory: str, env_files: list[str] | None, environment: Mapping[str, str]
    ) -> Mapping[str, str]:
        """`environment`, completed from env files (None: the directory's .env, if any)."""

    def real_path(self, path: str) -> str:
        """An absolute path with its symbolic links followed."""

    def note(self, name: str) -> None:
        """A variable of this name has been looked up."""


@dataclass(slots=True, kw_only=True)
class Loading:
    """What one load shares: its reader, switches, and everything found wrong so far."""

    reader: Reader
    home: str = ""
    within: str | None = None
    interpolate: bool = True
    resolve_paths: bool = True
    issues: list[SpecIssue] = field(default_factory=list)
    warnings: list[SpecIssue] = field(default_factory=list)
    unset: dict[str, None] = field(default_factory=dict)
    included: dict[object, Node] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)

    def resolver(self, base: str) -> locations.Resolver:
        """Joins paths with `base`."""
        return locations.Resolver(base, self.home, self.reader.real_path, self.within)

    def settle(self) -> None:
        """Ends a stage: raises SpecError when anything is wrong."""
        if self.issues:
            raise SpecError(self.issues)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a group of files stands.

    `directory` (absolute) is where its relative files are looked for; `base` is what its
    relative paths are joined with, absolute for the project, relative for an included group.
    """

    directory: str
    base: str
    environment: Mapping[str, str]
    included: tuple[str, ...] = ()
    plain: bool = False

    def lookup(self, name: str) -> str | None:
        """The value of a variable in this scope."""
        return self.environment.get(name)


def assemble(loading: Loading, scope: Scope, files: list[str], *, top: bool = True) -> Node:
    """One canonical tree from `files` (absolute paths), later ones laid over earlier ones.

    Raises SpecError with every fault that one stage found.
    """
    tree = Node({})
    for name in files:
        tree = _file(loading, scope, name, tree)
    shorthand.set_defaults(tree)
    rules.check(tree, loading.issues)
    loading.settle()
    if loading.resolve_paths or not top:
        locations.resolve(tree, loading.resolver(scope.base), loading.issues)
    _take_environment(loading, scope, tree)
    return tree


def _file(loading: Loading, scope: Scope, name: str, tree: Node) -> Node:
    for document in loading.reader.documents(name):
        if document.root is None or document.root.value is None:
            continue
        tree = _document(loading, scope, name, document, tree)
    return tree


def _document(loading: Loading, scope: Scope, name: str, document: Document, tree: Node) -> Node:
    root = document.root
    if root is None or type(root.value) is not dict:
        raise SpecError([issue("a spec must be a mapping of sections", node=root)])
    if loading.interpolate:
        interpolator = interpolation.Interpolator(_noting(loading, scope))
        interpolator.unset = loading.unset
        interpolation.interpolate(
            root, interpolator, issues=loading.issues, warnings=loading.warnings
        )
        loading.settle()
    aliases.promote(root, loading.issues)
    if not scope.plain:
        _include(loading, scope, name, root, document)
        loading.settle()
    resets.apply(tree, document.resets)
    if not scope.plain:
        _extend(loading, scope, name, root, document)
        loading.settle()
    tree = merge.merge(tree, root, loading.issues)
    if tree.mark is None:
        tree.mark = root.mark
    merge.enforce_uniqueness(tree, loading.issues)
    if not scope.plain:
        found: list[SpecIssue] = []
        grammar.PROJECT.check(tree, (), found)
        # The grammar explains a value better than a pass that merely could not use it.
        if found:
            loading.issues[:] = found
        loading.settle()
        _drop_version(loading, tree)
    shorthand.canonicalise(
        tree,
        issues=loading.issues,
        warnings=loading.warnings,
        lenient=not loading.interpolate,
        budget=loading.budget,
    )
    loading.settle()
    _omit_empty(tree)
    merge.enforce_uniqueness(tree, loading.issues)
    loading.settle()
    return tree


def _noting(loading: Loading, scope: Scope) -> interpolation.Lookup:
    def lookup(name: str) -> str | None:
        loading.reader.note(name)
        return scope.environment.get(name)

    return lookup


def _drop_version(loading: Loading, tree: Node) -> None:
    version = tree.value.pop("version", None)
    if version is not None:
        loading.warnings.append(
            issue(
                "version is obsolete and ignored",
                mark=version.key_mark,
                path="version",
                hint="remove the line",
            )
        )


def _omit_empty(tree: Node) -> None:
    # `dns: ${UNSET}` means no server, rather than a server without a name.
    services = tree.value.get("services")
    if services is None or type(services.value) is not dict:
        return
    for service in services.value.values():
        if type(service.value) is not dict:
            continue
        dns = service.value.get("dns")
        if dns is not None and type(dns.value) is list:
            dns.value = [item for item in dns.value if item.value]


def _take_environment(loading: Loading, scope: Scope, tree: Node) -> None:
    """Gives what comes from variables its value, with the variables of this group of files."""
    lookup = _noting(loading, scope)
    for service in _entries(tree, "services"):
        environment = service.value.get("environment")
        if environment is not None and type(environment.value) is list:
            for item in environment.value:
                if type(item.value) is str and "=" not in item.value:
                    found = lookup(item.value)
                    if found is not None:
                        item.value = f"{item.value}={found}"
    for section in ("configs", "secrets"):
        for resource in _entries(tree, section):
            variable = resource.value.get("environment")
            if variable is not None and type(variable.value) is str:
                found = lookup(variable.value)
                if found is not None:
                    resource.value["content"] = variable.at(found)


def _entries(tree: Node, section: str) -> list[Node]:
    node = tree.value.get(section)
    if node is None or type(node.value) is not dict:
        return []
    return [entry for entry in node.value.values() if type(entry.value) is dict]


# Include


def _include(loading: Loading, scope: Scope, name: str, root: Node, document: Document) -> None:
    includes = root.value.pop("include", None)
    if includes is None or includes.value is None:
        return
    grammar.PROJECT.properties["include"].check(includes, ("include",), loading.issues)
    loading.settle()
    for index, entry in enumerate(includes.value):
        _include_one(loading, scope, name, root, document, entry, ("include", index))


def _texts(node: Node | None) -> list[str]:
    if node is None or node.value is None:
        return []
    return [node.value] if type(node.value) is str else [item.value for item in node.value]


def _include_one(
    loading: Loading,
    scope: Scope,
    name: str,
    root: Node,
    document: Document,
    entry: Node,
    path: Path,
) -> None:
    value = entry.value if type(entry.value) is dict else {"path": entry}
    paths = _texts(value.get("path"))
    if not paths:
        loading.issues.append(issue("include has no path", node=entry, path=path))
        return
    remote = [text for text in paths if text.startswith(_REMOTE)]
    if remote:
        message = f"{remote[0]} is not on this host, and specs are not fetched"
        loading.issues.append(issue(message, node=entry, path=path))
        return
    files = [locations.join(scope.directory, text) for text in paths]
    chain = (*scope.included, name)
    if files[0] in chain:
        cycle = " includes ".join([*chain[chain.index(files[0]) :], files[0]])
        raise SpecError([issue(f"include cycle: {cycle}", node=entry, path=path)])
    if len(chain) > _INCLUDE_LIMIT:
        message = f"more than {_INCLUDE_LIMIT} files include each other in a row"
        raise SpecError([issue(message, node=entry, path=path)])
    directories = _texts(value.get("project_directory"))
    if directories and directories[0]:
        directory = locations.join(scope.directory, directories[0])
        base = directories[0] if directories[0].startswith("/") else _relative(directory, scope)
    else:
        directory = posixpath.dirname(files[0])
        base = _relative(directory, scope)
    env_files = [
        locations.join(scope.directory, text)
        for text in _texts(value.get("env_file"))
        if text != "/dev/null"
    ]
    for file in files:
        loading.reader.read(file, asked_at=entry, attribute=path)
    environment = loading.reader.environment_of(
        directory, env_files if "env_file" in value else None, scope.environment
    )
    # A file that many others include is assembled once: the graph may be a wide diamond.
    key = (tuple(files), directory, base, frozenset(environment.items()))
    if key not in loading.included:
        inner = Scope(directory=directory, base=base, environment=environment, included=chain)
        loading.included[key] = assemble(loading, inner, files, top=False)
    included = loading.included[key]
    loading.budget.spend(included.size(), entry, path)
    _import(loading, included.copy(), root, document)


def _relative(directory: str, scope: Scope) -> str:
    return posixpath.relpath(directory, scope.directory)


def _import(loading: Loading, imported: Node, root: Node, document: Document) -> None:
    for section in _SECTIONS:
        source = imported.value.get(section)
        if source is None or not source.value:
            continue
        target = root.value.get(section)
        if target is None or target.value is None:
            target = root.value[section] = Node({}, source.mark)
        if type(target.value) is not dict:
            continue  # the grammar will say what is wrong with it
        for key, node in source.value.items():
            own = target.value.get(key)
            if own is None:
                target.value[key] = node
            elif own.plain() != node.plain():
                resets.apply(Node({section: Node({key: node})}), document.resets)
                target.value[key] = merge.merge(node, own, loading.issues, (section, key))


# Extends


def _extend(loading: Loading, scope: Scope, name: str, root: Node, document: Document) -> None:
    services = root.value.get("services")
    if services is None or type(services.value) is not dict:
        return  # the grammar will say what is wrong with it
    extension = _Extension(loading, scope, document)
    for service in list(services.value):
        services.value[service] = extension.resolve(name, service, services.value, ())


class _Extension:
    """Resolves `extends` within one document, reading each other file once."""

    def __init__(self, loading: Loading, scope: Scope, document: Document) -> None:
        self.loading = loading
        self.scope = scope
        self.document = document
        self.bases: dict[str, dict[str, Node] | None] = {}

    def resolve(
        self,
        file: str,
        name: str,
        services: dict[str, Node],
        chain: tuple[tuple[str, str], ...],
    ) -> Node:
        service = services[name]
        if type(service.value) is not dict or "extends" not in service.value:
            return service
        extends = service.value["extends"]
        path = ("services", name, "extends")
        problems: list[SpecIssue] = []
        grammar.SERVICE.properties["extends"].check(extends, path, problems)
        if problems:
            self.loading.issues.extend(problems)
            return service
        if type(extends.value) is str:
            base_name, base_file = extends.value, None
        else:
            base_name = extends.value["service"].value
            base_file = extends.value["file"].value if "file" in extends.value else None
        chain = (*chain, (file, name))
        if base_file is not None:
            target = locations.join(self.scope.directory, base_file)
            candidates = self._services_of(target, extends, path)
        else:
            target, candidates = file, services
        if candidates is None:
            return service
        if (target, base_name) in chain:
            steps = [f"{step} in {where}" for where, step in [*chain, (target, base_name)]]
            raise SpecError([issue(f"extends cycle: {' → '.join(steps)}", node=extends, path=path)])
        if len(chain) > _EXTENDS_LIMIT:
            message = f"more than {_EXTENDS_LIMIT} services extend each other in a row"
            raise SpecError([issue(message, node=extends, path=path)])
        if base_name not in candidates:
            self.loading.issues.append(
                issue(
                    f'cannot extend "{base_name}": no such service in {target}',
                    node=extends,
                    path=path,
                    hint=schema.suggest(base_name, candidates),
                )
            )
            return service
        base = self.resolve(target, base_name, candidates, chain)
        if type(base.value) is not dict:
            return service
        self.loading.budget.spend(base.size(), extends, path)
        base = base.copy()
        resets.apply(Node({"services": Node({name: base})}), self.document.resets)
        merged = merge.merge(base, service, self.loading.issues, ("services", name))
        merged = Node(dict(merged.value), service.mark, service.key_mark)
        merged.value.pop("extends", None)
        services[name] = merged
        return merged

    def _services_of(self, file: str, asked_at: Node, path: Path) -> dict[str, Node] | None:
        if file not in self.bases:
            self.loading.reader.read(file, asked_at=asked_at, attribute=path)
            directory = posixpath.dirname(file)
            inner = replace(self.scope, directory=directory, plain=True)
            tree = _file(self.loading, inner, file, Node({}))
            # Paths of the other file are relative to it, those of this one to the project.
            relative = posixpath.relpath(directory, self.scope.directory)
            locations.resolve(tree, self.loading.resolver(relative), self.loading.issues)
            services = tree.value.get("services")
            usable = services is not None and type(services.value) is dict
            self.bases[file] = dict(services.value) if usable else None
        found = self.bases[file]
        if found is None:
            self.loading.issues.append(
                issue(f"{file} has no services to extend", node=asked_at, path=path)
            )
        return found
