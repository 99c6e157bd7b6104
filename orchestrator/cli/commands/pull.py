"""`bay pull`: fetch the images of services."""

from __future__ import annotations

from orchestrator.cli.options import Argument, Command, choice, flag
from orchestrator.cli.session import Session


def run(
    session: Session,
    *,
    quiet: bool,
    policy: str | None,
    ignore_buildable: bool,
    ignore_pull_failures: bool,
    include_deps: bool,
    service: tuple[str, ...],
) -> int:
    from orchestrator.cli import transfer
    from orchestrator.engine import transfers

    project, names = transfer.selected(session, service, dependencies=include_deps)
    found = transfer.images(project, names)
    buildable = {image for image, built in found.values() if built}
    wanted = dict.fromkeys(
        image
        for image in (
            *(image for image, _ in found.values()),
            *transfer.mounted_images(project, names),
        )
        if not (image in buildable and ignore_buildable)
        and not (policy == "missing" and transfers.present(session.root, image))
    )
    platforms = transfer.platforms(project, names, session.environ)
    for carry_on in (False, True):
        # What can be built here need not be in any registry.
        some = [image for image in wanted if (image in buildable) == carry_on]
        transfer.one_by_one(
            session,
            some,
            lambda reference, tell: transfers.pull(
                session.root, reference, tell, platforms.get(reference, "")
            ),
            word="Pulling",
            quiet=quiet,
            carry_on=carry_on or ignore_pull_failures,
        )
    return 0


COMMAND = Command(
    "pull",
    run,
    summary="Pull the images of services",
    options=(
        flag("-q", "--quiet", help="No progress"),
        choice("--policy", help="Which to pull [always]", choices=("missing", "always")),
        flag("--ignore-buildable", help="Leave out what can be built"),
        flag("--ignore-pull-failures", help="Go on when one cannot be pulled"),
        flag("--include-deps", help="Also what the services depend on"),
    ),
    arguments=(Argument("service", many=True, required=False, help="Services (default: all)"),),
)
