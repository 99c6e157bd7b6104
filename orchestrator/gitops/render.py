"""From a commit's files to projects: the specs are loaded, confined to the checkout.

What is read is read from the immutable checkout; what a container binds, and what a person is
shown, is named by the stable tree. Content stands in the project as digests, so that a plan
recreates what a commit changes, and nothing else:

- a bind mount gets the digest of what the commit has at its source;
- an image that is built gets a tag that derives from its build instructions and context, so that
  a change is an image that is not there yet, and going back is one that is.

Interpolation sees the variables that the source gives or names, and none of the daemon's others.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import logging
import os.path
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.gitops import decrypt
from orchestrator.gitops.checkout import DIRECTORY, Checkout
from orchestrator.gitops.errors import (
    GitOpsError,
    LfsPointer,
    RenderFailed,
    SubmodulesUnsupported,
)
from orchestrator.gitops.source import GitSource
from orchestrator.gitops.templating import Templates
from orchestrator.gitops.vault import Vault
from specs import canonical, discovery
from specs.build import Build
from specs.errors import SpecError, SpecIssue
from specs.loader import LoadedProject, LoadOptions, load_project
from specs.locations import context_path, is_within
from specs.mounts import BindOptions, ServiceVolume
from specs.project import Project, Service, Volume
from specs.reader import Allowance

_log = logging.getLogger(__name__)

ABSENT = "not in the repository"
_TAG_LENGTH = 16
_LEAVES = "leads out of the repository"
_TOO_MUCH = "the files that make up the stacks have more than"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """What all stacks of a commit share."""

    templates: Templates
    allowance: Allowance


def render(
    source: GitSource, checkout: Checkout, environ: Mapping[str, str], vault: Vault
) -> list[LoadedProject]:
    """The projects that `source` has in this checkout, in the order of their paths.

    `environ` is the daemon's environment, of which only what the source names is seen. `vault`
    takes what is decrypted. Raises GitOpsError.
    """
    bounds = _Bounds(templates=Templates(), allowance=Allowance(source.limits.text))
    projects = [
        _render_one(source, checkout, environ, vault, path, bounds)
        for path in stack_paths(source, checkout)
    ]
    names: dict[str, str] = {}
    for loaded in projects:
        place = loaded.project.config_files[0]
        other = names.setdefault(loaded.project.name, place)
        if other is not place:
            one, two = (path.removeprefix(f"{checkout.stable}/") for path in (other, place))
            raise RenderFailed(
                f"{one} and {two} are both project {loaded.project.name}",
                hint="give each of them a `name:` of its own",
            )
    return projects


def stack_paths(source: GitSource, checkout: Checkout) -> list[str]:
    """The stack files and directories that the source's paths stand for. Raises RenderFailed."""
    found: dict[str, None] = {}
    for path in source.paths:
        if not any(char in path for char in "*?["):
            found[path] = None
            continue
        depth = path.count("/")
        matching = [
            name
            for name in checkout.entries
            if name.count("/") == depth and fnmatch.fnmatchcase(name, path)
            if checkout.entries[name].mode != DIRECTORY or _stack_file(checkout, name)
        ]
        if not matching:
            raise RenderFailed(f"nothing in {checkout.commit[:12]} matches {path}")
        found |= dict.fromkeys(sorted(matching))
    return list(found)


def _stack_file(checkout: Checkout, directory: str) -> str | None:
    for name in (*discovery.FILE_NAMES, *discovery.TEMPLATE_NAMES):
        path = os.path.normpath(os.path.join(directory, name))
        if path in checkout.entries:
            return path
    return None


def _render_one(
    source: GitSource,
    checkout: Checkout,
    environ: Mapping[str, str],
    vault: Vault,
    path: str,
    bounds: _Bounds,
) -> LoadedProject:
    options = _options(source, checkout, environ, path, bounds)
    try:
        loaded = load_project(options)
    except SpecError as exc:
        raise _explain(exc, source, checkout) from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        # Whatever nobody thought of is this commit's failure, and no reason to try it for ever.
        _log.exception("source %s: %s of %s", source.name, path, checkout.commit)
        raise RenderFailed(f"{path} cannot be read: {type(exc).__name__}: {exc}") from exc
    relative = _Relative(checkout)
    relative.check(loaded)
    decrypt.refuse_elsewhere(checkout, loaded.project, loaded.inputs.files)
    project = decrypt.open_secrets(source, checkout, loaded.project, vault)
    return dataclasses.replace(loaded, project=relative.project(project))


