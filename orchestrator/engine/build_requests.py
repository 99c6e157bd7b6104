"""A service's build section as the builder takes it: files read, repositories checked out,
agents at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from orchestrator.engine.contents import read_content
from orchestrator.engine.errors import EngineError
from orchestrator.engine.limits import ulimits
from orchestrator.planning import actions
from orchestrator.planning.blueprint import image_reference
from runtime.build.agents import agent
from runtime.build.checkouts import checked_out, is_repository
from runtime.build.downloads import without_credentials
from runtime.build.remote_contexts import DOCKERFILE, RemoteContext, fetched, is_address
from runtime.build.request import ENTITLEMENTS, INSECURE, BuildRequest
from runtime.build.steps import BuildSecret, Network
from runtime.registry.settings import read_settings

Spec = Mapping[str, Any]

_AGENT = "SSH_AUTH_SOCK"
_EPOCH = "SOURCE_DATE_EPOCH"


_KEEP_GIT = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
_NO_EFFECT = {"isolation": "default", "provenance": "false", "sbom": "false"}


def service_of(action: actions.BuildImage) -> Spec:
    """The canonical service that is built, with its build section."""
    service: Spec = action.project.canonical()["services"][action.service]
    return service


def platforms_of(action: actions.BuildImage, service: Spec) -> tuple[str, ...]:
    """What to build for, in the order of the spec; empty for this host alone."""
    listed = tuple(str(platform) for platform in service["build"].get("platforms") or ())
    own = service.get("platform") or action.environ.get("DOCKER_DEFAULT_PLATFORM")
    if action.all_platforms and listed:
        return listed
    if own or len(listed) == 1:
        return (str(own or listed[0]),)
    return ()


def without_effect(build: Spec) -> list[str]:
    """What of a build section nothing comes of, a line each."""
    return [
        f"build.{name} has no effect"
        for name, harmless in _NO_EFFECT.items()
        if str(build.get(name) or harmless).lower() != harmless
    ]


@contextmanager
def dockerfile_request(action: actions.BuildImage, scratch: Path) -> Iterator[BuildRequest]:
    """What the Dockerfile alone needs to be looked at; see `opened_request`."""
    build = service_of(action)["build"]
    with ExitStack() as stack:
        agents = action.environ.get(_AGENT)
        ssh = {"default": agents} if agents else {}
        context, dockerfile = _Contexts(action, build, scratch, ssh, stack).main()
        yield BuildRequest(
            context=context,
            dockerfile=dockerfile,
            dockerfile_inline=build.get("dockerfile_inline") or None,
            args=arguments_of(action, build),
            target=build.get("target") or None,
        )


@contextmanager
def opened_request(
    action: actions.BuildImage,
    scratch: Path,
    *,
    gateway: Callable[[], str | None] = lambda: None,
    tell: Callable[[str], object] = lambda line: None,
    stop: Callable[[], object] = lambda: None,
) -> Iterator[BuildRequest]:
    """What to build, for the length of a block. Blocking.

    `scratch` is a directory for what is fetched; `gateway` gives the host's address on the
    network of the build; `tell` hears what was fetched; what `stop` raises, which is called again
    and again, ends a download. Raises EngineError for what cannot be honoured, and BuildError.
    """
    service = service_of(action)
    build = service["build"]
    with ExitStack() as stack:
        ssh = _agents(action, build, scratch, stack)
        contexts = _Contexts(action, build, scratch, ssh, stack, tell, stop)
        context, dockerfile = contexts.main()
        yield BuildRequest(
            context=context,
            dockerfile=dockerfile,
            dockerfile_inline=build.get("dockerfile_inline") or None,
            args=arguments_of(action, build),
            target=build.get("target") or None,
            tags=(action.name, *build.get("tags", ())),
            labels=labels_of(action, build),
            contexts=contexts.named(),
            no_cache=action.no_cache or bool(build.get("no_cache")),
            no_cache_filter=tuple(build.get("no_cache_filter") or ()),
            cache_from=_caches(action, build.get("cache_from")),
            cache_to=_caches(action, build.get("cache_to")),
            registry=read_settings(),
            pull=action.pull or bool(build.get("pull")),
            network=network_of(action),
            extra_hosts=tuple(_extra_hosts(action.service, build, gateway)),
            shm_size=build.get("shm_size") or None,
            ulimits=ulimits(build),
            secrets=_secrets(action, build),
            ssh=ssh,
            memory=action.memory,
            entitlements=_entitlements(action.service, build),
            environ={_EPOCH: action.environ[_EPOCH]} if _EPOCH in action.environ else {},
        )


def labels_of(action: actions.BuildImage, build: Spec) -> dict[str, str]:
    return {
        **(build.get("labels") or {}),
        "com.docker.compose.project": action.project.name,
        "com.docker.compose.service": action.service,
    }


def own_images(action: actions.BuildImage) -> frozenset[str]:
    """The names that the project's builds give: none of them is looked for in a registry."""
    services = action.project.canonical()["services"]
    return frozenset(
        image_reference(action.project.name, {"name": name, **service})
        for name, service in services.items()
        if service.get("build")
    )


