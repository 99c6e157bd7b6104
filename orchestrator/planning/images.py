"""Image steps: build what has build instructions, pull what is not there."""

from __future__ import annotations

from orchestrator.planning.actions import BuildImage, Cause, PullImage
from orchestrator.planning.draft import Draft


def plan_images(draft: Draft) -> None:
    """Add one step for each image that the selected services need and that is not there."""
    for name in sorted(draft.selected):
        service = draft.service(name)
        reference = draft.image(name)
        if reference in draft.image_steps or name in draft.policy.pins:
            continue
        there = reference in draft.observed.images
        wanted = str(service.get("pull_policy") or "")
        if service.get("build"):
            reason = _build_reason(draft, wanted, there)
            if reason:
                draft.image_steps[reference] = draft.builder.add(
                    BuildImage(
                        name=reference,
                        cause=Cause(reason=reason),
                        service=name,
                        project=draft.project,
                    )
                )
            continue
        reason = _pull_reason(draft, wanted, there)
        if reason:
            draft.image_steps[reference] = draft.builder.add(
                PullImage(name=reference, cause=Cause(reason=reason))
            )


def _build_reason(draft: Draft, wanted: str, there: bool) -> str | None:
    if draft.policy.build == "always":
        return "a build was asked for"
    if wanted == "build" and draft.policy.build != "never":
        return "pull_policy: build"
    if not there and draft.policy.build != "never":
        return "not built yet"
    return None


def _pull_reason(draft: Draft, wanted: str, there: bool) -> str | None:
    if not there:
        return "not in the image store"
    if draft.policy.pull == "always":
        return "a pull was asked for"
    if wanted == "always" and draft.policy.pull != "never":
        return "pull_policy: always"
    return None
