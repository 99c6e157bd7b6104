"""Image steps: build what has build instructions, pull what is not there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.planning.actions import BuildImage, Cause, PullImage
from orchestrator.planning.blueprint import image_reference, mounted_images
from orchestrator.planning.builds import build_bases, build_order
from orchestrator.planning.draft import Draft
from orchestrator.planning.errors import PlanningError
from orchestrator.planning.hooks import init_images
from specs.project import Project

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_AGES = {"daily": 86_400.0, "weekly": 604_800.0, "refresh": 0.0}


def referenced(project: Project) -> frozenset[str]:
    """The references of all images that the project's services and their init containers run
    and mount."""
    images: set[str] = set()
    services = project.canonical()["services"]
    for name, service in services.items():
        images.add(image_reference(project.name, {"name": name, **service}))
        images.update(init_images(service))
        images.update(mounted_images(project.name, services, name).values())
    return frozenset(images)


def plan_images(draft: Draft) -> None:
    """Add one step for each image that the selected services need and that is not there."""
    _plan_builds(draft)
    built = {
        image_reference(draft.project.name, spec["service"])
        for spec in draft.blueprints.values()
        if spec["service"].get("build")
    }
    platforms: dict[str, str] = {}

    def pull(service: Mapping[str, Any], reference: str, wanted: str = "") -> None:
        platform = str(
            service.get("platform") or draft.policy.environ.get("DOCKER_DEFAULT_PLATFORM") or ""
        )
        other = platforms.setdefault(reference, platform)
        if not same_platform(other, platform):
            raise PlanningError(
                f"image {reference} is wanted for {other or 'this machine'} and for "
                f"{platform or 'this machine'}, but a reference stands for one image here",
                hint="give one of the services a digest, or a tag of that platform's own",
            )
        _plan_pull(draft, reference, wanted, platform)

    for name in sorted(draft.selected):
        service = draft.service(name)
        for own in init_images(service):
            pull(service, own)
        if not service.get("build") and name not in draft.policy.pins:
            pull(service, draft.image(name), _policy(service))
        pinned = draft.policy.pins[name].mounted if name in draft.policy.pins else {}
        for target, mounted in draft.mounted(name).items():
            if mounted not in built and target not in pinned:
                pull(service, mounted)


def _policy(service: Mapping[str, Any]) -> str:
    """The pull policy; `refresh` with its age is `every_` that age."""
    policy = str(service.get("pull_policy") or "")
    after = str(service.get("pull_refresh_after") or "")
    return f"every_{after}" if policy == "refresh" and after else policy


def _plan_builds(draft: Draft) -> None:
    """Build what is asked for, and first of all what those builds take files from."""
    services = {name: spec["service"] for name, spec in draft.blueprints.items()}
    reasons = {
        name: reason
        for name in {*draft.selected, *_mounted_builds(draft)}
        if name not in draft.policy.pins and (reason := _build_reason(draft, name))
    }
    for name in build_order(services, reasons):
        reference = image_reference(draft.project.name, services[name])
        reason = reasons.get(name) or _build_reason(draft, name)
        if reason is None or reference in draft.image_steps:
            continue
        bases = (
            image_reference(draft.project.name, services[b]) for b in build_bases(services[name])
        )
        draft.image_steps[reference] = draft.builder.add(
            BuildImage(
                name=reference,
                cause=Cause(reason=reason),
                service=name,
                project=draft.project,
                environ=draft.policy.environ,
            ),
            after=[draft.image_steps[base] for base in bases if base in draft.image_steps],
        )


def _mounted_builds(draft: Draft) -> list[str]:
    """The services whose builds the selected services mount."""
    mounted = {reference for name in draft.selected for reference in draft.mounted(name).values()}
    return [
        name
        for name, spec in draft.blueprints.items()
        if spec["service"].get("build")
        and image_reference(draft.project.name, spec["service"]) in mounted
    ]


def _plan_pull(draft: Draft, reference: str, wanted: str, platform: str) -> None:
    if reference not in draft.image_steps:
        reason = _pull_reason(draft, wanted, reference, platform)
        if reason:
            draft.image_steps[reference] = draft.builder.add(
                PullImage(
                    name=reference,
                    cause=Cause(reason=reason),
                    project=draft.project.name,
                    platform=platform,
                    allowed=draft.policy.pull != "never" and wanted != "never",
                )
            )


def _build_reason(draft: Draft, name: str) -> str | None:
    service = draft.service(name)
    if not service.get("build"):
        return None
    there = image_reference(draft.project.name, service) in draft.observed.images
    wanted = str(service.get("pull_policy") or "")
    if there and not draft.policy.refresh:
        return None
    if draft.policy.build == "always":
        return "a build was asked for"
    if wanted == "build" and draft.policy.build != "never":
        return "pull_policy: build"
    if not there and draft.policy.build != "never":
        return "not built yet"
    return None


def _pull_reason(draft: Draft, wanted: str, reference: str, platform: str) -> str | None:
    if reference not in draft.observed.images:
        return "not in the image store"
    there = draft.observed.platforms.get(reference, "")
    if platform and there and not same_platform(there, platform):
        return f"what is in the image store is for {there}, not for {platform}"
    if draft.policy.pull == "always" and draft.policy.refresh:
        return "a pull was asked for"
    if draft.policy.pull == "never" or not draft.policy.refresh:
        return None
    if wanted == "always":
        return "pull_policy: always"
    age = refresh_age(wanted)
    if age is None:
        return None
    last = draft.observed.pulled.get(reference)
    if last is None:
        return f"pull_policy: {wanted}, and it was never pulled"
    return f"pull_policy: {wanted}" if draft.now - last >= age else None


def same_platform(one: str, other: str) -> bool:
    """Whether two platforms (`linux/arm64/v8`, `linux/arm64`, `arm64`) mean the same; a variant
    counts where both name one."""
    if not one or not other:
        return one == other
    (system, machine, variant), (system2, machine2, variant2) = _parts(one), _parts(other)
    return (system, machine) == (system2, machine2) and (
        variant == variant2 or not (variant and variant2)
    )


def _parts(platform: str) -> tuple[str, str, str]:
    parts = platform.lower().split("/")
    if len(parts) == 1:
        parts.insert(0, "linux")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(parts[1], parts[1])
    return parts[0], machine, "/".join(parts[2:])


def refresh_age(policy: str) -> float | None:
    """After how many seconds a pull policy asks the registry again; None where it does not.

    Raises PlanningError for an age that is none.
    """
    if policy in _AGES:
        return _AGES[policy]
    if not policy.startswith("every_"):
        return None
    age = policy.removeprefix("every_")
    parts = re.findall(r"(\d+)([wdhms])", age)
    if "".join(number + unit for number, unit in parts) != age or not parts:
        raise PlanningError(
            f"{age} is not an age of images", hint="write it as 12h, 1d or 1w2d, say"
        )
    return float(sum(int(number) * _UNITS[unit] for number, unit in parts))