class _Contexts:
    """Contexts become directories, or images of the store."""

    def __init__(
        self,
        action: actions.BuildImage,
        build: Spec,
        scratch: Path,
        ssh: Mapping[str, str],
        stack: ExitStack,
        tell: Callable[[str], object] = lambda line: None,
        stop: Callable[[], object] = lambda: None,
    ) -> None:
        self._tell = tell
        self._stop = stop
        self._action = action
        self._build = build
        self._scratch = scratch
        self._ssh = ssh
        self._stack = stack

    def main(self) -> tuple[Path, str | None]:
        """The context's directory and its Dockerfile; see `_dockerfile`."""
        context = str(self._build["context"])
        if not _is_web(context):
            return Path(self._local(context)), _dockerfile(self._build)
        inline = bool(self._build.get("dockerfile_inline"))
        found = self._fetched("context", context, None if inline else DOCKERFILE)
        alone = not found.is_archive and not inline
        return found.directory, DOCKERFILE if alone else _dockerfile(self._build)

    def named(self) -> dict[str, str]:
        declared: Mapping[str, str] = self._build.get("additional_contexts") or {}
        return {name: self._named(name, value) for name, value in declared.items()}

    def _named(self, name: str, value: str) -> str:
        if value.startswith("service:"):
            other = value.removeprefix("service:")
            project = self._action.project
            service = project.canonical()["services"][other]
            return f"docker-image://{image_reference(project.name, {'name': other, **service})}"
        if value.startswith(("docker-image://", "oci-layout://", "target:")):
            return value  # the builder says what it knows of these
        if _is_web(value):
            return str(self._fetched(f"context {name}", value, None).directory)
        return self._local(value)

    def _fetched(self, what: str, url: str, name: str | None) -> RemoteContext:
        opened = fetched(url, self._scratch, name=name, stop=self._stop)
        found = self._stack.enter_context(opened)
        self._tell(f"[{what}] {without_credentials(url)}: {found.digest}")
        return found

    def _local(self, context: str) -> str:
        if not is_address(context):
            return context
        keep = arguments_of(self._action, self._build).get(_KEEP_GIT, "").lower() in ("1", "true")
        found = checked_out(context, self._scratch, self._ssh, keep_git=keep)
        return str(self._stack.enter_context(found))


def _is_web(context: str) -> bool:
    return is_address(context) and not is_repository(context)


def network_of(action: actions.BuildImage) -> Network:
    """What the steps of a build run on: default, none, host, or a network's real name.

    A key of the project's networks means that network, any other word a network of this name,
    as with Docker's classic builder; BuildKit knows no networks by name.
    """
    asked = str(service_of(action)["build"].get("network") or "default")
    if asked in ("default", "none", "host"):
        return asked
    if ":" in asked:
        raise EngineError(
            f"service {action.service}: build.network {asked} is not supported",
            hint="use default, none, host or the name of a network",
        )
    networks: Mapping[str, Spec] = action.project.canonical().get("networks") or {}
    return str((networks.get(asked) or {}).get("name") or asked)


