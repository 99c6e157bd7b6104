"""Pulls and pushes on the display of all long operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.cli import output, progress
from orchestrator.cli.session import Session

if TYPE_CHECKING:
    from orchestrator.engine.transfers import TransferEvent
    from specs.project import Project

_DONE = {"Pulling": "Pulled", "Pushing": "Pushed", "Copying": "Copied"}


def one_by_one(
    session: Session,
    references: Iterable[str],
    work: Callable[[str, Callable[[TransferEvent], None]], str],
    *,
    word: str,
    quiet: bool = False,
    carry_on: bool = False,
) -> dict[str, str]:
    """Move images; gives what `work` gave for each. With `carry_on` a failure is a warning."""
    shown = progress.Quiet() if quiet else progress.choose(session, word.lower())
    done: dict[str, str] = {}
    failed: list[str] = []
    try:
        for reference in references:
            display = _Display(shown, reference, word)
            try:
                done[reference] = work(reference, display.tell)
            except Exception as exc:
                display.step("failed", "Error", str(exc))
                if not carry_on or not hasattr(exc, "hint"):
                    raise
                failed.append(f"{reference}: {exc}")
                continue
            display.step("done", _DONE[word])
    finally:
        shown.close()
    for line in failed:
        output.warn(line)
    return done


class _Display:
    """One image's line: how much of all its blobs has come."""

    def __init__(self, shown: progress.Progress, reference: str, word: str) -> None:
        self._shown = shown
        self._reference = reference
        self._word = word
        self._moved = progress.Moved()
        self.step("running", word)

    def tell(self, event: TransferEvent) -> None:
        if event.stage == "warning":
            output.warn(event.detail)
        elif self._moved.take(
            {
                "stage": event.stage,
                "digest": event.digest,
                "current": event.current,
                "total": event.total,
            }
        ):
            self.step("running", self._word, self._moved.text())

    def step(self, status: str, text: str, detail: str = "") -> None:
        event: dict[str, Any] = {
            "type": "step",
            "id": self._reference,
            "resource": f"Image {self._reference}",
            "status": status,
            "text": text,
            "detail": detail,
            "seconds": None,
        }
        self._shown.event(event)


def images_of(
    session: Session, services: tuple[str, ...], *, dependencies: bool
) -> dict[str, tuple[str, bool]]:
    """The image of each service, and whether it is built here."""
    return images(*selected(session, services, dependencies=dependencies))


def selected(
    session: Session, services: tuple[str, ...], *, dependencies: bool
) -> tuple[Project, list[str]]:
    """The project, and which of its services are meant."""
    project = session.load(services).project
    wanted = set(services or project.services)
    pending = list(wanted) if dependencies else []
    while pending:
        for name in project.services[pending.pop()].depends_on:
            if name not in wanted and name in project.services:
                wanted.add(name)
                pending.append(name)
    return project, [name for name in sorted(project.services) if name in wanted]


def images(project: Project, services: Iterable[str]) -> dict[str, tuple[str, bool]]:
    """The image of each service, and whether it is built here."""
    return {
        name: (
            project.services[name].image or f"{project.name}-{name}",
            project.services[name].build is not None,
        )
        for name in services
    }


def platforms(
    project: Project, services: Iterable[str], environ: Mapping[str, str]
) -> dict[str, str]:
    """What each image is wanted for, where that is said: the first service that has it decides."""
    default = environ.get("DOCKER_DEFAULT_PLATFORM") or ""
    wanted: dict[str, str] = {}
    for name in services:
        service = project.services[name]
        own = [image for image, _ in images(project, [name]).values()]
        for image in (*own, *mounted_images(project, [name])):
            wanted.setdefault(image, service.platform or default)
    return wanted


def mounted_images(project: Project, services: Iterable[str]) -> list[str]:
    """The references of what the services mount of images; one that names a service is that
    service's own."""
    return [
        mount.source
        for name in services
        for mount in project.services[name].volumes
        if mount.type == "image" and mount.source not in project.services
    ]
