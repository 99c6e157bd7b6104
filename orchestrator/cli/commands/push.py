"""`bay push`: send the images of services to their registries."""

from __future__ import annotations

from orchestrator.cli.options import Argument, Command, flag
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    quiet: bool,
    ignore_push_failures: bool,
    include_deps: bool,
    service: tuple[str, ...],
) -> int:
    from orchestrator.cli import transfer
    from orchestrator.engine import transfers

    found = transfer.images_of(session, service, dependencies=include_deps)
    transfer.one_by_one(
        session,
        # As in Compose: what is built here is what there is to push.
        dict.fromkeys(image for image, built in found.values() if built),
        lambda reference, tell: transfers.push(session.root, reference, tell),
        word="Pushing",
        quiet=quiet,
        carry_on=ignore_push_failures,
    )
    return 0


COMMAND = Command(
    "push",
    run,
    summary="Push the images of services that are built here",
    options=(
        flag("-q", "--quiet", help="No progress"),
        flag("--ignore-push-failures", help="Go on when one cannot be pushed"),
        flag("--include-deps", help="Also what the services depend on"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
