"""Loads a project: finds its files, runs the stages over them, returns frozen models.

`load_project` is the way in. Files are read through `specs.reader`, the one module of the
package that touches the file system.
"""

from __future__ import annotations

import contextlib
import hashlib
import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from specs import (
    binding,
    consistency,
    discovery,
    environment,
    locations,
    normalise,
    selection,
    templates,
    unsupported,
)
from specs.assembly import Loading, Scope, assemble
from specs.errors import SpecError, SpecIssue
from specs.interpolation import Interpolator, TemplateError
from specs.project import Config, Project, Secret
from specs.reader import Files, Inputs, Layer, LoadOptions
from specs.source import Node, Source

__all__ = [
    "Inputs",
    "Layer",
    "LoadOptions",
    "LoadedProject",
    "Trace",
    "load_model",
    "load_project",
    "trace",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedProject:
    """A project, what there is to warn of, and what it was made from.

    `unsupported` lists the attributes of enabled services that nothing acts on.
    `environment` holds the variables that the load saw (the environment and env files).
    `rendered` holds the text that each template made, by path.
    """

    project: Project
    warnings: tuple[SpecIssue, ...]
    unsupported: tuple[SpecIssue, ...]
    inputs: Inputs
    environment: Mapping[str, str] = field(repr=False)
    rendered: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a load read: its env files in the order of reading, and the texts of its specs."""

    layers: tuple[Layer, ...]
    sources: tuple[Source, ...]


@dataclass(slots=True, kw_only=True)
class _Found:
    """What discovery came to."""

    files: list[str]
    directory: str
    environment: Mapping[str, str]
    profiles: tuple[str, ...]
    name: str = ""


def load_project(options: LoadOptions) -> LoadedProject:
    """The project that `options` describe.

    Raises SpecError with everything that is wrong in the first stage that found anything.
    """
    files = Files(options)
    loading, found, tree = _assemble(options, files)
    name = found.name
    lookup = _lookup(files, found.environment)
    if options.normalise:
        normalise.normalise(tree, name, lookup)
    if options.confined_to:
        within = options.confined_to[0]
        loading.issues.extend(locations.check_links(tree, files.allows, within))
        loading.settle()
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
    if not options.all_resources:
        project = selection.without_unused(project)
    project = _with_digests(project, files)
    return LoadedProject(
        project=project,
        warnings=(*loading.warnings, *_hidden(files)),
        unsupported=tuple(_unsupported(tree, project)),
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
    files = Files(options)
    _, found, tree = _assemble(options, files)
    if options.normalise:
        normalise.normalise(tree, found.name, _lookup(files, found.environment))
    plain: dict[str, Any] = {**tree.plain(), "name": found.name}
    return plain


def trace(options: LoadOptions) -> Trace:
    """What a load with these options reads, as far as it comes: faults end it early."""
    files = Files(options)
    with contextlib.suppress(SpecError):
        _assemble(options, files)
    return Trace(layers=tuple(files.layers), sources=tuple(files.sources.values()))


def _assemble(options: LoadOptions, files: Files) -> tuple[Loading, _Found, Node]:
    loading = Loading(
        reader=files,
        home=options.environ.get("HOME", ""),
        within=options.confined_to[0] if options.confined_to else None,
        interpolate=options.interpolate,
        resolve_paths=options.resolve_paths,
    )
    found = _discover(options, files, loading.warnings)
    name = _project_name(options, files, found)
    found.name = name or ""
    environ = {**found.environment, "COMPOSE_PROJECT_NAME": found.name}
    scope = Scope(directory=found.directory, base=found.directory, environment=environ)
    tree = assemble(loading, scope, found.files)
    tree.value.pop("name", None)
    if not tree.value:
        raise SpecError([SpecIssue(message="the spec is empty", file=files.shown(found.files[0]))])
    if not found.name:
        raise SpecError(
            [SpecIssue(message="the project has no name")],
            hint="give one with -p, COMPOSE_PROJECT_NAME or name: in the spec",
        )
    return loading, found, tree


def _lookup(files: Files, environ: Mapping[str, str]) -> normalise.Lookup:
    def lookup(name: str) -> str | None:
        files.note(name)
        return environ.get(name)

    return lookup


def _discover(options: LoadOptions, files: Files, warnings: list[SpecIssue]) -> _Found:
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


def _hidden(files: Files) -> list[SpecIssue]:
    """What an env file that somebody has named sets in vain, as the environment says otherwise.

    It wins in Compose, too; who goes back to older values with `--env-file` and sees nothing
    happen has no other way to find out. Values are not shown: they may be secret.
    """
    named = {files.absolute(name) for name in files.options.env_files}
    return [
        SpecIssue(
            message=f"{name} is set otherwise in the environment, which goes before this file",
            file=files.shown(layer.origin),
            line=layer.lines.get(name, 0),
            column=1,
            hint=f"unset {name}",
        )
        for layer in files.layers
        if layer.origin in named
        for name, value in sorted(layer.values.items())
        if name in files.names and files.options.environ.get(name, value) != value
    ]


def _directory_of(specs: list[str]) -> str | None:
    for path in specs:
        if path != discovery.STDIN:
            return os.path.dirname(path)
    return None


def _explicit_name(options: LoadOptions, found: _Found) -> str | None:
    name = options.project_name or found.environment.get("COMPOSE_PROJECT_NAME")
    return discovery.check_name(name) if name else None


def _project_name(options: LoadOptions, files: Files, found: _Found) -> str:
    """The project's name, found before its files are merged: they may refer to it."""
    explicit = _explicit_name(options, found)
    if explicit:
        return explicit
    name = ""
    for path in found.files:
        for document in files.peek(path):
            root = document.root
            node = root.value.get("name") if root and type(root.value) is dict else None
            if node is not None and type(node.value) is str and node.value:
                name = node.value
    return (
        _name_from_spec(options, files, found, name)
        if name
        else _name_from_directory(options, found)
    )


def _name_from_spec(options: LoadOptions, files: Files, found: _Found, template: str) -> str:
    if not options.interpolate:
        return template
    try:
        text = Interpolator(_lookup(files, found.environment)).substitute(template)
    except TemplateError as exc:
        raise SpecError([SpecIssue(message=str(exc), path="name", hint=exc.hint)]) from exc
    return discovery.normalise_name(text)


def _name_from_directory(options: LoadOptions, found: _Found) -> str:
    return discovery.normalise_name(options.default_name or os.path.basename(found.directory))


def _resolve_environments(
    tree: Node, files: Files, lookup: normalise.Lookup, issues: list[SpecIssue]
) -> None:
    services = tree.value.get("services")
    for name, service in services.value.items() if services is not None else ():
        if type(service.value) is dict:
            path = ("services", name)
            environment.resolve_environment(service, lookup, files, path, issues)
            environment.resolve_labels(service, files, path, issues)


def _unsupported(tree: Node, project: Project) -> list[SpecIssue]:
    """What nothing acts on, of the services and resources that are part of the project."""
    used = {
        section: Node({k: v for k, v in tree.value[section].value.items() if k in entries})
        for section, entries in (
            ("services", project.services),
            ("secrets", project.secrets),
            ("configs", project.configs),
            ("models", project.models),
        )
        if section in tree.value and type(tree.value[section].value) is dict
    }
    return unsupported.find(Node(used))


def _with_digests(project: Project, files: Files) -> Project:
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