def _options(
    source: GitSource,
    checkout: Checkout,
    environ: Mapping[str, str],
    path: str,
    bounds: _Bounds,
) -> LoadOptions:
    entry = checkout.entries.get(path)
    files: tuple[str, ...]
    if path == "." or (entry is not None and entry.mode == DIRECTORY):
        directory = path
        found = _stack_file(checkout, path)
        if found is None:
            raise RenderFailed(
                f"{path} has no stack in {checkout.commit[:12]}",
                hint=f"put a {discovery.FILE_NAMES[0]} there, or set the source's paths",
            )
        # Naming no file takes the override file, too.
        files = ()
    elif entry is not None:
        directory = os.path.dirname(path) or "."
        files, found = (path,), path
    elif any(is_within(path, (module,)) for module in checkout.submodules):
        raise SubmodulesUnsupported(_first_above(checkout.submodules, path), "the source")
    else:
        raise RenderFailed(
            f"{path} is not in {checkout.commit[:12]}", hint="look at the source's paths"
        )
    if found in checkout.lfs:
        raise LfsPointer(found, "the source")
    home = str(checkout.path)
    outer = [name for name in source.values_files if name.startswith("/")]
    return LoadOptions(
        files=files,
        project_directory=os.path.normpath(os.path.join(home, directory)),
        profiles=source.profiles,
        environ=_environment(source, environ),
        cwd=checkout.path,
        value_files=source.values_files,
        default_name=source.name if directory == "." else "",
        confined_to=(home, *source.host_paths, *outer),
        render=bounds.templates.render,
        allowance=bounds.allowance,
    )


def _environment(source: GitSource, environ: Mapping[str, str]) -> dict[str, str]:
    variables = {}
    for name, value in source.environment.items():
        given = environ.get(name) if value is None else value
        if given is not None:
            variables[name] = given
    return variables


def _first_above(places: Iterable[str], path: str) -> str:
    return next(place for place in places if is_within(path, (place,)))


def _explain(error: SpecError, source: GitSource, checkout: Checkout) -> GitOpsError:
    """A spec's faults, as of the repository; those that LFS or a submodule explains, as such."""
    prefix = f"{checkout.path}/"
    issues = tuple(
        dataclasses.replace(
            issue,
            message=issue.message.replace(prefix, "").replace(prefix[:-1], "the repository"),
            file=issue.file.removeprefix(prefix) if issue.file else None,
        )
        for issue in error.issues
    )
    for issue in issues:
        if issue.file in checkout.lfs:
            return LfsPointer(issue.file, "the source")
        # Encrypted by age, nothing of it is a line that could be read.
        if issue.file and (refused := decrypt.refusal(checkout, issue.file)):
            return refused
        for module in checkout.submodules:
            if f"{module}/" in issue.message:
                return SubmodulesUnsupported(module, issue.location or "the source")
    hint = error.hint
    if any(_TOO_MUCH in issue.message for issue in issues):
        hint = "raise limits.text if this is meant"
    if any(issue.message.startswith("/") and _LEAVES in issue.message for issue in issues):
        hint = "files of this host can be read where the source's hostPaths allow it"
    return RenderFailed(str(SpecError(issues, hint=hint)), issues=issues, hint=hint)


