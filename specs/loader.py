"""Loads a project: finds its files, reads them, runs the stages, returns frozen models.

The only module of the package that reads files. What it has consulted — every file and every
variable, as digests — comes back with the project, so that a caller can tell later, without
this package, whether a load would give the same.
"""

from __future__ import annotations

import hashlib
import os
import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specs import (
    binding,
    consistency,
    discovery,
    dotenv,
    environment,
    normalise,
    selection,
    templates,
)
from specs.assembly import Loading, Scope, assemble
from specs.errors import SpecError, SpecIssue
from specs.project import Config, Project, Secret
from specs.source import Node, Source, issue, parse

_SIZE_LIMIT = 16 * 2**20
_FILE_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What to load, and what of it.

    `files`, `project_directory`, `env_files` and `value_files` may be relative to `cwd`; `-` in
    `files` is `stdin`. `environ` is the whole of the environment: no other variable is seen.
    `services` also enables the profiles of the services that it names.
    """

    files: tuple[str, ...] = ()
    project_directory: str | None = None
    project_name: str | None = None
    profiles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    environ: Mapping[str, str]
    cwd: Path
    stdin: str | None = None
    value_files: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    interpolate: bool = True
    resolve_paths: bool = True
    resolve_environment: bool = True
    check_consistency: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a load depended on, each as the sha256 in hex of its content, None if absent."""

    files: Mapping[str, str | None]
    variables: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedProject:
    """A project, what there is to warn of, and what it was made from.

    `environment` holds the variables that the load saw (the environment and env files).
    `rendered` holds the text that each template made, by path.
    """

    project: Project
    warnings: tuple[SpecIssue, ...]
    inputs: Inputs
    environment: Mapping[str, str] = field(repr=False)
    rendered: Mapping[str, str] = field(repr=False)


