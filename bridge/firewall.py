"""Keeps the kernel's packet filter rules equal to a ruleset, touching only what differs."""

from __future__ import annotations

import contextlib

from bridge.errors import RulesError
from bridge.ruleset import PORT_MAPS, Ruleset, difference, install, remove
from bridge.surroundings import blocking_chains, meets, other_instances, published_ports
from runtime.linux.nftables import Nftables, RulesRefused


class Firewall:
    """The rules of one instance. For one thread at a time, but for `other_instance`.

    What was applied last is remembered with the kernel's generation number: while that
    stands, a change is the difference between two values. When somebody else changed
    rules (other tables included), the own table is read and compared with how it looked,
    and replaced as a whole when it does not look like that any more.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._nftables: Nftables | None = None
        self._applied: Ruleset | None = None
        self._generation: int | None = None
        self._listing: str | None = None
        self._others: dict[str, set[tuple[str, int, str]]] = {}
        self._others_generation: int | None = None

    @property
    def applied(self) -> Ruleset | None:
        """The rules that were put in place last; None when that is not known."""
        return self._applied

    def close(self) -> None:
        if self._nftables is not None:
            self._nftables.close()
            self._nftables = None

    def apply(self, ruleset: Ruleset) -> bool:
        """Make the rules be `ruleset`; whether they were anything else. Raises RulesError."""
        before = self._current()
        if self._applied is None or not self._is_intact(before):
            return self._replace(ruleset)
        text = difference(self._table, self._applied, ruleset)
        if not text:
            self._settle(before)
            return False
        try:
            self._run(text)
        except RulesError:
            return self._replace(ruleset)  # somebody came in between; what counts is the whole
        self._applied = ruleset
        self._listing = None
        after = self._current()
        # More than one step means that somebody else changed something as well.
        alone = after == before + 1
        self._generation = after if alone else None
        if alone and self._others_generation == before:
            self._others_generation = after
        return True

    def is_touched(self) -> bool:
        """Whether rules, of any table, were changed since this one was last known to be right."""
        return self._applied is None or self._current() != self._generation

    def other_instance(self, host_ip: str, host_port: int, protocol: str) -> str | None:
        """The table of another instance that publishes a port which this one would meet.

        Nothing listens on a published port, so that binding it does not tell.
        """
        current = self._current()
        if current != self._others_generation:
            self._others = self._ports_of_others()
            self._others_generation = current
        for table, found in self._others.items():
            if meets(found, host_ip, host_port, protocol):
                return table
        return None

    def _ports_of_others(self) -> dict[str, set[tuple[str, int, str]]]:
        """Table of another instance -> what it publishes."""
        found = {}
        for table in other_instances(self._run("list tables ip"), self._table):
            maps = (f"list map ip {table} {name}" for name in PORT_MAPS)
            # One that has just gone, or is of another make, publishes nothing.
            with contextlib.suppress(RulesError):
                found[table] = published_ports([self._run(command) for command in maps])
        return found

    def blocking_chains(self) -> tuple[str, ...]:
        """Chains of others that may keep containers from the world, as "family table chain"."""
        return blocking_chains(self._run("list chains"))

    def _replace(self, ruleset: Ruleset) -> bool:
        """Put the whole table in place; whether it looks different from before."""
        before = self._list()
        self._run(install(self._table, ruleset))
        self._applied = ruleset
        self._generation = self._current()
        self._listing = self._list()
        # The chains of ports stand in the order in which they came.
        return sorted(before.splitlines()) != sorted(self._listing.splitlines())

    def remove(self) -> None:
        """Remove the table; none is as good."""
        self._run(remove(self._table))
        self._applied = None

    def _is_intact(self, current: int) -> bool:
        if current == self._generation:
            return True
        if self._listing is None:
            return False
        return self._list() == self._listing

    def _settle(self, current: int) -> None:
        """Remember how the table looks while it is known to be right."""
        if self._listing is None:
            listing = self._list()
            if self._current() != current:
                return
            self._listing = listing
        self._generation = current

    def _list(self) -> str:
        try:
            return self._run(f"list table ip {self._table}")
        except RulesError:
            return ""  # the table is gone

    def _run(self, text: str) -> str:
        try:
            return self._open().run(text)
        except RulesRefused as exc:
            raise RulesError(f"the kernel refused the rules of table {self._table}: {exc}") from exc

    def _current(self) -> int:
        """The generation of all rules now."""
        try:
            return self._open().generation()
        except OSError as exc:
            raise RulesError(
                f"cannot talk to the packet filter: {exc.strerror}",
                hint="the kernel needs nf_tables, and this program CAP_NET_ADMIN",
            ) from exc

    def _open(self) -> Nftables:
        if self._nftables is None:
            try:
                self._nftables = Nftables()
            except OSError as exc:
                raise RulesError(
                    f"cannot load the packet filter library: {exc}", hint="install libnftables1"
                ) from exc
        return self._nftables
