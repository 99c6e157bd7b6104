"""The bodies of the API's requests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.planning.actions import BuildImage, Cause
from orchestrator.planning.policy import Build, Policy, Pull, Recreate, Removal
from specs.project import Project


class Body(BaseModel):
    # Those that nobody sends are never built: 35 ms of a start, and 2 MB.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Options(Body):
    """Options of one call; one that is not known is refused, so that none is ignored silently."""


_PULLS: dict[str, Pull] = {"always": "always", "never": "never"}


class UpOptions(Options):
    """The flags of `up` and `plan`; times in seconds, `environ` for builds."""

    services: tuple[str, ...] = ()
    build: bool = False
    no_build: bool = False
    pull: Pull | Literal["build"] | None = None
    force_recreate: bool = False
    no_recreate: bool = False
    always_recreate_deps: bool = False
    no_deps: bool = False
    restart_dependents: bool = False
    no_start: bool = False
    remove_orphans: bool = False
    ignore_orphans: bool = False
    all_resources: bool = False
    renew_anon_volumes: bool = False
    wait: bool = False
    wait_timeout: float | None = None
    timeout: float | None = None
    scale: dict[str, int] = Field(default_factory=dict)
    environ: dict[str, str] = Field(default_factory=dict)

    def _recreate(self) -> Recreate:
        if self.force_recreate:
            return "force"
        return "never" if self.no_recreate else "diverged"

    def _build(self) -> Build:
        if self.build or self.pull == "build":
            return "always"
        return "never" if self.no_build else "missing"

    def policy(self) -> Policy:
        return Policy(
            services=self.services,
            recreate=self._recreate(),
            build=self._build(),
            pull=_PULLS.get(self.pull or "", "missing"),
            dependencies=not self.no_deps,
            dependents=self.restart_dependents,
            recreate_dependencies=self.always_recreate_deps,
            remove_orphans=self.remove_orphans,
            ignore_orphans=self.ignore_orphans,
            all_resources=self.all_resources,
            renew_volumes=self.renew_anon_volumes,
            start=not self.no_start,
            wait=self.wait,
            wait_timeout=self.wait_timeout,
            timeout=self.timeout,
            scale=self.scale,
            environ=self.environ,
        )


class DownOptions(Options):
    services: tuple[str, ...] = ()
    volumes: bool = False
    remove_orphans: bool = False
    rmi: Literal["all", "local"] | None = None
    timeout: float | None = None

    def removal(self) -> Removal:
        return Removal(
            services=self.services,
            volumes=self.volumes,
            remove_orphans=self.remove_orphans,
            images=self.rmi,
            timeout=self.timeout,
        )


class BuildOptions(Options):
    """The flags of `build`; `memory` in bytes, `ssh` are agents' sockets or keys by ID."""

    services: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    build_args: dict[str, str] = Field(default_factory=dict)
    environ: dict[str, str] = Field(default_factory=dict)
    ssh: dict[str, str] = Field(default_factory=dict)
    memory: int | None = Field(default=None, gt=0)

    def model(self, project: Project) -> BuildImage:
        """What all builds of the project have in common."""
        return BuildImage(
            name="",
            cause=Cause(reason="a build was asked for"),
            service="",
            project=project,
            no_cache=self.no_cache,
            pull=self.pull,
            arguments=self.build_args,
            environ=self.environ,
            ssh=self.ssh,
            memory=self.memory,
            all_platforms=True,
        )


class LifecycleOptions(Options):
    """Options of start, stop, restart and kill; times in seconds. `deaf_timeout` is for a restart
    of what does not listen to its stop signal."""

    timeout: float | None = None
    deaf_timeout: float | None = None
    signal: str = "SIGKILL"
    wait: bool = False
    wait_timeout: float | None = None
    no_deps: bool = False


class UpBody(Body):
    """`project` is a canonical project, None the one that is stored; `inputs` are kept as they
    come."""

    project: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    options: UpOptions = UpOptions.model_construct()


class DownBody(Body):
    project: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    options: DownOptions = DownOptions.model_construct()


class BuildBody(Body):
    project: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    options: BuildOptions = BuildOptions.model_construct()


class LifecycleBody(Body):
    services: tuple[str, ...] = ()
    options: LifecycleOptions = LifecycleOptions.model_construct()


class BootstrapBody(Body):
    reference: str
    include: tuple[str, ...] = ()
    mirror: str | None = None
