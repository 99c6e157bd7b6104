"""What a registry server is told: where it keeps, whom it serves, how much it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.registry.endpoints import Credentials, RegistryConfig

GIB = 1024**3
HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what clients may ask for. Sizes in bytes, times in seconds.

    An upload that nobody touches for `upload_expiry` is dropped; of more than `uploads` at
    once, empty and idle ones make place, or the new one is refused with 429. `page` is the
    longest page of tags, repositories or referrers.
    """

    blob: int = 64 * GIB
    uploads: int = 1000
    upload_expiry: float = DAY
    page: int = 1000
    minimum_free: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept. None keeps for ever; times in seconds.

    A tag goes when it is not among the `newest` of its repository, or older than
    `tag_age` since it was last pushed; tags that match a pattern of `protect` (shell
    patterns) stay. A manifest without a tag goes after `untagged_age`. A blob that no
    manifest names goes after `unused_age`: an upload under way has that long to push its
    manifest.
    """

    newest: int | None = None
    tag_age: float | None = None
    protect: tuple[str, ...] = ()
    untagged_age: float | None = None
    unused_age: float = DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAccess:
    """Bearer tokens: JSON web tokens of `issuer` for `service`, from the token service at `realm`.

    `secret` is shared with it (HS256), or `certificates` is a PEM file of certificates whose
    keys check what it signs (RS256, ES256). Other algorithms, and keys that come with a token
    (`jwk`, `x5c`, `jku`), are not taken.
    """

    realm: str
    service: str
    issuer: str
    secret: bytes = field(default=b"", repr=False)
    certificates: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Serve another registry's content: `remote` is its domain or URL.

    What nobody has pulled for `ttl` seconds is dropped. A tag is looked up at the remote
    when its last look is more than `fresh` seconds old.
    """

    remote: str
    ttl: float = 7 * DAY
    fresh: float = 0.0
    credentials: Credentials | None = None
    registry: RegistryConfig = field(default_factory=RegistryConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """A registry server. `listen` is `host:port` (port 0: any); times in seconds.

    `tls_certificate` and `tls_key` are PEM files. `htpasswd` holds bcrypt entries.
    `collect_every` None leaves garbage alone.
    """

    storage: Path
    listen: str = "127.0.0.1:5000"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    htpasswd: Path | None = None
    token: TokenAccess | None = None
    read_only: bool = False
    delete: bool = True
    proxy: Proxy | None = None
    limits: Limits = field(default_factory=Limits)
    retention: Retention = field(default_factory=Retention)
    collect_every: float | None = HOUR
    metrics: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
