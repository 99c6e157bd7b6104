"""Rules that hold between the parts of a project.

Source: Compose Specification; the list of checks is the reference implementation's, plus
"did you mean" and every broken rule at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from specs.errors import SpecIssue
from specs.project import Project, Service
from specs.schema import suggest
from specs.source import Node, Path, issue

_TEST_KINDS = ("CMD", "CMD-SHELL", "NONE")


def check(project: Project, root: Node) -> list[SpecIssue]:
    """Every broken rule of the enabled services; `root` is the tree that positions come from."""
    checker = _Checker(project, root)
    for name, service in project.services.items():
        checker.service(name, service)
    checker.container_names()
    checker.resources()
    checker.cycles()
    return checker.issues


class _Checker:
    def __init__(self, project: Project, root: Node) -> None:
        self.project = project
        self.root = root
        self.issues: list[SpecIssue] = []

    def fail(self, message: str, path: Path, hint: str | None = None) -> None:
        node = self.root.find(path)
        self.issues.append(issue(message, node=node, path=path, hint=hint))

    def service(self, name: str, service: Service) -> None:
        path: Path = ("services", name)
        if service.build is None and not service.image and service.provider is None:
            self.fail("has neither an image nor a build", path)
        self._build(service, path)
        self._networks(service, path)
        self._healthcheck(service, path)
        self._dependencies(name, service, path)
        self._references(service, path)
        self._scale(service, path)
        self._limits(service, path)
        self._watch(service, path)
        self._mount_points(service, path)
        self._restart(service, path)

    def _build(self, service: Service, path: Path) -> None:
        build = service.build
        if build is None:
            return
        if build.dockerfile and build.dockerfile_inline:
            self.fail(
                "dockerfile and dockerfile_inline exclude each other",
                (*path, "build", "dockerfile_inline"),
            )
        for key, context in build.additional_contexts.items():
            if context.startswith("service:"):
                target = context.removeprefix("service:")
                where = (*path, "build", "additional_contexts", key)
                known = self.project.services.get(target)
                if known is None:
                    self._unknown("service", target, self.project.services, where)
                elif known.build is None:
                    self.fail(f'service "{target}" has no build to take files from', where)
        if build.platforms and service.platform and service.platform not in build.platforms:
            self.fail(
                f"build.platforms must include platform {service.platform!r}",
                (*path, "build", "platforms"),
            )
        for index, secret in enumerate(build.secrets):
            if secret.source not in self.project.secrets:
                where = (*path, "build", "secrets", index)
                self._unknown("secret", secret.source, self.project.secrets, where)

    def _unknown(self, kind: str, name: str, known: Iterable[str], path: Path) -> None:
        self.fail(f'{kind} "{name}" is not defined', path, hint=suggest(name, known))

    def _networks(self, service: Service, path: Path) -> None:
        if service.network_mode and service.networks:
            self.fail("network_mode and networks exclude each other", (*path, "network_mode"))
        if service.network_mode.startswith("service:"):
            target = service.network_mode.removeprefix("service:")
            if target not in self.project.services:
                self._unknown("service", target, self.project.services, (*path, "network_mode"))
        for network in service.networks:
            if network not in self.project.networks:
                where = (*path, "networks", network)
                self._unknown("network", network, self.project.networks, where)

    def _healthcheck(self, service: Service, path: Path) -> None:
        test = service.healthcheck.test if service.healthcheck is not None else None
        if test and test[0] not in _TEST_KINDS:
            self.fail(
                f"test must start with one of {', '.join(_TEST_KINDS)}",
                (*path, "healthcheck", "test"),
                hint="write the command as one string to run it in a shell",
            )

    def _dependencies(self, name: str, service: Service, path: Path) -> None:
        for target, dependency in service.depends_on.items():
            where = (*path, "depends_on", target)
            if target in self.project.services:
                continue
            if target in self.project.disabled_services:
                if dependency.required:
                    profiles = ", ".join(self.project.disabled_services[target].profiles)
                    self.fail(
                        f'service "{target}" is not enabled',
                        where,
                        hint=f"enable one of its profiles ({profiles}) or set required: false",
                    )
                continue
            if service.network_mode != f"service:{target}":  # which says so itself
                self._unknown("service", target, self.project.services, where)

    def _references(self, service: Service, path: Path) -> None:
        project = self.project
        for index, mount in enumerate(service.volumes):
            if mount.type == "volume" and mount.source and mount.source not in project.volumes:
                self._unknown("volume", mount.source, project.volumes, (*path, "volumes", index))
            if mount.type == "image" and not mount.source:
                self.fail("has no image to mount", (*path, "volumes", index), "give it a source")
        for index, config in enumerate(service.configs):
            if config.source not in project.configs:
                self._unknown("config", config.source, project.configs, (*path, "configs", index))
        for index, secret in enumerate(service.secrets):
            if secret.source not in project.secrets:
                self._unknown("secret", secret.source, project.secrets, (*path, "secrets", index))
        for model in service.models:
            if model not in project.models:
                self._unknown("model", model, project.models, (*path, "models", model))

    def _scale(self, service: Service, path: Path) -> None:
        replicas = service.deploy.replicas if service.deploy is not None else None
        if service.scale is not None and replicas is not None and service.scale != replicas:
            self.fail("scale and deploy.replicas differ", (*path, "scale"))
        attribute: Path = ("scale",) if service.scale is not None else ("deploy", "replicas")
        if service.replicas < 0:
            self.fail("must not be negative", (*path, *attribute))
        if service.replicas > 1 and service.container_name:
            self.fail(
                f"container_name can name one container only, the service has {service.replicas}",
                (*path, "container_name"),
            )

    def _limits(self, service: Service, path: Path) -> None:
        if service.deploy is None:
            return
        limits = service.deploy.resources.limits
        reservations = service.deploy.resources.reservations
        pairs: tuple[tuple[str, float, str, Any, str], ...] = (
            ("cpus", service.cpus, "limits", limits, "cpus"),
            ("mem_limit", service.mem_limit, "limits", limits, "memory"),
            ("pids_limit", service.pids_limit, "limits", limits, "pids"),
            ("mem_reservation", service.mem_reservation, "reservations", reservations, "memory"),
        )
        for attribute, value, section, resource, key in pairs:
            if value and resource is not None and getattr(resource, key) != value:
                self.fail(
                    f"{attribute} and deploy.resources.{section}.{key} differ", (*path, attribute)
                )

    def _watch(self, service: Service, path: Path) -> None:
        for index, watch in enumerate(service.develop.watch if service.develop else ()):
            if not watch.target and watch.action not in ("rebuild", "restart"):
                self.fail(
                    f"action {watch.action} needs a target", (*path, "develop", "watch", index)
                )

    def _mount_points(self, service: Service, path: Path) -> None:
        points: dict[str, str] = {}

        def take(target: str, kind: str, index: int) -> None:
            if target in points:
                self.fail(f"{target} is already mounted by {points[target]}", (*path, kind, index))
            points[target] = f"{kind}[{index}]"

        for index, tmpfs in enumerate(service.tmpfs):
            take(tmpfs.partition(":")[0], "tmpfs", index)
        for index, mount in enumerate(service.volumes):
            take(mount.target, "volumes", index)

    def _restart(self, service: Service, path: Path) -> None:
        policy, separator, count = service.restart.partition(":")
        where = (*path, "restart")
        known = ("", "no", "always", "on-failure", "unless-stopped")
        if policy not in known:
            self.fail(
                f"{service.restart!r} is not one of {', '.join(known[1:])}",
                where,
                hint=suggest(policy, known[1:]),
            )
        elif separator and (policy != "on-failure" or not count.isdigit()):
            self.fail(f"{service.restart!r} is not a restart policy", where)

    def container_names(self) -> None:
        """Names that several services give to their container."""
        owners: dict[str, str] = {}
        for name, service in self.project.services.items():
            if service.container_name:
                owner = owners.setdefault(service.container_name, name)
                if owner != name:
                    self.fail(
                        f'container name "{service.container_name}" is already that of "{owner}"',
                        ("services", name, "container_name"),
                    )

    def resources(self) -> None:
        """Secrets that are neither external nor have a source."""
        for name, secret in self.project.secrets.items():
            if not (secret.external or secret.file or secret.environment):
                self.fail("one of file or environment must be set", ("secrets", name))

    def cycles(self) -> None:
        """Services that wait for each other, printed as a path."""
        services = self.project.services
        cycle = _find_cycle({name: list(service.depends_on) for name, service in services.items()})
        if cycle:
            self.fail(
                f"dependency cycle: {' → '.join(cycle)}",
                ("services", cycle[0], "depends_on", cycle[1]),
            )


def _find_cycle(edges: Mapping[str, list[str]]) -> list[str]:
    """The first cycle of a graph as a path that ends where it starts; empty if there is none."""
    done: set[str] = set()
    for start in sorted(edges):
        trail: list[str] = []
        on_trail: set[str] = set()
        stack = [(start, iter(sorted(edges[start])))] if start not in done else []
        if stack:
            trail.append(start)
            on_trail.add(start)
        while stack:
            node, following = stack[-1]
            for target in following:
                if target in on_trail:
                    return [*trail[trail.index(target) :], target]
                if target in edges and target not in done:
                    stack.append((target, iter(sorted(edges[target]))))
                    trail.append(target)
                    on_trail.add(target)
                    break
            else:
                stack.pop()
                done.add(node)
                on_trail.discard(trail.pop())
    return []
