"""`bay network`: the networks on this host."""

from __future__ import annotations

from orchestrator.cli import output
from orchestrator.cli.options import Command, Group, choice, flag
from orchestrator.cli.session import Session


def _list(session: Session, *, quiet: bool, format: str | None) -> int:
    networks = session.client.get("/v1/networks", project=session.given_name)
    if quiet:
        for network in networks:
            print(output.short_id(network["id"]))
    elif format == "json":
        for network in networks:
            output.as_json(
                {
                    "Driver": network.get("driver", "bridge"),
                    "ID": output.short_id(network["id"]),
                    "Internal": network.get("internal", False),
                    "Labels": ",".join(
                        f"{name}={value}" for name, value in (network.get("labels") or {}).items()
                    ),
                    "Name": network["name"],
                    "Scope": "local",
                    "Subnet": network.get("subnet"),
                    "Gateway": network.get("gateway"),
                }
            )
    else:
        output.table(
            ("NETWORK ID", "NAME", "DRIVER", "SUBNET"),
            [
                (
                    output.short_id(network["id"]),
                    network["name"],
                    network.get("driver", "bridge"),
                    str(network.get("subnet") or ""),
                )
                for network in networks
            ],
        )
    return 0


GROUP = Group(
    "network",
    Command(
        "ls",
        _list,
        summary="List networks (with -p: of that project)",
        options=(
            flag("-q", "--quiet", help="Only ids"),
            choice("--format", help="Output format", choices=("table", "json")),
        ),
    ),
    summary="Manage networks",
)
