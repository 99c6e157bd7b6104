"""`bay port`: where a container's port is published."""

from __future__ import annotations

from orchestrator.cli import choosing
from orchestrator.cli.errors import UsageError
from orchestrator.cli.options import Argument, Command, choice, number
from orchestrator.cli.session import Session


def run(
    session: Session, *, protocol: str | None, index: float | None, service: str, private_port: str
) -> int:
    wanted, _, suffix = private_port.partition("/")
    if not wanted.isdigit():
        raise UsageError(f"{private_port} is no port")
    kind = suffix or protocol or "tcp"
    container = choosing.one(session, service, index)
    for port in container["ports"]:
        if port["container_port"] == int(wanted) and port["protocol"] == kind:
            host = port["host_ip"] or "0.0.0.0"
            print(f"[{host}]:{port['host_port']}" if ":" in host else f"{host}:{port['host_port']}")
            return 0
    raise UsageError(f"no port {wanted}/{kind} of container {container['name']} is published")


COMMAND = Command(
    "port",
    run,
    summary="Print where a port is published",
    options=(
        choice("--protocol", help="Protocol [tcp]", choices=("tcp", "udp", "sctp")),
        number("--index", help="Which of several replicas", metavar="NUMBER"),
    ),
    arguments=(
        Argument("service", help="Service whose container to use"),
        Argument("private_port", metavar="PORT", help="Port inside the container"),
    ),
)
