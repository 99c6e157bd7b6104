"""Images for the command line, which moves them itself: with the person's own credentials, and
whether or not a daemon runs. The store is safe for several processes.

What speaks HTTP is imported where it is used: it takes longer than most of what needs it not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runtime.errors import InvalidState
from runtime.images.changes import changes
from runtime.images.flat import export
from runtime.images.load import load
from runtime.images.merged import MergedTree
from runtime.images.platforms import parse_platform
from runtime.images.save import save
from runtime.images.store import ImageStore
from runtime.tree_sizes import tree_size

if TYPE_CHECKING:
    from runtime.registry.progress import TransferEvent as TransferEvent
    from runtime.registry.server.config import TokenAccess

    Tell = Callable[[TransferEvent], None]


def pull(root: str, reference: str, tell: Tell, platform: str = "") -> str:
    """Fetch an image, for this machine's platform where none is given; its id. Raises
    ImageNotFound, ImageError and RegistryErrors."""
    import asyncio

    from orchestrator.engine.images import check_platform
    from runtime.registry import pull as registry_pull
    from runtime.registry.settings import read_settings

    work = registry_pull.pull(
        reference,
        store=ImageStore(root),
        platform=parse_platform(platform) if platform else None,
        config=read_settings(),
        progress=tell,
    )
    image = asyncio.run(work)
    check_platform(reference, image, platform)
    return image.id


def push(root: str, reference: str, tell: Tell) -> str:
    """Send an image to its registry; the digest that it has there."""
    import asyncio

    from runtime.registry import push as registry_push
    from runtime.registry.settings import read_settings

    store = ImageStore(root)
    work = registry_push.push(reference, store=store, config=read_settings(), progress=tell)
    return asyncio.run(work).digest


def copy(source: str, destination: str, tell: Tell) -> str:
    """Copy from registry to registry; the digest."""
    import asyncio

    from runtime.registry import copy as registry_copy
    from runtime.registry.settings import read_settings

    work = registry_copy.copy(source, destination, read_settings(), tell)
    return asyncio.run(work).digest


def login(server: str, username: str, password: str) -> tuple[str, str]:
    """Try and keep credentials: the registry, and where they are kept."""
    import asyncio

    from runtime.registry import login as registry_login
    from runtime.registry.settings import read_settings

    done = asyncio.run(registry_login.login(server, username, password, read_settings()))
    return done.registry, done.kept_in


def logout(server: str) -> tuple[str, bool]:
    """Forget credentials: the registry, and whether there were any."""
    import asyncio

    from runtime.registry import login as registry_login
    from runtime.registry.settings import read_settings

    found = asyncio.run(registry_login.logout(server, read_settings()))
    return registry_login.registry_domain(server), found


def present(root: str, reference: str) -> bool:
    from runtime.errors import ImageNotFound

    try:
        ImageStore(root).resolve(reference)
    except ImageNotFound:
        return False
    return True


def tag(root: str, image: str, reference: str) -> None:
    ImageStore(root).tag(reference, image)


def save_to(root: str, references: Sequence[str], stream: IO[bytes]) -> None:
    save(ImageStore(root), references, stream.write)


def load_from(root: str, stream: IO[bytes]) -> list[tuple[str, ...]]:
    """The names of each image of an archive, or its id where it has none."""
    return [image.references or (image.id,) for image in load(ImageStore(root), stream)]


def import_from(
    root: str, stream: IO[bytes], reference: str | None, edits: Sequence[str], message: str
) -> str:
    from runtime.build.commit import import_image

    names = (reference,) if reference else ()
    store = ImageStore(root)
    return import_image(store, stream, references=names, changes=edits, message=message).id


def history(root: str, reference: str) -> list[dict[str, Any]]:
    """Newest first."""
    store = ImageStore(root)
    return [dataclasses.asdict(line) for line in store.history(store.resolve(reference))]


def prune(
    root: str,
    *,
    everything: bool,
    used: Collection[str],
    until: datetime | None,
    labels: Mapping[str, str | None],
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Names taken away, ids deleted, bytes freed."""
    removed = ImageStore(root).prune(everything=everything, used=used, until=until, labels=labels)
    return removed.untagged, removed.deleted, removed.freed


def disk_usage(root: str) -> dict[str, int]:
    return {key: int(value) for key, value in dataclasses.asdict(usage_of(root)).items()}