def arguments_of(action: actions.BuildImage, build: Spec) -> dict[str, str]:
    """The build arguments, those of the command line over those of the spec."""
    given = {key: value for key, value in (build.get("args") or {}).items() if value is not None}
    return {**given, **action.arguments}


def _dockerfile(build: Spec) -> str | None:
    """Below the context, or absolute where it leads out of it."""
    name = str(build.get("dockerfile") or "")
    if not name or os.path.isabs(name):
        return name or None
    context = str(build["context"])
    if is_address(context) or not os.path.normpath(name).startswith("../"):
        return name
    return os.path.normpath(os.path.join(context, name))


def _caches(action: actions.BuildImage, places: list[str] | None) -> tuple[str, ...]:
    """Directories of caches start from the project's own."""
    return tuple(_cache(place, action.project.working_dir) for place in places or ())


def _cache(place: str, start: str) -> str:
    words = []
    for word in place.split(","):
        key, equals, value = word.partition("=")
        if equals and key.strip() in ("src", "dest") and value:
            word = f"{key}={os.path.normpath(os.path.join(start, os.path.expanduser(value)))}"
        words.append(word)
    return ",".join(words)


def _extra_hosts(
    service: str, build: Spec, gateway: Callable[[], str | None]
) -> Iterator[tuple[str, str]]:
    for name, addresses in (build.get("extra_hosts") or {}).items():
        for address in addresses:
            if address != "host-gateway":
                yield name, address
            elif build.get("network") == "host":
                yield name, "127.0.0.1"
            elif build.get("network") != "none" and (host := gateway()) is not None:
                yield name, host
            else:
                raise EngineError(
                    f"service {service}: build.extra_hosts {name}: host-gateway needs a network"
                )


def _secrets(action: actions.BuildImage, build: Spec) -> dict[str, BuildSecret]:
    definitions = action.project.canonical().get("secrets") or {}
    secrets = {}
    for use in build.get("secrets") or ():
        source, mode = use["source"], use.get("mode")
        secrets[str(use.get("target") or source)] = BuildSecret(
            content=read_content("secret", source, definitions.get(source) or {}),
            uid=_owner(action.service, use, "uid"),
            gid=_owner(action.service, use, "gid"),
            **({} if mode is None else {"mode": int(mode)}),
        )
    return secrets


def _owner(service: str, use: Spec, key: str) -> int:
    text = str(use.get(key) or "0")
    if not text.isdecimal():
        raise EngineError(
            f"service {service}: build.secrets {use['source']}: {key} {text} is not a number"
        )
    return int(text)


def _agents(
    action: actions.BuildImage, build: Spec, scratch: Path, stack: ExitStack
) -> dict[str, str]:
    """The sockets of agents by ID: those of the project, and those that were given besides."""
    wanted: dict[str, str | None] = {**(build.get("ssh") or {}), **action.ssh}
    sockets = {}
    for id, path in wanted.items():
        place = path or (action.environ.get(_AGENT) if id == "default" else None)
        if not place:
            raise EngineError(
                f"service {action.service}: build.ssh {id} has no agent",
                hint="start one (SSH_AUTH_SOCK), or name a socket or a private key: "
                f"{id}=/path/to/it",
            )
        sockets[id] = stack.enter_context(agent(id, Path(place), scratch))
    return sockets


def _entitlements(service: str, build: Spec) -> frozenset[str]:
    granted = {str(name) for name in build.get("entitlements") or ()}
    if unknown := sorted(granted - set(ENTITLEMENTS)):
        raise EngineError(
            f"service {service}: build.entitlements {unknown[0]} is not supported",
            hint=f"it can be {' or '.join(ENTITLEMENTS)}",
        )
    if build.get("privileged"):
        granted.add(INSECURE)
    return frozenset(granted)
