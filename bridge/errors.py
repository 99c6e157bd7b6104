"""What can go wrong with networks, as types that carry what a person needs.

NetworkError
├── NetworkNotFound, SandboxNotFound
├── NetworkMismatch       a network of that id exists with another configuration
├── NetworkInUse          endpoints still stand on it
├── InvalidNetwork        a configuration that contradicts itself
├── Unsupported           understood, but not offered here
├── AddressPoolExhausted  no free subnet, or no free address in a subnet
├── SubnetOverlap         an explicit subnet meets a route, an address or a network
├── AddressInUse          an explicit address belongs to another lease
├── PortInUse             a host port is taken, by us or by another program
├── LinkError             the kernel refused a link, an address or a route
├── RulesError            the kernel refused the packet filter rules
└── TeardownError         a group: everything that failed while taking something down
"""

from __future__ import annotations


class NetworkError(Exception):
    """Base of all errors of this package; `hint` says what a person can do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class NetworkNotFound(NetworkError):
    def __init__(self, network: str) -> None:
        super().__init__(f"no such network: {network}")
        self.network = network


class SandboxNotFound(NetworkError):
    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"no such sandbox: {sandbox_id}")
        self.sandbox_id = sandbox_id


class NetworkMismatch(NetworkError):
    """The network exists, but `field` differs from what is asked for."""

    def __init__(self, network: str, field: str, existing: object, wanted: object) -> None:
        super().__init__(
            f"network {network} exists with {field} {existing}, not {wanted}",
            hint="remove the network first, or give the new one another name",
        )
        self.network = network
        self.field = field


class NetworkInUse(NetworkError):
    def __init__(self, network: str, sandboxes: tuple[str, ...]) -> None:
        super().__init__(f"network {network} is in use by {', '.join(sandboxes)}")
        self.network = network
        self.sandboxes = sandboxes


class InvalidNetwork(NetworkError):
    """A subnet, gateway, address, name or option that cannot be right."""


class Unsupported(NetworkError):
    """A request that is understood but not offered."""


class AddressPoolExhausted(NetworkError):
    def __init__(self, what: str, *, hint: str | None = None) -> None:
        super().__init__(f"no free {what} is left", hint=hint)


class SubnetOverlap(NetworkError):
    def __init__(self, subnet: str, other: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"subnet {subnet} overlaps {other}",
            hint=hint or "choose another subnet for the network",
        )
        self.subnet = subnet
        self.other = other


class AddressInUse(NetworkError):
    def __init__(self, address: str, network: str, holder: str) -> None:
        super().__init__(f"address {address} of network {network} is in use by {holder}")
        self.address = address
        self.network = network
        self.holder = holder


class PortInUse(NetworkError):
    """`holder` names the program or sandbox that has the port, where that could be found."""

    def __init__(self, host_ip: str, port: int, protocol: str, holder: str | None = None) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(
            f"port {host_ip}:{port}/{protocol} is already in use{by}",
            hint="publish another host port, or stop what holds this one",
        )
        self.host_ip = host_ip
        self.port = port
        self.protocol = protocol
        self.holder = holder


class LinkError(NetworkError):
    """The kernel refused a change of links, addresses or routes; `errno` is its answer."""

    def __init__(self, attempted: str, errno: int, message: str) -> None:
        super().__init__(f"cannot {attempted}: {message}")
        self.errno = errno


class RulesError(NetworkError):
    """The packet filter rules could not be read or changed."""


class TeardownError(ExceptionGroup[Exception], NetworkError):
    """Everything that failed while something was taken down; the rest was taken down."""

    hint: str | None = None
