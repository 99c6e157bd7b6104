"""What one instance calls its things in the kernel, so that two never touch each other's.

An instance is its root directory. A tag from that path is part of every link's name, of every
bridge's alias and of the name of the packet filter's table.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import InvalidNetwork
from bridge.surroundings import TABLE_PREFIX

_TAG_LENGTH = 5
_SANDBOX_ID = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_+.-]{0,199}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The names and places of the instance with this state and this runtime directory."""

    root: Path
    run: Path
    tag: str

    @classmethod
    def of(cls, root: Path, run: Path) -> Instance:
        return cls(root=root, run=run, tag=_short(str(root.resolve()), _TAG_LENGTH))

    @property
    def table(self) -> str:
        return f"{TABLE_PREFIX}{self.tag}"

    @property
    def database(self) -> Path:
        return self.root / "networks" / "leases.db"

    @property
    def lock(self) -> Path:
        return self.run / "networks.lock"

    @property
    def namespaces(self) -> Path:
        return self.run / "netns"

    def namespace(self, sandbox_id: str) -> Path:
        """Where the sandbox's network namespace is bound; the id must be a plain name."""
        if not _SANDBOX_ID.fullmatch(sandbox_id):
            raise InvalidNetwork(f"sandbox id {sandbox_id!r} is not a plain name")
        return self.namespaces / sandbox_id

    @property
    def bridge_prefix(self) -> str:
        return f"bp{self.tag}-"

    @property
    def link_prefix(self) -> str:
        return f"bv{self.tag}-"

    def bridge(self, network_id: str) -> str:
        """The name of a network's bridge: 15 bytes, the most that a link may have."""
        return f"{self.bridge_prefix}{_short(network_id, 7)}"

    def new_link(self) -> str:
        """A fresh name for the host's end of an endpoint.

        Random, because the end of an earlier endpoint of the same sandbox may still be on
        its way out of the kernel.
        """
        return f"{self.link_prefix}{_short(secrets.token_hex(8), 7)}"

    def alias(self, network_id: str) -> str:
        """The alias that marks a bridge as ours, whatever its name."""
        return f"{self.alias_prefix}{network_id}"

    @property
    def alias_prefix(self) -> str:
        return f"bayplan:{self.tag}:"


def _short(text: str, length: int) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest).decode().lower()[:length]