class _Files:
    """Reads files and variables, and remembers what was asked for."""

    def __init__(self, options: LoadOptions) -> None:
        self.options = options
        self.digests: dict[str, str | None] = {}
        self.names: set[str] = set()
        self.sources: dict[str, Source] = {}
        self.values: Mapping[str, Any] | None = None

    def absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.options.cwd, path))

    def is_file(self, path: str) -> bool:
        if os.path.exists(path) and not os.path.isdir(path):
            return True
        self.digests.setdefault(path, None)
        return False

    def load(self, path: str) -> bytes | None:
        """A file's bytes, None if there is none. Raises OSError."""
        try:
            with open(path, "rb") as file:
                content = file.read(_SIZE_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            self.digests[path] = None
            return None
        if len(content) > _SIZE_LIMIT:
            raise OSError(27, "larger than 16 MiB", path)
        self.digests[path] = hashlib.sha256(content).hexdigest()
        return content

    def source(self, path: str) -> Source | None:
        """A text file, None if there is none. Raises SpecError."""
        try:
            content = self.load(path)
            return Source(path, content.decode("utf-8")) if content is not None else None
        except UnicodeDecodeError as exc:
            line = exc.object.count(b"\n", 0, exc.start) + 1
            message = f"byte {exc.object[exc.start]:#04x} is not UTF-8"
            raise SpecError([SpecIssue(message=message, file=path, line=line, column=1)]) from exc
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            message = f"cannot read the file: {(reason or str(exc)).lower()}"
            raise SpecError([SpecIssue(message=message, file=path)]) from exc

    def read_optional(self, path: str) -> Source | None:
        return self.source(self.absolute(path))

    def read(
        self, path: str, *, asked_at: Node | None = None, attribute: tuple[str | int, ...] = ()
    ) -> Source:
        if path in self.sources:
            return self.sources[path]
        if len(self.sources) >= _FILE_LIMIT:
            raise SpecError([issue(f"more than {_FILE_LIMIT} files", node=asked_at)])
        if path == discovery.STDIN:
            text = self.options.stdin or ""
            self.digests[path] = hashlib.sha256(text.encode()).hexdigest()
            source: Source | None = Source("<stdin>", text)
        else:
            source = self.source(path)
        if source is None:
            message = f"file {path} not found" if asked_at is not None else "no such file"
            found = issue(message, node=asked_at, path=attribute)
            if asked_at is None:
                found = SpecIssue(message=message, file=path)
            raise SpecError([found])
        source.text = source.text.removeprefix("\ufeff")
        if templates.is_template(path):
            source = templates.RenderedSource(source, self.template_values())
        self.sources[path] = source
        return source

    def template_values(self) -> Mapping[str, Any]:
        """The values for templates: files in order, then single settings."""
        if self.values is None:
            values: dict[str, Any] = {}
            for name in self.options.value_files:
                source = self.read(self.absolute(name))
                for document in parse(source):
                    plain = document.root.plain() if document.root is not None else {}
                    if not isinstance(plain, dict):
                        raise SpecError([issue("values must be a mapping", node=document.root)])
                    values = templates.overlay(values, plain)
            settings = templates.parse_settings(self.options.settings)
            self.values = templates.overlay(values, settings)
        return self.values

    def environment_of(
        self, directory: str, env_files: list[str] | None, environment: Mapping[str, str]
    ) -> Mapping[str, str]:
        """`environment` completed by env files; what it already has stays."""
        if env_files is None:
            default = os.path.join(directory, ".env")
            env_files = [default] if self.is_file(default) else []

        def lookup(name: str) -> str | None:
            self.note(name)
            return environment.get(name)

        values: dict[str, str] = {}
        for path in env_files:
            source = self.source(path)
            if source is None:
                raise SpecError([SpecIssue(message="env file not found", file=path)])
            values = dotenv.parse(source, lookup, values)
        for name in values:
            self.note(name)
        return {**values, **environment}

    def note(self, name: str) -> None:
        self.names.add(name)

    def inputs(self) -> Inputs:
        variables: dict[str, str | None] = {}
        for name in sorted(self.names):
            value = self.options.environ.get(name)
            variables[name] = (
                hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
                if value is not None
                else None
            )
        return Inputs(files=dict(sorted(self.digests.items())), variables=variables)


@dataclass(slots=True, kw_only=True)
class _Found:
    """What discovery came to."""

    files: list[str]
    directory: str
    environment: Mapping[str, str]
    profiles: tuple[str, ...]


def load_project(options: LoadOptions) -> LoadedProject:
    """The project that `options` describe.

    Raises SpecError with everything that is wrong in the first stage that found anything.
    """
    files = _Files(options)
    loading, found, tree = _assemble(options, files)
    name = _project_name(options, files, found, tree)
    lookup = _lookup(files, found.environment)
    normalise.normalise(tree, name, lookup)
    if options.resolve_environment:
        _resolve_environments(tree, files, lookup, loading.issues)
    loading.settle()
    project = binding.bind(
        tree,
        name=name,
        working_dir=found.directory,
        config_files=tuple(found.files),
    )
    project = selection.with_profiles(project, found.profiles)
    if options.services:
        project = selection.with_services(project, options.services)
    if options.check_consistency:
        loading.issues.extend(consistency.check(project, tree))
        loading.settle()
    project = selection.without_unused(project)
    project = _with_digests(project, files)
    return LoadedProject(
        project=project,
        warnings=tuple(loading.warnings),
        inputs=files.inputs(),
        environment={**found.environment, "COMPOSE_PROJECT_NAME": name},
        rendered={
            path: source.text
            for path, source in files.sources.items()
            if isinstance(source, templates.RenderedSource)
        },
    )


def load_model(options: LoadOptions) -> dict[str, Any]:
    """The merged tree as plain data, without the models' checks: for output that keeps `${…}`.

    Raises SpecError.
    """
    files = _Files(options)
    _, found, tree = _assemble(options, files)
    name = _project_name(options, files, found, tree)
    normalise.normalise(tree, name, _lookup(files, found.environment))
    plain: dict[str, Any] = {**tree.plain(), "name": name}
    return plain


def _assemble(options: LoadOptions, files: _Files) -> tuple[Loading, _Found, Node]:
    loading = Loading(
        reader=files,
        home=options.environ.get("HOME", ""),
        interpolate=options.interpolate,
        resolve_paths=options.resolve_paths,
    )
    found = _discover(options, files, loading.warnings)
    environ = dict(found.environment)
    environ.setdefault("COMPOSE_PROJECT_NAME", _early_name(options, files, found))
    scope = Scope(directory=found.directory, base=found.directory, environment=environ)
    tree = assemble(loading, scope, found.files)
    if not tree.value:
        raise SpecError([SpecIssue(message="the spec is empty", file=found.files[0])])
    return loading, found, tree


def _lookup(files: _Files, environ: Mapping[str, str]) -> normalise.Lookup:
    def lookup(name: str) -> str | None:
        files.note(name)
        return environ.get(name)

    return lookup


def _discover(options: LoadOptions, files: _Files, warnings: list[SpecIssue]) -> _Found:
    cwd = str(options.cwd)
    environ: Mapping[str, str] = {"PWD": cwd, **options.environ}
    directory = files.absolute(options.project_directory) if options.project_directory else None
    specs = [name if name == discovery.STDIN else files.absolute(name) for name in options.files]
    for name in (
        "COMPOSE_FILE",
        "COMPOSE_PATH_SEPARATOR",
        "COMPOSE_PROFILES",
        "COMPOSE_PROJECT_NAME",
        "COMPOSE_ENV_FILES",
        "COMPOSE_DISABLE_ENV_FILE",
        "HOME",
    ):
        files.note(name)
    named = options.env_files or tuple(
        name for name in environ.get("COMPOSE_ENV_FILES", "").split(",") if name
    )
    env_files: list[str] | None = [files.absolute(name) for name in named] or None
    if env_files is None and discovery.is_true(environ.get("COMPOSE_DISABLE_ENV_FILE")):
        env_files = []
    first = directory or _directory_of(specs) or cwd
    environ = files.environment_of(first, env_files, environ)
    if not specs:
        specs = discovery.files_from_environment(environ, cwd)
    if not specs:
        specs = discovery.find_files(directory or cwd, files, warnings)
    if not specs:
        raise SpecError(
            [SpecIssue(message=f"no spec found in {directory or cwd} or above")],
            hint=f"write a {discovery.FILE_NAMES[0]}, or name a file with -f",
        )
    project_directory = directory or _directory_of(specs) or cwd
    if env_files is None and project_directory != first:
        environ = files.environment_of(project_directory, None, environ)
    profiles = options.profiles or tuple(
        profile.strip() for profile in environ.get("COMPOSE_PROFILES", "").split(",")
    )
    return _Found(files=specs, directory=project_directory, environment=environ, profiles=profiles)


def _directory_of(specs: list[str]) -> str | None:
    for path in specs:
        if path != discovery.STDIN:
            return os.path.dirname(path)
    return None


def _explicit_name(options: LoadOptions, found: _Found) -> str | None:
    name = options.project_name or found.environment.get("COMPOSE_PROJECT_NAME")
    return discovery.check_name(name) if name else None


def _early_name(options: LoadOptions, files: _Files, found: _Found) -> str:
    """The project's name before its files are merged, for `${COMPOSE_PROJECT_NAME}`."""
    explicit = _explicit_name(options, found)
    if explicit:
        return explicit
    name = ""
    for path in found.files:
        for document in parse(files.read(path)):
            root = document.root
            node = root.value.get("name") if root and type(root.value) is dict else None
            if node is not None and type(node.value) is str and node.value:
                name = node.value
    return _name_from_spec(options, files, found, name) if name else _name_from_directory(found)


def _name_from_spec(options: LoadOptions, files: _Files, found: _Found, template: str) -> str:
    from specs.interpolation import Interpolator, TemplateError

    if not options.interpolate:
        return template
    try:
        text = Interpolator(_lookup(files, found.environment)).substitute(template)
    except TemplateError as exc:
        raise SpecError([SpecIssue(message=str(exc), path="name", hint=exc.hint)]) from exc
    return discovery.normalise_name(text)


def _name_from_directory(found: _Found) -> str:
    return discovery.normalise_name(os.path.basename(found.directory))


def _project_name(options: LoadOptions, files: _Files, found: _Found, tree: Node) -> str:
    name = _early_name(options, files, found)
    tree.value.pop("name", None)
    if not name:
        raise SpecError(
            [SpecIssue(message="the project has no name")],
            hint="give one with -p, COMPOSE_PROJECT_NAME or name: in the spec",
        )
    return name


def _resolve_environments(
    tree: Node, files: _Files, lookup: normalise.Lookup, issues: list[SpecIssue]
) -> None:
    services = tree.value.get("services")
    for name, service in services.value.items() if services is not None else ():
        if type(service.value) is dict:
            path = ("services", name)
            environment.resolve_environment(service, lookup, files, path, issues)
            environment.resolve_labels(service, files, path, issues)


def _with_digests(project: Project, files: _Files) -> Project:
    def digest(item: Config | Secret) -> str | None:
        if item.external:
            return None
        if item.file:
            try:
                content = files.load(item.file)
            except OSError:
                return None  # a directory or an unreadable file: found out when it is mounted
        else:
            content = item.content.encode() if item.content is not None else None
        return "sha256:" + hashlib.sha256(content).hexdigest() if content is not None else None

    return project.model_copy(
        update={
            section: {
                name: item.model_copy(update={"digest": digest(item)})
                for name, item in getattr(project, section).items()
            }
            for section in ("configs", "secrets")
        }
    )
