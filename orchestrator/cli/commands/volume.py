"""`bay volume`: the volumes on this host."""

from __future__ import annotations

from orchestrator.cli import output
from orchestrator.cli.options import Argument, Command, Group, choice, flag
from orchestrator.cli.session import Session
from orchestrator.client.http import quote

_PROJECT_LABEL = "com.docker.compose.project"


def _list(session: Session, *, quiet: bool, format: str | None) -> int:
    volumes = session.client.get("/v1/volumes", project=session.given_name)
    if quiet:
        for volume in volumes:
            print(volume["name"])
    elif format == "json":
        for volume in volumes:
            output.as_json(
                {
                    "Driver": volume.get("driver", "local"),
                    "Labels": ",".join(
                        f"{name}={value}" for name, value in (volume.get("labels") or {}).items()
                    ),
                    "Mountpoint": volume.get("mountpoint", ""),
                    "Name": volume["name"],
                    "Scope": "local",
                }
            )
    else:
        output.table(
            ("DRIVER", "VOLUME NAME", "PROJECT"),
            [
                (
                    volume.get("driver", "local"),
                    volume["name"],
                    (volume.get("labels") or {}).get(_PROJECT_LABEL, ""),
                )
                for volume in volumes
            ],
        )
    return 0


def _remove(session: Session, *, name: tuple[str, ...]) -> int:
    for volume in name:
        session.client.delete(f"/v1/volumes/{quote(volume)}")
        print(volume)
    return 0


GROUP = Group(
    "volume",
    Command(
        "ls",
        _list,
        summary="List volumes (with -p: of that project)",
        options=(
            flag("-q", "--quiet", help="Only names"),
            choice("--format", help="Output format", choices=("table", "json")),
        ),
    ),
    Command(
        "rm",
        _remove,
        summary="Remove volumes and what is in them",
        arguments=(Argument("name", many=True, metavar="VOLUME", help="Names of volumes"),),
    ),
    summary="Manage volumes",
)
