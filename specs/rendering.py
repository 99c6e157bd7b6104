"""A project as `config` prints it: Compose's own YAML and JSON, which loads to the same project.

Attributes stand in Compose's order, those without a value are left out, durations and sizes are
written as Compose writes them, `$` is doubled. Secrets' values are never printed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from specs import golang, units
from specs.build import Build, Ulimit
from specs.interpolation import Variable
from specs.interpolation import variables as variables_of
from specs.lifecycle import Dependency
from specs.mounts import Octal
from specs.project import Project, Service
from specs.resources import FileObject, Secret
from specs.service import Port, ServiceNetwork
from specs.values import Duration, Model, Single, Size

_ALWAYS: Mapping[type[Model], frozenset[str]] = {
    Dependency: frozenset({"condition", "required"}),
    Port: frozenset({"mode", "protocol", "target"}),
}
_JSON_ALWAYS = frozenset({"command", "entrypoint", "ipam", "resources", "placement"})
_SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")


def render_yaml(project: Project) -> str:
    """The project as `config` prints it in YAML."""
    from specs import emitter

    return emitter.emit(escape(compose_form(project)))


def render_json(project: Project) -> str:
    """The project as `config --format json` prints it."""
    return dump_json(escape(compose_form(project, json_form=True)))


def render_model(model: Mapping[str, Any], *, form: str) -> str:
    """A merged tree (`load_model`) as YAML or JSON; its `${…}` stay as they are."""
    if form == "json":
        return dump_json(model)
    from specs import emitter

    return emitter.emit(_sorted(model))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=golang.natural_order)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def dump_json(value: Any) -> str:
    """JSON in two-space indentation, keys sorted, numbers as Go prints them."""
    return "".join(_json(value, "")) + "\n"


def _json(value: Any, indent: str) -> Iterator[str]:
    inner = indent + "  "
    if isinstance(value, Mapping):
        opening = "{\n"
        for key in sorted(value):
            yield f"{opening}{inner}{json.dumps(key, ensure_ascii=False)}: "
            yield from _json(value[key], inner)
            opening = ",\n"
        yield "{}" if opening == "{\n" else f"\n{indent}}}"
    elif isinstance(value, list | tuple):
        opening = "[\n"
        for item in value:
            yield opening + inner
            yield from _json(item, inner)
            opening = ",\n"
        yield "[]" if opening == "[\n" else f"\n{indent}]"
    elif isinstance(value, float):
        yield golang.json_number(value)
    else:
        yield json.dumps(value, ensure_ascii=False)


def escape(value: Any) -> Any:
    """`value` with every `$` doubled, so that it is literal when it is loaded again.

    Keys stay as they are: variables are not looked for in them.
    """
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escape(item) for item in value]
    return value


def compose_form(project: Project, *, json_form: bool = False) -> dict[str, Any]:
    """The project in Compose's long form, as plain data.

    `json_form` is the shape of Compose's JSON: a few attributes are there even without a value,
    and `x-*` keys are there at the top only.
    """
    document: dict[str, Any] = {"name": project.name}
    for section in _SECTIONS:
        entries = getattr(project, section)
        if entries or section == "services":
            document[section] = {
                name: _model(entries[name], json_form)
                for name in sorted(entries, key=golang.natural_order)
            }
    document.update(_sorted(project.extensions))
    return document


_Formatter = Callable[[Any], Any]


@functools.cache
def _fields(kind: type[Model]) -> tuple[tuple[str, Any, _Formatter | None], ...]:
    fields = []
    for name, info in kind.model_fields.items():
        if name != "extensions":
            markers = {*info.metadata, *_markers(info.annotation)}
            fields.append((name, info.default, _formatter(markers)))
    return tuple(fields)


def _markers(annotation: Any) -> Iterator[Any]:
    for item in typing.get_args(annotation):
        if isinstance(item, type) and item in (Size, Duration, Single, Octal):
            yield item
        yield from _markers(item)
    yield from getattr(annotation, "__metadata__", ())


def _formatter(markers: Iterable[Any]) -> _Formatter | None:
    for marker in markers:
        if marker is Size:
            return str
        if marker is Duration:
            return units.format_duration
        if marker is Single:
            return _number
        if marker is Octal:
            return lambda mode: f"{mode:04o}"
    return None


def _number(value: float) -> int | float:
    single = golang.float32(value)
    return int(single) if single.is_integer() else single


def _model(model: Model, json_form: bool) -> dict[str, Any]:
    kind = type(model)
    always = _ALWAYS.get(kind, frozenset())
    form: dict[str, Any] = {}
    for name, default, formatter in _fields(kind):
        value = getattr(model, name)
        if value == default and type(value) is type(default) and name not in always:
            if json_form and name in _JSON_ALWAYS:
                form[name] = None if value is None else {}
            elif json_form and name == "exec":
                form[name] = {"command": None}
            continue
        special = _SPECIAL.get((kind, name))
        if special is not None:
            special(model, form)
        elif formatter is not None:
            form[name] = formatter(value)
        else:
            form[name] = _plain(value, json_form)
    if isinstance(model, FileObject):
        _content(model, form)
    if not json_form:
        form.update(_sorted(model.extensions))
    return form


def _plain(value: Any, json_form: bool) -> Any:
    if isinstance(value, Ulimit):
        return value.single or {"soft": value.soft, "hard": value.hard}
    if isinstance(value, ServiceNetwork):
        return _model(value, json_form) or None
    if isinstance(value, Model):
        return _model(value, json_form)
    if isinstance(value, dict):
        return {
            key: _plain(value[key], json_form) for key in sorted(value, key=golang.natural_order)
        }
    if isinstance(value, list | tuple):
        return [_plain(item, json_form) for item in value]
    return value


def _environment(model: Any, form: dict[str, Any]) -> None:
    # A bare key without a value is printed as null, as it stood in the file.
    merged = {**model.environment, **dict.fromkeys(model.unset_environment)}
    form["environment"] = {key: merged[key] for key in sorted(merged, key=golang.natural_order)}


def _content(model: FileObject, form: dict[str, Any]) -> None:
    form.pop("digest", None)
    if isinstance(model, Secret) or model.environment:
        form.pop("content", None)


def _hosts(model: Any, form: dict[str, Any]) -> None:
    form["extra_hosts"] = [
        f"{host}={address}"
        for host, addresses in sorted(model.extra_hosts.items())
        for address in addresses
    ]


def _ssh(model: Any, form: dict[str, Any]) -> None:
    form["ssh"] = [
        key if value is None else f"{key}={value}" for key, value in sorted(model.ssh.items())
    ]


_SPECIAL: Mapping[tuple[type[Model], str], Callable[[Any, dict[str, Any]], None]] = {
    (Service, "environment"): _environment,
    (Service, "unset_environment"): _environment,
    (Service, "extra_hosts"): _hosts,
    (Build, "extra_hosts"): _hosts,
    (Build, "ssh"): _ssh,
}


# The lists that `config` prints


def services(project: Project) -> list[str]:
    """The enabled services, dependencies first."""
    ordered: dict[str, None] = {}
    pending = sorted(project.services, reverse=True)
    opened: set[str] = set()
    while pending:
        name = pending[-1]
        if name in ordered or name not in project.services:
            pending.pop()
        elif name in opened:
            ordered[pending.pop()] = None
        else:
            opened.add(name)
            pending += sorted(project.services[name].depends_on, reverse=True)
    return list(ordered)


def volumes(project: Project) -> list[str]:
    """The named volumes that enabled services use."""
    return sorted(project.volumes)


def networks(project: Project) -> list[str]:
    """The networks that enabled services use."""
    return sorted(project.networks)


def models(project: Project) -> list[str]:
    """The references of the models that enabled services use (`ai/smollm2`), by name."""
    return [project.models[name].model or name for name in sorted(project.models)]


def images(project: Project) -> list[str]:
    """The images of the enabled services, by service; a built one without a name gets its own."""
    return [
        image_of(project.services[name], project.name, name) for name in sorted(project.services)
    ]


def image_of(service: Service, project: str, name: str) -> str:
    """The image reference that a service is run from: its own, or `<project>-<service>`."""
    return service.image or f"{project}-{name}"


def profiles(project: Project) -> list[str]:
    """Every profile that any service names, sorted."""
    every = [*project.services.values(), *project.disabled_services.values()]
    return sorted({profile for service in every for profile in service.profiles})


def hashes(project: Project) -> dict[str, str]:
    """A digest (hex) of each service's configuration, by name: what differs is recreated.

    Left out is what does not make a container another one: scale, dependencies, profiles,
    pull policy, and the build, which shows in the image.
    """
    from specs import canonical

    ignored = {"build", "pull_policy", "scale", "depends_on", "profiles"}
    found = {}
    for name, service in sorted(project.services.items()):
        document = service.model_dump(mode="json", exclude_defaults=True, exclude=ignored)
        if "deploy" in document:
            document["deploy"].pop("replicas", None)
        found[name] = hashlib.sha256(canonical.encode(document)).hexdigest()
    return found


def environment(variables: Mapping[str, str]) -> list[str]:
    """The variables that the load saw as `NAME=value` lines, sorted."""
    return [f"{name}={value}" for name, value in sorted(variables.items())]


def variables(model: Mapping[str, Any]) -> list[Variable]:
    """The variables that a merged but not interpolated tree (`load_model`) refers to, sorted.

    A variable with several uses is required if one of them is; the first default given counts.
    """
    found: dict[str, Variable] = {}
    for text in _strings(model):
        for variable in variables_of(text):
            known = found.get(variable.name)
            found[variable.name] = (
                variable
                if known is None
                else Variable(
                    name=variable.name,
                    default=known.default or variable.default,
                    alternate=known.alternate or variable.alternate,
                    required=known.required or variable.required,
                )
            )
    return [found[name] for name in sorted(found)]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from _strings(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def lock_image_digests(project: Project, resolve: Callable[[str], str]) -> str:
    """An override file that pins the images; `resolve` gives `name@sha256:…` for a reference."""
    from specs import emitter

    pinned = {
        name: {"image": resolve(service.image)}
        for name, service in sorted(project.services.items())
        if service.image
    }
    return emitter.emit({"services": escape(pinned)})


def with_image_digests(project: Project, resolve: Callable[[str], str]) -> Project:
    """The project with its images pinned; `resolve` gives `name@sha256:…` for a reference."""
    return project.model_copy(
        update={
            "services": {
                name: service.model_copy(update={"image": resolve(service.image)})
                if service.image
                else service
                for name, service in project.services.items()
            }
        }
    )


def variable_table(found: Iterable[Variable]) -> str:
    """Variables as the table that `config --variables` prints."""
    header = ("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE")
    rows = [
        header,
        *(
            (variable.name, str(variable.required).lower(), variable.default, variable.alternate)
            for variable in found
        ),
    ]
    # Columns are padded to 20 at least, and by 3 more than their longest cell.
    widths = [max(20, max(len(row[column]) for row in rows) + 3) for column in range(3)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) + "\n"
        for row in rows
    )
