"""What the daemon counts, in Prometheus' text format (version 0.0.4).

Written by hand: a dozen lines of format, where the client library would cost two megabytes
and a registry of its own. Counters grow as things happen; the rest is read when asked for.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from time import time
from typing import TYPE_CHECKING

from orchestrator.engine.events import ContainerEvent, DriftEvent, Event, GitopsEvent, StepEvent
from orchestrator.engine.exits import HOST_FAULTS
from orchestrator.engine.local import LocalBackend
from orchestrator.engine.observe import container_status, health_status
from orchestrator.gitops.reconcile import is_ready
from orchestrator.supervisor.source_health import present_health
from orchestrator.supervisor.source_status import health as source_health
from orchestrator.version import VERSION

if TYPE_CHECKING:
    from orchestrator.supervisor.controller import Controller

BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_OUTCOMES = frozenset({"applied", "failed", "rolled-back", "planned", "superseded"})

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]


class Histogram:
    """How often values fell below each bound (le), for each set of labels."""

    def __init__(self) -> None:
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = defaultdict(float)

    def observe(self, labels: Labels, value: float) -> None:
        counts = self._counts.setdefault(labels, [0] * (len(BOUNDS) + 1))
        counts[bisect_left(BOUNDS, value)] += 1
        self._sums[labels] += value

    def samples(self) -> Iterator[Sample]:
        for labels, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts, strict=True):
                total += count
                yield "_bucket", (*labels, ("le", bound)), total
            yield "_sum", labels, self._sums[labels]
            yield "_count", labels, total


class Metrics:
    """`follow` counts an event of the bus, `operation` and `worked` what they are told of."""

    def __init__(self) -> None:
        self._started = time()
        self._operations = Histogram()
        self._steps: Counter[Labels] = Counter()
        self._step_seconds = Histogram()
        self._containers: Counter[Labels] = Counter()
        self._drift: Counter[Labels] = Counter()
        self._reconciles = Histogram()
        self._attempts: Counter[Labels] = Counter()
        self._attempt_seconds = Histogram()

    def follow(self, event: Event) -> None:
        if isinstance(event, StepEvent):
            if event.status != "running":
                kind = event.resource.partition(" ")[0].lower()
                self._steps[(("kind", kind), ("status", event.status))] += 1
                if event.seconds:
                    self._step_seconds.observe((("kind", kind),), event.seconds)
        elif isinstance(event, ContainerEvent):
            self._containers[(("action", event.action), ("project", event.project))] += 1
        elif isinstance(event, DriftEvent):
            repaired = "yes" if event.done else "no"
            self._drift[(("kind", event.kind), ("repaired", repaired))] += 1
        elif isinstance(event, GitopsEvent) and event.action in _OUTCOMES:
            source = ("source", event.source)
            self._attempts[(("outcome", event.action), ("reason", event.reason), source)] += 1
            if event.seconds:
                self._attempt_seconds.observe((source,), event.seconds)

    def operation(self, command: str, outcome: str, seconds: float) -> None:
        self._operations.observe((("command", command), ("outcome", outcome)), seconds)

    def worked(self, kind: str, outcome: str, seconds: float) -> None:
        """The queue has worked on a key of this kind."""
        self._reconciles.observe((("kind", kind), ("outcome", outcome)), seconds)

    def render(self, backend: LocalBackend, controller: Controller) -> str:
        """Everything, as text. Blocking."""
        lines: list[str] = []

        def add(name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
            lines.append(f"# HELP {name} {text}")
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(
                f"{name}{suffix}{_labels(labels)} {value:.15g}" for suffix, labels, value in samples
            )

        def one(value: float) -> list[Sample]:
            return [("", (), value)]

        version: Labels = (("version", VERSION),)
        add("bayplan_info", "gauge", "The daemon's version.", [("", version, 1)])
        add("bayplan_start_time_seconds", "gauge", "When it started.", one(self._started))
        for name, value in _own_memory().items():
            add(f"bayplan_memory_{name}_bytes", "gauge", f"The daemon's {name} memory.", one(value))
        add(
            "bayplan_operation_seconds",
            "histogram",
            "Operations on projects by command and outcome.",
            self._operations.samples(),
        )
        add("bayplan_steps_total", "counter", "Steps of plans that ended.", _counted(self._steps))
        add("bayplan_step_seconds", "histogram", "What steps took.", self._step_seconds.samples())
        add(
            "bayplan_container_events_total",
            "counter",
            "What happened to containers.",
            _counted(self._containers),
        )
        add("bayplan_drift_total", "counter", "Changes from outside.", _counted(self._drift))
        add(
            "bayplan_reconcile_seconds",
            "histogram",
            "Looks at one container, network or volume.",
            self._reconciles.samples(),
        )
        queue = controller.queue
        add("bayplan_queue_depth", "gauge", "Keys that wait for a worker.", one(queue.depth))
        add("bayplan_queue_backoff", "gauge", "Keys that failed last.", one(queue.failing))
        resolver = backend.host.resolver
        if resolver is not None:
            asked, passed = resolver.queries, resolver.passed_on
            own: Labels = (("answered", "here"),)
            other: Labels = (("answered", "elsewhere"),)
            samples: list[Sample] = [("", own, asked - passed), ("", other, passed)]
            add("bayplan_dns_queries_total", "counter", "Names asked for.", samples)
        add(
            "bayplan_gitops_attempts_total",
            "counter",
            "Attempts of git sources by outcome.",
            _counted(self._attempts),
        )
        add(
            "bayplan_gitops_attempt_seconds",
            "histogram",
            "From the look at a repository to the outcome.",
            self._attempt_seconds.samples(),
        )
        for name, text, samples in _of_sources(backend):
            add(name, "gauge", text, samples)
        for name, kind, text, found in _of_containers(backend):
            add(name, kind, text, found)
        return "\n".join(lines) + "\n"


def _of_containers(
    backend: LocalBackend,
) -> Iterator[tuple[str, str, str, list[Sample]]]:
    states: Counter[Labels] = Counter()
    restarts: list[Sample] = []
    health: list[Sample] = []
    cpu: list[Sample] = []
    memory: list[Sample] = []
    records = backend.host.store.containers()
    statuses = backend.statuses(records)
    for record in records:
        state = container_status(record, statuses.get(record.id, "created"))
        states[(("project", record.project), ("state", state))] += 1
        labels: Labels = (
            ("name", record.name),
            ("project", record.project),
            ("service", record.service),
        )
        restarts.append(("", labels, record.restarts))
        if (status := health_status(record, state)) != "none":
            health.append(("", (*labels, ("status", status)), 1))
        if state in ("running", "paused"):
            try:
                usage = backend.host.containers.usage(record.id)
            except HOST_FAULTS:
                continue  # it has ended meanwhile
            cpu.append(("", labels, usage.cpu / 1e9))
            memory.append(("", labels, max(usage.memory - usage.cache, 0)))
    yield "bayplan_containers", "gauge", "Containers by state.", list(_counted(states))
    yield "bayplan_container_restarts", "gauge", "Restarts by policy.", restarts
    yield "bayplan_container_health", "gauge", "1 for the present status.", health
    yield "bayplan_container_cpu_seconds_total", "counter", "CPU time of this run.", cpu
    yield "bayplan_container_memory_bytes", "gauge", "Memory less what is reclaimable.", memory


def _of_sources(backend: LocalBackend) -> Iterator[tuple[str, str, list[Sample]]]:
    suspended: list[Sample] = []
    ready: list[Sample] = []
    applied: list[Sample] = []
    health: list[Sample] = []
    table = backend.host.store.gitops
    for record in table.all():
        labels: Labels = (("source", record.name),)
        suspended.append(("", labels, record.suspended))
        ready.append(("", labels, is_ready(record)))
        if record.applied is not None:
            applied.append(("", labels, record.applied.at))
        whole = source_health(record, present_health(backend, table.inventory(record.name)))
        health.append(("", (*labels, ("status", whole.word.lower())), 1))
    yield "bayplan_gitops_suspended", "1 where a source is not followed.", suspended
    yield "bayplan_gitops_health", "1 for the present health of what stands.", health
    yield "bayplan_gitops_ready", "1 where the last revision stands and proved healthy.", ready
    yield "bayplan_gitops_last_applied_timestamp_seconds", "When a revision proved good.", applied


def _counted(counter: Mapping[Labels, int]) -> Iterator[Sample]:
    for labels, value in sorted(counter.items()):
        yield "", labels, value


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _own_memory() -> dict[str, float]:
    """Resident and virtual memory of this process in bytes (proc_pid_statm(5))."""
    with open("/proc/self/statm") as statm:
        virtual, resident, *_ = (int(pages) for pages in statm.read().split())
    page = os.sysconf("SC_PAGE_SIZE")
    return {"resident": resident * page, "virtual": virtual * page}
