"""What applying a source's present commit would do: fetched, verified and planned, not applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.gitops import reconcile
from orchestrator.planning.policy import Policy

if TYPE_CHECKING:
    from orchestrator.supervisor.instance import Instance


async def preview(instance: Instance, name: str) -> dict[str, Any]:
    """The commits since the one that stands, and the plan of each project; raises GitOpsError,
    PlanningError and what the host raises."""
    sources = instance.sources
    syncer, record = sources.syncer(name), sources.record(name)
    source, repository = syncer.source, syncer.repository
    revision = await repository.fetch(accept_rewrite=False)
    projects = await repository.render(revision.commit)
    inventory = {b.project: b for b in instance.host.store.gitops.inventory(name)}
    plans = []
    for project, spec in projects.items():
        owned = inventory.get(project)
        departed = reconcile.departed_services(owned, spec) if source.prune else frozenset()
        plan = await sources.stacks.plan(spec, Policy(departed=departed))
        plans.append({"project": project, **plan.to_json()})
    leaving = reconcile.departing(inventory.values(), projects)
    applied = record.applied.commit if record.applied is not None else None
    commits = await repository.log(applied, revision.commit)
    return {
        "name": name,
        "from": applied,
        "to": revision.commit,
        "commits": [
            {"commit": commit.commit, "subject": commit.subject, "author": commit.author}
            for commit in commits
        ],
        "plans": plans,
        "leaving": [belonging.project for belonging in leaving] if source.prune else [],
        "empty": not leaving and all(plan["empty"] for plan in plans),
    }