class _Relative:
    """Takes a project from the immutable checkout to the stable tree."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.home = str(checkout.path)
        self.stable = str(checkout.stable)

    def inside(self, path: str) -> str | None:
        """The path in the repository, links followed; None where it is the host's."""
        if not is_within(path, (self.home,)):
            return None
        return os.path.relpath(os.path.realpath(path), self.home)

    def moved(self, path: str) -> str:
        """The same place in the stable tree."""
        inside = self.inside(path)
        return path if inside is None else os.path.normpath(os.path.join(self.stable, inside))

    def check(self, loaded: LoadedProject) -> None:
        """Raises LfsPointer or SubmodulesUnsupported for what the project uses and is not there."""
        for path in loaded.inputs.files:
            self._check_use(path, "the stack")
        project = loaded.project
        for name, service in project.services.items():
            for mount in service.volumes:
                if mount.type == "bind":
                    self._check_use(mount.source, f"service {name}")
            if service.build is not None:
                for place in _contexts(service.build):
                    self._check_use(place, f"the build of service {name}")
        for kind in ("configs", "secrets"):
            for name, item in getattr(project, kind).items():
                if item.file:
                    self._check_use(item.file, f"{kind.removesuffix('s')} {name}")

    def _check_use(self, path: str, user: str) -> None:
        inside = self.inside(path)
        if inside is None:
            return
        for kind, places in (
            (LfsPointer, self.checkout.lfs),
            (SubmodulesUnsupported, self.checkout.submodules),
        ):
            for place in places:
                if inside == "." or is_within(place, (inside,)) or is_within(inside, (place,)):
                    raise kind(place, user)

    def project(self, project: Project) -> Project:
        """The project with stable paths and digests of what it takes from the checkout."""
        tags = self._tags(project)
        change = self._service
        return project.model_copy(
            update={
                "working_dir": self.moved(project.working_dir),
                "config_files": tuple(self.moved(path) for path in project.config_files),
                "services": {
                    name: change(service, tags.get(_image(project, name, service)))
                    for name, service in project.services.items()
                },
                "disabled_services": {
                    name: change(service, tags.get(_image(project, name, service)))
                    for name, service in project.disabled_services.items()
                },
                "volumes": {name: self._volume(volume) for name, volume in project.volumes.items()},
            }
        )

    def _service(self, service: Service, image: str | None) -> Service:
        changes: dict[str, Any] = {
            "volumes": tuple(self._mount(mount) for mount in service.volumes)
        }
        if image is not None:
            changes["image"] = image
        return service.model_copy(update=changes)

    def _mount(self, mount: ServiceVolume) -> ServiceVolume:
        inside = self.inside(mount.source) if mount.type == "bind" else None
        if inside is None:
            return mount
        options = (mount.bind or BindOptions()).model_copy(
            update={
                "digest": self.checkout.digest(inside) or ABSENT,
                # Containers write into the tree, and may put links there.
                "beneath": self.stable,
            }
        )
        return mount.model_copy(update={"source": self.moved(mount.source), "bind": options})

    def _volume(self, volume: Volume) -> Volume:
        device = volume.driver_opts.get("device", "")
        if self.inside(device) is None:
            return volume
        options = {**volume.driver_opts, "device": self.moved(device)}
        return volume.model_copy(update={"driver_opts": options})

    def _tags(self, project: Project) -> dict[str, str]:
        """For each reference that is built from the checkout, one that says from what."""
        tags = {}
        for name, service in project.services.items():
            if service.build is None:
                continue
            digest = self._build_digest(project, service.build)
            if digest is not None:
                reference = _image(project, name, service)
                tags[reference] = _tagged(reference, digest)
        return tags

    def _build_digest(self, project: Project, build: Build) -> str | None:
        places = _contexts(build)
        if build.dockerfile and self.inside(build.context) is not None:
            places.append(os.path.normpath(os.path.join(build.context, build.dockerfile)))
        inside = [self.inside(place) for place in places]
        if all(place is None for place in inside):
            return None
        digests = [self.checkout.digest(place) if place is not None else None for place in inside]
        plain = build.model_dump(mode="json", exclude_defaults=True)
        text = canonical.encode(plain).decode("utf-8", "surrogatepass").replace(self.home, "")
        return canonical.digest([text, digests])


def _contexts(build: Build) -> list[str]:
    """The contexts of a build; the directories of layouts among them."""
    return [context_path(place) for place in (build.context, *build.additional_contexts.values())]


def _image(project: Project, name: str, service: Service) -> str:
    return service.image or f"{project.name}-{name}"


def _tagged(reference: str, digest: str) -> str:
    short = digest.removeprefix("sha256:")[:_TAG_LENGTH]
    name, _, tag = reference.partition("@")[0].rpartition(":")
    if not name or "/" in tag:
        return f"{reference}:git-{short}"
    return f"{name}:{tag}-git-{short}"


def issues_of(error: GitOpsError) -> tuple[SpecIssue, ...]:
    """The faults with their places, where an error has any."""
    return error.issues if isinstance(error, RenderFailed) else ()
