"""What is wanted of a foreground `bay up`: whose output, and when to end."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.errors import UsageError


class Wish:
    """Whose output is to be shown, and what is to happen when a container ends."""

    def __init__(
        self,
        *,
        services: tuple[str, ...],
        attach: tuple[str, ...],
        no_attach: tuple[str, ...],
        dependencies: bool,
        abort_on_exit: bool,
        abort_on_failure: bool,
        exit_code_from: str | None,
    ) -> None:
        if abort_on_exit and abort_on_failure:
            raise UsageError(
                "--abort-on-container-exit and --abort-on-container-failure exclude each other"
            )
        self.services = services
        self._attach = attach
        self._no_attach = no_attach
        self._dependencies = dependencies
        self.abort_on_exit = abort_on_exit or (exit_code_from is not None and not abort_on_failure)
        self.abort_on_failure = abort_on_failure
        self.exit_code_from = exit_code_from

    def check_detached(self, flag: str) -> None:
        """Raises UsageError where something was asked for that only a foreground up can do."""
        asked = {
            "--attach": self._attach,
            "--attach-dependencies": self._dependencies,
            "--exit-code-from": self.exit_code_from,
            "--abort-on-container-exit": self.abort_on_exit,
            "--abort-on-container-failure": self.abort_on_failure,
        }
        for name, value in asked.items():
            if value:
                raise UsageError(f"{flag} and {name} exclude each other")

    def check_watched(self) -> None:
        """Raises UsageError where the end of a container is to end everything: the dev loop
        ends containers all the time."""
        if self.abort_on_exit or self.abort_on_failure:
            raise UsageError(
                "--watch restarts containers; no end of one can be the end of all "
                "(--abort-on-container-exit, --abort-on-container-failure, --exit-code-from)"
            )

    def shown(self, containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those whose output is to be shown."""
        names = set(self._attach or self.services)
        if names and self._dependencies:
            names = _with_dependencies(names, containers)
        return [
            container
            for container in containers
            if not container.get("oneoff")
            and (container["service"] in names if names else True)
            and (container["attach"] or container["service"] in self._attach)
            and container["service"] not in self._no_attach
        ]

    def involved(self, containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those whose end may end everything."""
        names = _with_dependencies(set(self.services), containers)
        return [
            container
            for container in containers
            if not container.get("oneoff") and (not names or container["service"] in names)
        ]

    def ends(self, container: dict[str, Any]) -> bool:
        """Whether the end of this container is the end of all."""
        failed = container["exit_code"] != 0
        return self.abort_on_exit or (self.abort_on_failure and failed)


def _with_dependencies(names: set[str], containers: list[dict[str, Any]]) -> set[str]:
    needs = {container["service"]: container["depends_on"] for container in containers}
    found, pending = set(names), list(names)
    while pending:
        for dependency in needs.get(pending.pop(), ()):
            if dependency not in found:
                found.add(dependency)
                pending.append(dependency)
    return found
