"""The lease database: which network has which subnet, which endpoint which address and port.

SQLite in WAL mode, every change one transaction that also serialises processes (BEGIN
IMMEDIATE), so that no address or port is ever given twice. Rows are written before the
kernel's objects are made and deleted after those are gone: what a crash leaves is a row
without an object, never an object that nobody knows of.

The file outlives a reboot; namespaces and links do not.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bridge.config import Endpoint, Network
from bridge.errors import NetworkError
from bridge.schema import MIGRATIONS, SCHEMA_VERSION

_NETWORK_COLUMNS = (
    "id, name, subnet, gateway, interface, ip_range, internal, mtu, labels, options, resolver_port"
)
_ENDPOINT_COLUMNS = (
    "sandbox_id, network_id, address, prefix, gateway, mac, interface, link, aliases,"
    " lease_key, priority"
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Binding:
    """A host port (`host_ip` "" for all addresses) and the container port behind it.

    `owner` is who published it; `sandboxes` whose `container_port` answers, in the order in
    which they came.
    """

    host_ip: str
    host_port: int
    protocol: str
    owner: str
    container_port: int
    sandboxes: tuple[str, ...] = ()


class LeaseDatabase:
    """One connection that threads share; `transaction()` serialises threads and processes."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            # A power cut may take the last transactions with it; then the kernel's objects,
            # which they speak of, are gone as well.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("PRAGMA foreign_keys=ON")
            self._connection.execute("PRAGMA cache_size=-256")  # KiB; 2 MB otherwise
            self._migrate(path)
        except BaseException:
            self._connection.close()
            raise

    def _migrate(self, path: Path) -> None:
        with self.transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise NetworkError(
                    f"lease database {path} has schema version {version},"
                    f" and this program knows up to {SCHEMA_VERSION}",
                    hint="a newer version made it; use that one",
                )
            while version < SCHEMA_VERSION:
                for statement in MIGRATIONS[version].split(";"):
                    self._connection.execute(statement)
                version += 1
                self._connection.execute(f"PRAGMA user_version={version}")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nested calls join the outer one."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    # networks

    def networks(self) -> tuple[Network, ...]:
        rows = self._rows(f"SELECT {_NETWORK_COLUMNS} FROM networks ORDER BY name, id")
        return tuple(_network(row) for row in rows)

    def network(self, network_id: str) -> Network | None:
        rows = self._rows(f"SELECT {_NETWORK_COLUMNS} FROM networks WHERE id = ?", network_id)
        return _network(rows[0]) if rows else None

    def add_network(self, network: Network) -> None:
        self._rows(
            f"INSERT INTO networks ({_NETWORK_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            network.id,
            network.name,
            network.subnet,
            network.gateway,
            network.interface,
            network.ip_range,
            int(network.internal),
            network.mtu,
            json.dumps(dict(network.labels), sort_keys=True),
            json.dumps(dict(network.options), sort_keys=True),
            network.resolver_port,
        )

    def delete_network(self, network_id: str) -> None:
        self._rows("DELETE FROM networks WHERE id = ?", network_id)

    def set_labels(self, network_id: str, labels: dict[str, str]) -> None:
        text = json.dumps(labels, sort_keys=True)
        self._rows("UPDATE networks SET labels = ? WHERE id = ?", text, network_id)

    def set_resolver_port(self, network_id: str, port: int | None) -> None:
        self._rows("UPDATE networks SET resolver_port = ? WHERE id = ?", port, network_id)

    # addresses

    def last_address(self, network_id: str) -> IPv4Address | None:
        rows = self._rows("SELECT last_address FROM networks WHERE id = ?", network_id)
        return IPv4Address(rows[0][0]) if rows and rows[0][0] else None

    def leases(self, network_id: str) -> dict[str, IPv4Address]:
        """Lease key -> address, oldest first."""
        rows = self._rows(
            "SELECT lease_key, address FROM leases WHERE network_id = ? ORDER BY rowid", network_id
        )
        return {key: IPv4Address(address) for key, address in rows}

    def addresses_in_use(self, network_id: str) -> dict[IPv4Address, str]:
        """Address -> the sandbox whose endpoint has it."""
        rows = self._rows(
            "SELECT address, sandbox_id FROM endpoints WHERE network_id = ?", network_id
        )
        return {IPv4Address(address): sandbox_id for address, sandbox_id in rows}

    def set_lease(self, network_id: str, lease_key: str, address: IPv4Address) -> None:
        """Give `address` to `lease_key`, taking it from whoever had it."""
        self._rows(
            "DELETE FROM leases WHERE network_id = ? AND (lease_key = ? OR address = ?)",
            network_id,
            lease_key,
            str(address),
        )
        self._rows("INSERT INTO leases VALUES (?,?,?)", network_id, lease_key, str(address))
        self._rows("UPDATE networks SET last_address = ? WHERE id = ?", str(address), network_id)

    def delete_lease(self, network_id: str, lease_key: str) -> None:
        self._rows(
            "DELETE FROM leases WHERE network_id = ? AND lease_key = ?", network_id, lease_key
        )

    # sandboxes and endpoints

    def sandboxes(self) -> tuple[str, ...]:
        return tuple(row[0] for row in self._rows("SELECT id FROM sandboxes ORDER BY id"))

    def has_sandbox(self, sandbox_id: str) -> bool:
        return bool(self._rows("SELECT 1 FROM sandboxes WHERE id = ?", sandbox_id))

    def add_sandbox(self, sandbox_id: str) -> None:
        self._rows("INSERT OR IGNORE INTO sandboxes VALUES (?)", sandbox_id)

    def delete_sandbox(self, sandbox_id: str) -> None:
        self._rows("DELETE FROM sandboxes WHERE id = ?", sandbox_id)

    def endpoints(
        self,
        *,
        sandbox_id: str | None = None,
        network_id: str | None = None,
        leading_out: bool = False,
    ) -> tuple[Endpoint, ...]:
        """In the order in which they were made; `leading_out`: those on networks that do."""
        conditions = {"sandbox_id = ?": sandbox_id, "network_id = ?": network_id}
        given = {text: value for text, value in conditions.items() if value is not None}
        texts = list(given)
        if leading_out:
            texts.append("network_id IN (SELECT id FROM networks WHERE NOT internal)")
        where = f" WHERE {' AND '.join(texts)}" if texts else ""
        rows = self._rows(
            f"SELECT {_ENDPOINT_COLUMNS} FROM endpoints{where} ORDER BY rowid", *given.values()
        )
        return tuple(_endpoint(row) for row in rows)

    def add_endpoint(self, endpoint: Endpoint) -> None:
        self._rows(
            f"INSERT INTO endpoints ({_ENDPOINT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            endpoint.sandbox_id,
            endpoint.network_id,
            endpoint.address,
            endpoint.prefix,
            endpoint.gateway,
            endpoint.mac,
            endpoint.interface,
            endpoint.link,
            json.dumps(endpoint.aliases),
            endpoint.lease_key,
            endpoint.priority,
        )

    def update_endpoint(self, endpoint: Endpoint) -> None:
        """Store what may change while it stands: link, aliases, priority."""
        self._rows(
            "UPDATE endpoints SET link = ?, aliases = ?, priority = ?"
            " WHERE sandbox_id = ? AND network_id = ?",
            endpoint.link,
            json.dumps(endpoint.aliases),
            endpoint.priority,
            endpoint.sandbox_id,
            endpoint.network_id,
        )

    def delete_endpoint(self, sandbox_id: str, network_id: str) -> None:
        self._rows(
            "DELETE FROM endpoints WHERE sandbox_id = ? AND network_id = ?", sandbox_id, network_id
        )

    def add_departed(self, endpoint: Endpoint) -> None:
        """Note that the endpoint's link goes when its namespace does, which nobody waits for."""
        self._rows(
            "INSERT OR REPLACE INTO departed VALUES (?,?,?)",
            endpoint.link,
            endpoint.network_id,
            endpoint.address,
        )

    def departed(self) -> dict[str, tuple[str, str]]:
        """Link -> network and address, of endpoints that may still be on their way out."""
        rows = self._rows("SELECT link, network_id, address FROM departed")
        return {row[0]: (row[1], row[2]) for row in rows}

    def delete_departed(self, link: str) -> None:
        self._rows("DELETE FROM departed WHERE link = ?", link)

    # published ports

    def bindings(self, *, owner: str | None = None) -> tuple[Binding, ...]:
        """All ports, or those of one owner, in the order in which they were published."""
        rows = self._rows(
            "SELECT p.host_ip, p.host_port, p.protocol, p.owner, p.container_port, b.sandbox_id"
            " FROM ports p LEFT JOIN backends b USING (host_port, protocol, host_ip)"
            " WHERE (?1 IS NULL OR p.owner = ?1) ORDER BY p.rowid, b.rowid",
            owner,
        )
        found: dict[tuple[str, int, str], Binding] = {}
        for host_ip, host_port, protocol, owner_, container_port, sandbox_id in rows:
            key = (host_ip, host_port, protocol)
            more = () if sandbox_id is None else (sandbox_id,)
            if key in found:
                more = (*found[key].sandboxes, *more)
            found[key] = Binding(
                host_ip=host_ip,
                host_port=host_port,
                protocol=protocol,
                owner=owner_,
                container_port=container_port,
                sandboxes=more,
            )
        return tuple(found.values())

    def is_backend(self, sandbox_id: str) -> bool:
        """Whether a published port leads to the sandbox."""
        return bool(self._rows("SELECT 1 FROM backends WHERE sandbox_id = ? LIMIT 1", sandbox_id))

    def port_owners(self) -> tuple[str, ...]:
        return tuple(row[0] for row in self._rows("SELECT DISTINCT owner FROM ports ORDER BY 1"))

    def port_holder(self, host_ip: str, host_port: int, protocol: str) -> str | None:
        """Who published a port that this one would meet: "" meets every address."""
        rows = self._rows(
            "SELECT owner FROM ports WHERE host_port = ?1 AND protocol = ?2"
            " AND (host_ip = ?3 OR host_ip = '' OR ?3 = '')",
            host_port,
            protocol,
            host_ip,
        )
        return str(rows[0][0]) if rows else None

    def set_binding(self, binding: Binding) -> None:
        """Reserve the port for its owner, where it is not, and lead it to exactly its sandboxes."""
        key = (binding.host_ip, binding.host_port, binding.protocol)
        self._rows(
            "INSERT INTO ports (host_ip, host_port, protocol, owner, container_port)"
            " VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE"
            " SET owner = excluded.owner, container_port = excluded.container_port",
            *key,
            binding.owner,
            binding.container_port,
        )
        self._rows(
            "DELETE FROM backends WHERE host_ip = ? AND host_port = ? AND protocol = ?", *key
        )
        for sandbox_id in binding.sandboxes:
            self._rows("INSERT INTO backends VALUES (?,?,?,?)", *key, sandbox_id)

    def delete_port(self, host_ip: str, host_port: int, protocol: str) -> None:
        """Forget one published port with its backends."""
        self._rows(
            "DELETE FROM ports WHERE host_port = ? AND protocol = ? AND host_ip = ?",
            host_port,
            protocol,
            host_ip,
        )

    def delete_ports(self, owner: str) -> None:
        """Forget the ports that `owner` published; as a sandbox it is no backend any more."""
        self._rows("DELETE FROM ports WHERE owner = ?", owner)
        self._rows("DELETE FROM backends WHERE sandbox_id = ?", owner)


def _network(row: sqlite3.Row) -> Network:
    return Network(
        id=row[0],
        name=row[1],
        subnet=row[2],
        gateway=row[3],
        interface=row[4],
        ip_range=row[5],
        internal=bool(row[6]),
        mtu=row[7],
        labels=json.loads(row[8]),
        options=json.loads(row[9]),
        resolver_port=row[10],
    )


def _endpoint(row: sqlite3.Row) -> Endpoint:
    return Endpoint(
        sandbox_id=row[0],
        network_id=row[1],
        address=row[2],
        prefix=row[3],
        gateway=row[4],
        mac=row[5],
        interface=row[6],
        link=row[7],
        aliases=tuple(json.loads(row[8])),
        lease_key=row[9],
        priority=row[10],
    )
