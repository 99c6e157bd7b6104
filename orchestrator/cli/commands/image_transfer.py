"""The verbs of `bay image` that move images: registries, archives, names, upkeep."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from orchestrator.cli import output
from orchestrator.cli.archive_output import archive_output
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, choice, flag, repeated, text
from orchestrator.cli.session import Session

if TYPE_CHECKING:
    from datetime import datetime


def _pull(session: Session, *, platform: str | None, quiet: bool, image: tuple[str, ...]) -> int:
    from orchestrator.cli.transfer import one_by_one
    from orchestrator.engine import transfers

    wanted = platform or session.environ.get("DOCKER_DEFAULT_PLATFORM") or ""
    work = one_by_one(
        session,
        image,
        lambda reference, tell: transfers.pull(session.root, reference, tell, wanted),
        word="Pulling",
        quiet=quiet,
    )
    for identifier in work.values():
        print(identifier)
    return 0


def _push(session: Session, *, quiet: bool, image: tuple[str, ...]) -> int:
    from orchestrator.cli.transfer import one_by_one
    from orchestrator.engine import transfers

    work = one_by_one(
        session,
        image,
        lambda reference, tell: transfers.push(session.root, reference, tell),
        word="Pushing",
        quiet=quiet,
    )
    for reference, digest in work.items():
        print(f"{reference}@{digest}")
    return 0


def _copy(session: Session, *, source: str, target: str) -> int:
    from orchestrator.cli.transfer import one_by_one
    from orchestrator.engine import transfers

    done = one_by_one(
        session, [target], lambda to, tell: transfers.copy(source, to, tell), word="Copying"
    )
    print(f"{target}@{done[target]}")
    return 0


def _tag(session: Session, *, image: str, reference: str) -> int:
    from orchestrator.engine import transfers

    transfers.tag(session.root, image, reference)
    return 0


def _save(session: Session, *, output: str | None, image: tuple[str, ...]) -> int:
    from orchestrator.engine import transfers

    with archive_output(session, output) as stream:
        transfers.save_to(session.root, image, stream)
    return 0


def _load(session: Session, *, input: str | None, quiet: bool) -> int:
    from orchestrator.engine import transfers

    if input is None:
        found = transfers.load_from(session.root, sys.stdin.buffer)
    else:
        with open(os.path.join(session.cwd, input), "rb") as file:
            found = transfers.load_from(session.root, file)
    for names in found:
        for name in names if not quiet else ():
            print(f"Loaded image: {name}")
    return 0


def _import(
    session: Session,
    *,
    change: tuple[str, ...],
    message: str | None,
    archive: str,
    reference: str | None,
) -> int:
    from orchestrator.engine import transfers

    if archive == "-":
        made = transfers.import_from(
            session.root, sys.stdin.buffer, reference, change, message or ""
        )
    else:
        with open(os.path.join(session.cwd, archive), "rb") as file:
            made = transfers.import_from(session.root, file, reference, change, message or "")
    print(made)
    return 0


def _history(session: Session, *, no_trunc: bool, format: str | None, image: str) -> int:
    from orchestrator.engine import transfers

    lines = transfers.history(session.root, image)
    if format == "json":
        output.as_json(lines)
        return 0
    rows = []
    for line in lines:
        made = " ".join(line["created_by"].split())
        short = made if no_trunc or len(made) <= 45 else made[:44] + "…"
        age = output.age(line["created"])
        rows.append(
            (f"{age} ago" if age else "", short, output.size(line["size"]), line["comment"])
        )
    output.table(("CREATED", "CREATED BY", "SIZE", "COMMENT"), rows)
    return 0


def _prune(session: Session, *, all: bool, force: bool, filter: tuple[str, ...]) -> int:
    from orchestrator.engine import transfers

    until, labels = _filters(filter)
    if not force:
        which = "images without a container" if all else "images without a name"
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to confirm the removal", hint="--force needs none")
        print(f"This removes all {which}. Continue? [yN] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 0
    used = {
        id
        for project in session.client.get("/v1/projects")
        for container in session.client.get(
            session.project_path("containers", project["name"]), all=1
        )
        for id in (container["image_id"], *container["mounted_images"])
    }
    untagged, deleted, freed = transfers.prune(
        session.root, everything=all, used=used, until=until, labels=labels
    )
    for name in untagged:
        print(f"Untagged: {name}")
    for identifier in deleted:
        print(f"Deleted: {identifier}")
    print(f"Total reclaimed space: {output.size(freed)}")
    return 0


def _filters(words: tuple[str, ...]) -> tuple[datetime | None, dict[str, str | None]]:
    from datetime import UTC, datetime

    from orchestrator.cli.logs import instant

    until: datetime | None = None
    labels: dict[str, str | None] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key == "until" and value:
            until = datetime.fromtimestamp(instant(value, time.time()), UTC)
        elif key == "label" and value:
            name, equals, wanted = value.partition("=")
            labels[name] = wanted if equals else None
        else:
            raise UsageError(f"--filter {word}: until=TIME and label=NAME[=VALUE] are there")
    return until, labels


_IMAGES = Argument("image", many=True, help="References or ids of images")
_QUIET = flag("-q", "--quiet", help="No progress")
_CHANGE = repeated("-c", "--change", help="Dockerfile instruction to apply", metavar="INSTRUCTION")
_MESSAGE = text("-m", "--message", help="Remark for the image's history", metavar="TEXT")

COMMANDS = (
    Command(
        "pull",
        _pull,
        summary="Pull images",
        options=(
            text(
                "--platform",
                help="For another machine than this [DOCKER_DEFAULT_PLATFORM]",
                metavar="OS/ARCH",
            ),
            _QUIET,
        ),
        arguments=(_IMAGES,),
    ),
    Command("push", _push, summary="Push images", options=(_QUIET,), arguments=(_IMAGES,)),
    Command(
        "copy",
        _copy,
        summary="Copy an image from registry to registry, all platforms of it",
        arguments=(
            Argument("source", help="Reference to copy"),
            Argument("target", help="Reference to give it"),
        ),
    ),
    Command(
        "tag",
        _tag,
        summary="Give an image a further name",
        arguments=(
            Argument("image", help="Reference or id"),
            Argument("reference", help="The further name"),
        ),
    ),
    Command(
        "save",
        _save,
        summary="Write images as an archive",
        options=(text("-o", "--output", help="Write to a file", metavar="FILE"),),
        arguments=(_IMAGES,),
    ),
    Command(
        "load",
        _load,
        summary="Read images from an archive",
        options=(text("-i", "--input", help="Read from a file", metavar="FILE"), _QUIET),
    ),
    Command(
        "import",
        _import,
        summary="Make an image from an archive of a file system",
        options=(_CHANGE, _MESSAGE),
        arguments=(
            Argument("archive", help="File, or - for standard input"),
            Argument("reference", required=False, help="Name of the image"),
        ),
    ),
    Command(
        "history",
        _history,
        summary="Show the steps that made an image",
        options=(
            flag("--no-trunc", help="Whole lines"),
            choice("--format", help="Output format", choices=("table", "json")),
        ),
        arguments=(Argument("image", help="Reference or id"),),
    ),
    Command(
        "prune",
        _prune,
        summary="Remove images that nobody needs",
        options=(
            flag("-a", "--all", help="Also named ones that no container uses"),
            flag("--force", help="Do not ask"),
            repeated("--filter", help="until=TIME, label=NAME[=VALUE]", metavar="FILTER"),
        ),
    ),
)
