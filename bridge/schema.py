"""The lease database's tables, and how those of an older version become them."""

from __future__ import annotations

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    subnet TEXT NOT NULL UNIQUE,
    gateway TEXT NOT NULL,
    interface TEXT NOT NULL UNIQUE,
    ip_range TEXT,
    internal INTEGER NOT NULL,
    mtu INTEGER,
    labels TEXT NOT NULL,
    options TEXT NOT NULL,
    resolver_port INTEGER,
    last_address TEXT
) STRICT;
CREATE TABLE leases (
    network_id TEXT NOT NULL REFERENCES networks(id) ON DELETE CASCADE,
    lease_key TEXT NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (network_id, lease_key),
    UNIQUE (network_id, address)
) STRICT;
CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY
) STRICT;
CREATE TABLE endpoints (
    sandbox_id TEXT NOT NULL REFERENCES sandboxes(id) ON DELETE CASCADE,
    network_id TEXT NOT NULL REFERENCES networks(id),
    address TEXT NOT NULL,
    prefix INTEGER NOT NULL,
    gateway TEXT NOT NULL,
    mac TEXT NOT NULL,
    interface TEXT NOT NULL,
    link TEXT NOT NULL UNIQUE,
    aliases TEXT NOT NULL,
    lease_key TEXT NOT NULL,
    priority INTEGER NOT NULL,
    PRIMARY KEY (sandbox_id, network_id),
    UNIQUE (network_id, address),
    UNIQUE (sandbox_id, interface)
) STRICT;
CREATE TABLE departed (
    link TEXT PRIMARY KEY,
    network_id TEXT NOT NULL REFERENCES networks(id) ON DELETE CASCADE,
    address TEXT NOT NULL
) STRICT;
CREATE TABLE ports (
    host_ip TEXT NOT NULL,
    host_port INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    owner TEXT NOT NULL,
    PRIMARY KEY (host_port, protocol, host_ip)
) STRICT;
CREATE TABLE backends (
    host_ip TEXT NOT NULL,
    host_port INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    sandbox_id TEXT NOT NULL REFERENCES sandboxes(id) ON DELETE CASCADE,
    container_port INTEGER NOT NULL,
    PRIMARY KEY (host_port, protocol, host_ip, sandbox_id, container_port),
    FOREIGN KEY (host_port, protocol, host_ip)
        REFERENCES ports(host_port, protocol, host_ip) ON DELETE CASCADE
) STRICT;
"""

# A published port leads to any number of sandboxes, and keeps what it leads to in them while
# there is none.
_SERVICES = """
ALTER TABLE ports ADD COLUMN container_port INTEGER NOT NULL DEFAULT 0;
DELETE FROM ports WHERE NOT EXISTS (
    SELECT 1 FROM backends b
    WHERE b.host_ip = ports.host_ip AND b.host_port = ports.host_port
        AND b.protocol = ports.protocol
);
UPDATE ports SET container_port = (
    SELECT container_port FROM backends b
    WHERE b.host_ip = ports.host_ip AND b.host_port = ports.host_port
        AND b.protocol = ports.protocol
);
CREATE TABLE backends_2 (
    host_ip TEXT NOT NULL,
    host_port INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    sandbox_id TEXT NOT NULL REFERENCES sandboxes(id) ON DELETE CASCADE,
    PRIMARY KEY (host_port, protocol, host_ip, sandbox_id),
    FOREIGN KEY (host_port, protocol, host_ip)
        REFERENCES ports(host_port, protocol, host_ip) ON DELETE CASCADE
) STRICT;
INSERT INTO backends_2
    SELECT DISTINCT host_ip, host_port, protocol, sandbox_id FROM backends ORDER BY rowid;
DROP TABLE backends;
ALTER TABLE backends_2 RENAME TO backends;
CREATE INDEX backends_of ON backends(sandbox_id)
"""

MIGRATIONS: dict[int, str] = {0: _SCHEMA, 1: _SERVICES}  # from this version to the next
