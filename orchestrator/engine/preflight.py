"""What can be known to fail before a plan makes anything."""

from __future__ import annotations

from collections import Counter

from bridge.config import ANY_ADDRESS, MOST_ENDPOINTS
from bridge.errors import AddressPoolExhausted, PortInUse
from bridge.ports import probe
from orchestrator.engine.endpoints import PortRequest
from orchestrator.engine.errors import EngineError
from orchestrator.engine.host import Host
from orchestrator.engine.sandboxes import own_sandbox
from orchestrator.engine.traffic import service_key, shared_requests
from orchestrator.planning.actions import (
    CreateContainer,
    RemoveContainer,
    RemoveNetwork,
    StopContainer,
)
from orchestrator.planning.observed import Spec
from orchestrator.planning.plan import Plan

# What Docker calls the runtime that it uses when none is named.
_OWN_RUNTIMES = ("", "runc", "io.containerd.runc.v2")

_Place = tuple[str, int, str]


def check(host: Host, plan: Plan) -> None:
    """Raise PortInUse, AddressPoolExhausted or EngineError for what cannot succeed; blocking."""
    check_addresses(host, plan)
    check_ports(host, plan)


def check_addresses(host: Host, plan: Plan) -> None:
    """Raise AddressPoolExhausted, or EngineError, for a network without room for the plan's new
    containers; blocking.

    Those of a rollout are not looked at: they take turns.
    """
    freed = _freed(plan)
    coming: Counter[str] = Counter()
    for step in plan.steps:
        action = step.action
        if not isinstance(action, CreateContainer) or action.role != "current":
            continue
        if own_sandbox(action.spec["service"]):
            coming.update(set(action.spec["networks"].values()))
    for name, count in coming.items():
        if count > MOST_ENDPOINTS:
            raise EngineError(
                f"network {name} would have {count} containers, of which a bridge holds "
                f"{MOST_ENDPOINTS}",
                hint="spread the services over several networks",
            )
    made = {step.action.name for step in plan.steps if isinstance(step.action, RemoveNetwork)}
    names = {record.id: record.name for record in host.store.containers()}
    for network in host.networks.list():
        if network.name not in coming or network.name in made:
            continue
        there = host.networks.endpoints(network_id=network.id)
        staying = sum(names.get(endpoint.sandbox_id, "") not in freed for endpoint in there)
        if staying + coming[network.name] > network.room:
            raise AddressPoolExhausted(
                f"address for {coming[network.name]} more containers in network {network.name} "
                f"({network.subnet}, {staying} of {network.room} taken)",
                hint="bay down, then bay up makes the network anew, with room for all of them "
                "unless ipam gives it a subnet that is too small",
            )


def _freed(plan: Plan) -> set[str]:
    """The containers that the plan stops."""
    return {
        step.action.name
        for step in plan.steps
        if isinstance(step.action, StopContainer | RemoveContainer)
    }


def check_ports(host: Host, plan: Plan) -> None:
    """Raise PortInUse for a port that the plan's new containers cannot get; blocking.

    Ports of containers that the plan stops are free by then; one whose choice is left to the
    host, or that comes from a range, is not looked at.
    """
    freed = _freed(plan)
    held: dict[_Place, str] = {}
    ours: set[tuple[int, str]] = set()
    staying: set[str] = set()
    for record in host.store.containers():
        if record.name not in freed:
            staying.add(service_key(record))
        for port in host.networks.published(record.id):
            if record.name in freed:
                ours.add((port.host_port, port.protocol))
            else:
                held[port.host_ip or ANY_ADDRESS, port.host_port, port.protocol] = record.name
    for key in host.networks.port_owners():
        for port in host.networks.published(key) if "/" in key else ():
            ours.add((port.host_port, port.protocol))
            if key in staying:
                held[port.host_ip or ANY_ADDRESS, port.host_port, port.protocol] = key
    for step in plan.steps:
        action = step.action
        if isinstance(action, CreateContainer):
            check_service(action.service, action.spec["service"])
        if not isinstance(action, CreateContainer) or not own_sandbox(action.spec["service"]):
            continue
        key = f"{action.project.name}/{action.service}"
        for request in shared_requests(action.spec["service"]):
            _check(request, held, key)
            if (request.candidates[0], request.protocol) not in ours:
                probe(request.host_ip, request.candidates[0], request.protocol)


def check_service(name: str, service: Spec) -> None:
    """Raise EngineError for what no container of the service could have here."""
    runtime = service.get("runtime") or ""
    if runtime not in _OWN_RUNTIMES:
        raise EngineError(
            f"service {name}: there is no runtime {runtime}",
            hint="drop runtime; bayplan runs containers by itself",
        )
    userns = service.get("userns_mode") or "host"
    if userns != "host":
        raise EngineError(
            f"service {name}: userns_mode {userns} is not supported", hint="use host, or drop it"
        )
    resources = (service.get("deploy") or {}).get("resources") or {}
    requests = [
        *(service.get("gpus") or ()),
        *((resources.get("reservations") or {}).get("devices") or ()),
    ]
    if requests:
        raise EngineError(
            f"service {name} asks for GPUs, which are not handed to containers",
            hint="name device files under devices, or drop gpus and reservations.devices",
        )


def _check(request: PortRequest, held: dict[_Place, str], owner: str) -> None:
    """`owner` is the service, whose replicas share a port of one number."""
    address, port = request.host_ip or ANY_ADDRESS, request.candidates[0]
    for (other, other_port, protocol), holder in held.items():
        same = ANY_ADDRESS in (address, other) or address == other
        if same and port == other_port and protocol == request.protocol and holder != owner:
            kind = "service" if "/" in holder else "container"
            raise PortInUse(address, port, protocol, f"{kind} {holder}")
    held[address, port, request.protocol] = owner
