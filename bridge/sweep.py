"""Removes what a crash or a reboot left of sandboxes and links."""

from __future__ import annotations

from bridge import namespaces
from bridge.errors import NetworkError
from bridge.instance import Instance
from bridge.leases import LeaseDatabase
from bridge.locks import Locks
from bridge.rtnetlink import RouteSocket
from bridge.sandboxes import Sandboxes


class Sweep:
    """Brings the database and the kernel together. The caller holds the instance's lock."""

    def __init__(
        self,
        instance: Instance,
        locks: Locks,
        leases: LeaseDatabase,
        route: RouteSocket,
        sandboxes: Sandboxes,
    ) -> None:
        self._instance = instance
        self._locks = locks
        self._leases = leases
        self._route = route
        self._sandboxes = sandboxes

    def all(self) -> tuple[list[str], list[Exception]]:
        """Sweep namespaces, sandboxes and links: what was done, and what failed."""
        done: list[str] = []
        failures: list[Exception] = []
        known = set(self._leases.sandboxes())
        present = {path.name for path in self._instance.namespaces.iterdir()}
        for name in sorted(known | present):
            try:
                done += self._sweep_sandbox(name, known=name in known, present=name in present)
            except (NetworkError, OSError) as exc:
                failures.append(exc)
        try:
            done += self._sweep_links()
        except (NetworkError, OSError) as exc:
            failures.append(exc)
        return done, failures

    def _sweep_sandbox(self, name: str, *, known: bool, present: bool) -> list[str]:
        """Remove a namespace that is nobody's, or forget a sandbox whose namespace is gone.

        What somebody is at work on is left alone.
        """
        path = self._instance.namespaces / name
        done = []
        with self._locks.try_sandbox(name) as free:
            if not free or (known and namespaces.is_bound(path)):
                return []
            if known:
                self._sandboxes.forget(name)
                done.append(f"forgot sandbox {name}, whose namespace is gone")
            if present:
                namespaces.release(path)
                done.append(f"removed namespace {name}")
        return done

    def _sweep_links(self) -> list[str]:
        """Remove bridges and endpoints' links that bear our mark and stand in no row."""
        done = []
        departed = self._leases.departed()
        bridges = {network.interface for network in self._leases.networks()}
        ends = {endpoint.link for endpoint in self._leases.endpoints()}
        for link in self._route.links():
            bridge = link.alias.startswith(self._instance.alias_prefix) or link.name.startswith(
                self._instance.bridge_prefix
            )
            stale_end = link.name.startswith(self._instance.link_prefix) and link.name not in ends
            if link.name in departed:
                departed.pop(link.name)
            elif stale_end or (bridge and link.kind == "bridge" and link.name not in bridges):
                self._route.delete_link(link.index)
                done.append(f"removed link {link.name}")
        for gone in departed:
            self._leases.delete_departed(gone)
        return done
