"""A plan: a directed acyclic graph of steps, with a deterministic text and JSON form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.planning.actions import AnyAction
from orchestrator.planning.observed import Spec
from orchestrator.planning.rollout import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action. It runs once every step of `after` has succeeded and every step of `ordered`
    has ended, however it ended."""

    id: int
    action: AnyAction
    after: tuple[int, ...] = ()
    ordered: tuple[int, ...] = ()

    def text(self) -> str:
        """`#4 create container shop-web-1 (after #1, #2): does not exist`"""
        waits = []
        if self.after:
            waits.append("after " + _ids(self.after))
        if self.ordered:
            waits.append("once ended " + _ids(self.ordered))
        where = f" ({'; '.join(waits)})" if waits else ""
        cause = self.action.cause.brief or self.action.cause
        return f"#{self.id} {self.action.text()}{where}: {cause}"

    def to_json(self) -> dict[str, Any]:
        action = self.action
        return {
            "id": self.id,
            "action": type(action).__name__,
            "verb": action.verb,
            "kind": action.kind,
            "name": action.name,
            "resource": action.resource,
            "text": action.text(),
            "cause": str(action.cause),
            "changes": [change.to_json() for change in action.cause.changes],
            "after": list(self.after),
            "ordered": list(self.ordered),
            "destructive": action.destructive,
            **action.details(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """The steps of a plan that bring one service to a new form by its strategy.

    `old` and `new` are blueprints, `old_image` and `new_image` image ids ("" where it is not
    there yet); `replicas` are the names of those that change. `held` tells that canaries go
    ahead now and the others wait for somebody's word.
    """

    service: str
    strategy: Strategy
    old: Spec
    old_image: str
    new: Spec
    new_image: str
    replicas: tuple[str, ...]
    steps: frozenset[int]
    held: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "strategy": self.strategy.to_json(),
            "replicas": list(self.replicas),
            "steps": sorted(self.steps),
            "held": self.held,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in an order that respects their dependencies, the rollouts that they make up, and
    what a person should know besides (`notes`)."""

    project: str
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    rollouts: tuple[RolloutPlan, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.steps

    @property
    def destructive(self) -> bool:
        return any(step.action.destructive for step in self.steps)

    def text(self) -> str:
        """One line a step, each after all that it waits for."""
        if self.empty:
            lines = [f"{self.project}: nothing to do"]
        else:
            lines = [step.text() for step in self.steps]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "project": self.project,
            "steps": [step.to_json() for step in self.steps],
            "notes": list(self.notes),
            "rollouts": [rollout.to_json() for rollout in self.rollouts],
            "empty": self.empty,
            "destructive": self.destructive,
            "text": self.text(),
        }


class PlanBuilder:
    """Collects steps; a step can only wait for steps added before it, so there is no cycle."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._steps: list[Step] = []
        self._notes: list[str] = []
        self._rollouts: list[RolloutPlan] = []

    @property
    def size(self) -> int:
        """How many steps there are, and so the id of the last one."""
        return len(self._steps)

    def add(self, action: AnyAction, after: Iterable[int] = (), ordered: Iterable[int] = ()) -> int:
        """Add a step and return its id; ids count from 1."""
        step = Step(
            id=len(self._steps) + 1,
            action=action,
            after=tuple(sorted(set(after))),
            ordered=tuple(sorted(set(ordered) - set(after))),
        )
        self._steps.append(step)
        return step.id

    def note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def rollout(self, rollout: RolloutPlan) -> None:
        self._rollouts.append(rollout)

    def build(self) -> Plan:
        return Plan(
            project=self._project,
            steps=tuple(self._steps),
            notes=tuple(self._notes),
            rollouts=tuple(self._rollouts),
        )


def _ids(ids: Sequence[int]) -> str:
    return ", ".join(f"#{id}" for id in ids)