def usage_of(root: str) -> Any:
    return ImageStore(root).disk_usage()


def check_images(root: str) -> tuple[str, ...]:
    """Every fault of the image store, found by reading all of it."""
    return ImageStore(root).check()


def directory_size(path: str) -> int:
    """Bytes on disk below a directory, links not followed."""
    return tree_size(path, on_disk=True)


def export_container(root: str, run: str, id: str, stream: IO[bytes]) -> None:
    """The merged tree of a container as one archive, its volumes left out as in Docker."""
    from runtime.container.containers import Containers

    containers = Containers(Path(root), Path(run))
    config = containers.config(id)
    export((*config.layers, str(containers.upper(id))), stream.write)


def container_changes(root: str, run: str, id: str) -> list[tuple[str, str]]:
    """What a container's writable layer changed: (A, C or D, path)."""
    from runtime.container.containers import Containers

    containers = Containers(Path(root), Path(run))
    with MergedTree(containers.config(id).layers) as lower:
        return [(change.kind, change.path) for change in changes(containers.upper(id), lower)]


def commit_container(
    root: str,
    run: str,
    id: str,
    image: str,
    *,
    reference: str | None,
    edits: Sequence[str],
    author: str,
    message: str,
    pause: bool,
) -> str:
    """Make an image of a container's base `image` and what it changed; the new id. A running
    one is frozen meanwhile with `pause`."""
    from runtime.build.commit import commit
    from runtime.container.containers import Containers

    containers = Containers(Path(root), Path(run))
    with contextlib.ExitStack() as held:
        if pause and containers.get(id).status == "running":
            # One that has ended meanwhile writes no more.
            with contextlib.suppress(InvalidState):
                held.enter_context(containers.hold(id))
        store = ImageStore(root)
        made = commit(
            store,
            store.resolve(image),
            containers.upper(id),
            references=(reference,) if reference else (),
            changes=edits,
            author=author,
            message=message,
        )
    return made.id


def serve_registry(
    storage: str,
    listen: str,
    *,
    certificate: str | None,
    key: str | None,
    htpasswd: str | None,
    read_only: bool,
    proxy: str | None,
    tokens: Mapping[str, str | None],
    newest: int | None,
    tag_age: float | None,
    untagged_age: float | None,
    protect: tuple[str, ...],
) -> None:
    """Run a registry until SIGTERM or SIGINT. `tokens` are the options of that name; what is kept
    is as in `Retention` (seconds; None: all, for ever)."""
    import asyncio

    from runtime.registry.server.app import serve
    from runtime.registry.server.config import Proxy, Retention, ServerConfig
    from runtime.registry.settings import read_settings

    config = ServerConfig(
        storage=Path(storage),
        listen=listen,
        tls_certificate=Path(certificate) if certificate else None,
        tls_key=Path(key) if key else None,
        htpasswd=Path(htpasswd) if htpasswd else None,
        token=_token_access(tokens),
        read_only=read_only,
        retention=Retention(
            newest=newest, tag_age=tag_age, untagged_age=untagged_age, protect=protect
        ),
        proxy=Proxy(remote=proxy, registry=read_settings()) if proxy else None,
    )

    def ready(address: str) -> None:
        print(f"listening on {address}", file=sys.stderr, flush=True)

    asyncio.run(serve(config, ready=ready))


def check_registry(storage: str) -> tuple[str, ...]:
    """Every fault of what a registry keeps, which may go on serving. Raises NotFound."""
    from runtime.errors import NotFound
    from runtime.registry.server.check import check
    from runtime.registry.server.storage import Storage

    if not Path(storage, "registry.db").exists():
        raise NotFound("registry storage", storage)
    with contextlib.closing(Storage(Path(storage))) as opened:
        return check(opened)


def _token_access(given: Mapping[str, str | None]) -> TokenAccess | None:
    from runtime.registry.server.config import TokenAccess

    if not given.get("token_realm"):
        return None
    secret, certificates = given.get("token_secret"), given.get("token_certs")
    return TokenAccess(
        realm=given.get("token_realm") or "",
        service=given.get("token_service") or "",
        issuer=given.get("token_issuer") or "",
        secret=Path(secret).read_bytes().strip() if secret else b"",
        certificates=Path(certificates) if certificates else None,
    )
