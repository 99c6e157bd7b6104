"""The networks of one instance: the package's front door.

Everything here is level-triggered: what is asked for is written down in the lease database,
and the kernel's links, namespaces and rules are made to match it. Asking twice changes
nothing, and after a crash or a reboot `sweep` brings both together again.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from bridge.addresses import check_same, design_network, host_subnets, uplink_mtu
from bridge.bridges import ensure_bridge, ensure_forwarding, remove_bridge
from bridge.config import (
    Endpoint,
    EndpointConfig,
    Network,
    NetworkConfig,
    PublishedPort,
    check_network,
)
from bridge.conntrack import forget_udp, open_connections, open_socket
from bridge.drift import concerned, out_of_place
from bridge.errors import NetworkError, NetworkInUse, NetworkNotFound, TeardownError
from bridge.firewall import Firewall
from bridge.instance import Instance
from bridge.leases import LeaseDatabase
from bridge.locks import Locks
from bridge.publishing import Publishing, check_service
from bridge.rtnetlink import RouteSocket
from bridge.ruleset import udp_ports_moved
from bridge.sandboxes import Sandboxes
from bridge.sweep import Sweep

Report = list[str]  # what was done, a line each; the class below has a method called list

_RESOLV_CONF = Path("/etc/resolv.conf")


class Networks:
    """Networks, sandboxes and published ports of the instance at `root` and `run`.

    For any number of threads and processes (`locks` says how). Sockets belong to the network
    namespace of the thread that makes this object.
    """

    def __init__(self, root: Path, run: Path) -> None:
        self._instance = Instance.of(root, run)
        self._instance.database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.make_places()
        self._locks = Locks(run)
        self._leases = LeaseDatabase(self._instance.database)
        with contextlib.ExitStack() as opened:
            opened.callback(self._leases.close)
            self._route = opened.enter_context(RouteSocket())
            self._conntrack = opened.enter_context(open_socket())
            self._counting = opened.enter_context(open_socket())
            self._opened = opened.pop_all()
        self._numbers = itertools.count(1)
        self._wanted = self._settled = 0
        self._firewall = Firewall(self._instance.table)
        self._sandboxes = Sandboxes(self._instance, self._locks, self._leases, self._route)
        self._sweep = Sweep(self._instance, self._locks, self._leases, self._route, self._sandboxes)
        self._publishing = Publishing(self._leases, self._sandboxes, self._firewall)

    def __enter__(self) -> Networks:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def make_places(self) -> None:
        """Make the directory in which namespaces are held, where somebody has removed it."""
        self._instance.namespaces.mkdir(mode=0o700, parents=True, exist_ok=True)

    # networks

    def create(self, config: NetworkConfig) -> Network:
        """Make the network be there; one that is, as asked for, stays as it is.

        Raises NetworkMismatch, SubnetOverlap, AddressPoolExhausted, InvalidNetwork…
        """
        check_network(config)
        with self._locks.instance():
            existing = self._leases.network(config.id)
            if existing is None:
                host = host_subnets(self._route, resolv_conf=_host_resolv_conf())
                mtu = uplink_mtu(self._route)
                with self._leases.transaction():
                    network = design_network(self._instance, self._leases, config, host, mtu)
                    self._leases.add_network(network)
            else:
                check_same(existing, config)
                self._leases.set_labels(config.id, dict(config.labels))
            try:
                self._ensure(config.id)
            except BaseException:
                if existing is None:
                    self._forget(network)
                raise
            return self.get(config.id)

    def ensure(self, network_id: str) -> tuple[str, ...]:
        """Repair the network's links, addresses and rules; what had to be done."""
        with self._locks.instance():
            return tuple(self._ensure(network_id))

    def remove(self, network_id: str) -> None:
        """Remove the network with its leases. Raises NetworkInUse, NetworkNotFound."""
        with self._locks.instance():
            network = self.get(network_id)
            users = sorted({e.sandbox_id for e in self._leases.endpoints(network_id=network_id)})
            if users:
                raise NetworkInUse(network.name, tuple(users))
            self._forget(network)

    def get(self, network_id: str) -> Network:
        """Raises NetworkNotFound."""
        network = self._leases.network(network_id)
        if network is None:
            raise NetworkNotFound(network_id)
        return network

    def list(self) -> tuple[Network, ...]:
        return self._leases.networks()

    def set_resolver_port(self, network_id: str, port: int | None) -> None:
        """Lead what the network's containers ask of its gateway's port 53 to `port` there."""
        with self._locks.instance():
            self.get(network_id)
            self._leases.set_resolver_port(network_id, port)
            self._apply_rules()

    # sandboxes

    def open_sandbox(self, sandbox_id: str) -> Path:
        """The sandbox's network namespace: a file to pass to setns(2), its loopback up."""
        with self._locks.sandbox(sandbox_id):
            return self._sandboxes.open(sandbox_id)

    def connect(self, sandbox_id: str, config: EndpointConfig) -> Endpoint:
        """Put the sandbox on a network. Raises NetworkNotFound, SandboxNotFound, AddressInUse…

        The address of a `lease_key` is the first sandbox's that comes with it, for as long as
        it is on the network, and then the next one's. A sandbox that comes while another has
        it (two generations of a replica) gets another address, which it gives up with its
        place on the network; it does not take over the key's own later. So a replica that is
        replaced without a gap has in turn the key's address and one of its own choice. An
        address that is asked for outright cannot be had by two: AddressInUse, so that such
        a replica is to be stopped before the next one starts.
        """
        with self._locks.sandbox(sandbox_id):
            before = self._sandboxes.way_out(sandbox_id)
            endpoint = self._sandboxes.connect(sandbox_id, config)
            self._follow_ports(sandbox_id, before)
            return endpoint

    def disconnect(self, sandbox_id: str, network_id: str) -> None:
        """Take the sandbox off a network, running or not; not being on it is as good."""
        with self._locks.sandbox(sandbox_id):
            before = self._sandboxes.way_out(sandbox_id)
            with self._locks.instance():
                self._sandboxes.disconnect(sandbox_id, network_id)
            self._follow_ports(sandbox_id, before)

    def close_sandbox(self, sandbox_id: str, *, release: bool) -> None:
        """Drop the sandbox's namespace, endpoints and published ports; none is as good.

        With `release` its addresses may go to others; without, the same lease keys get
        them again. Raises TeardownError with everything that failed.
        """
        with self._locks.sandbox(sandbox_id):
            failures: list[Exception] = []
            published = self._leases.is_backend(sandbox_id)
            self._leases.delete_ports(sandbox_id)
            if published:
                try:
                    self._apply_rules()
                except NetworkError as exc:
                    failures.append(exc)
            try:
                self._sandboxes.close(sandbox_id, release=release)
            except OSError as exc:
                failures.append(exc)
            if failures:
                raise TeardownError(f"cannot take down sandbox {sandbox_id}", failures)

    def namespace(self, sandbox_id: str) -> Path:
        """Where the sandbox's network namespace is, if it is there."""
        return self._instance.namespace(sandbox_id)

    def sandboxes(self) -> tuple[str, ...]:
        return self._leases.sandboxes()

    def endpoints(
        self, *, sandbox_id: str | None = None, network_id: str | None = None
    ) -> tuple[Endpoint, ...]:
        """All endpoints, or one sandbox's, or one network's, oldest first."""
        return self._leases.endpoints(sandbox_id=sandbox_id, network_id=network_id)

    def release_lease(self, network_id: str, lease_key: str) -> None:
        """Let the address that is kept for `lease_key` go to others."""
        with self._locks.instance():
            self._leases.delete_lease(network_id, lease_key)

    # published ports

    def publish(self, sandbox_id: str, ports: Sequence[PublishedPort]) -> tuple[PublishedPort, ...]:
        """Make `ports` be exactly what the sandbox publishes; they come back with every host
        port and address filled in. Raises PortInUse, InvalidNetwork, Unsupported."""
        return self._publish(sandbox_id, ports, (sandbox_id,))

    def balance(
        self, service: str, ports: Sequence[PublishedPort], sandboxes: Sequence[str]
    ) -> tuple[PublishedPort, ...]:
        """Make `ports` be exactly what the service ("project/service") publishes, and lead them
        to exactly `sandboxes`, new connections in equal shares; as `publish` otherwise.

        The switch from one set of sandboxes to another is one transaction of the packet
        filter: every new connection goes to the old set or to the new one, and what is
        connected stays where it is (`draining.drain` waits for it to end). A UDP client, which
        never says that it has ended, stays while its backend does and else follows at once.

        Without `sandboxes` the ports are refused but stay the service's; `unpublish(service)`
        gives them up. A port that one of `sandboxes` has published for itself passes to the
        service without a gap.
        """
        check_service(service)
        return self._publish(service, ports, sandboxes)

    def unpublish(self, owner: str) -> None:
        """Give up the ports of a service, or of a sandbox, which then is no service's backend
        any more either."""
        self._leases.delete_ports(owner)
        self._apply_rules()

    def published(self, owner: str) -> tuple[PublishedPort, ...]:
        """The ports of a service, or those that a sandbox has published for itself."""
        return self._publishing.published(owner)

    def backends(self, service: str) -> tuple[str, ...]:
        """The sandboxes that new connections to the service's ports go to."""
        found = (b.sandboxes for b in self._leases.bindings(owner=service))
        return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))

    def connections(self, sandbox_id: str) -> int:
        """How many TCP connections that published ports led to the sandbox are open now."""
        endpoints = self._leases.endpoints(sandbox_id=sandbox_id)
        return sum(open_connections(self._counting, IPv4Address(e.address)) for e in endpoints)

    def port_owners(self) -> tuple[str, ...]:
        """Every service and sandbox that has published ports."""
        return self._leases.port_owners()

    # the whole

    def sweep(self) -> tuple[str, ...]:
        """After a start: repair or remove whatever a crash or a reboot left; what was done.

        Goes on after a failure, and raises TeardownError with all of them at the end.
        """
        with self._locks.instance():
            done, failures = self._sweep.all()
            for network in self._leases.networks():
                try:
                    done += self._ensure(network.id)
                except (NetworkError, OSError) as exc:
                    failures.append(exc)
            try:
                self._apply_rules(anyway=True)
            except (NetworkError, OSError) as exc:
                failures.append(exc)
            if failures:
                raise TeardownError("cannot put all networks in order", failures)
            return tuple(done)

    # what `watch` asks

    @property
    def table(self) -> str:
        """The name of the packet filter's table, of family ip."""
        return self._instance.table

    def link_names(self) -> dict[int, str]:
        """The host's links: index -> name."""
        with self._locks.instance():
            return {link.index: link.name for link in self._route.links()}

    def drifted(self, names: Collection[str] | None = None) -> frozenset[str]:
        """The networks whose links or addresses are not as they should be.

        With `names`, it is only looked at all when one of our links bears one of them.
        """
        with self._locks.instance():
            networks, endpoints = self._leases.networks(), self._leases.endpoints()
            if names is not None and not concerned(names, networks, endpoints):
                return frozenset()
            found = self._out_of_place(networks, endpoints)
            if found:
                # What somebody is at work on is not to be judged before he is done.
                idle = [e for e in endpoints if e.network_id not in found or self._is_idle(e)]
                found = self._out_of_place(networks, idle)
            return found

    def rules_touched(self) -> bool:
        """Whether somebody else changed packet filter rules since ours were known to be right."""
        with self._locks.rules():
            return self._firewall.is_touched()

    def obstacles(self) -> tuple[str, ...]:
        """Other tables' chains ("ip filter FORWARD") that drop whatever nobody accepts on its
        way through the host, as Docker and some firewalls have them: containers reach the
        world only if those are told to accept the bridges' traffic."""
        with self._locks.rules():
            return self._firewall.blocking_chains()

    def close(self) -> None:
        """Let go of everything; the rules too when no network is left to need them."""
        with self._locks.instance():
            if not self._leases.networks():
                self._firewall.remove()
            self._firewall.close()
            self._opened.close()

    # inside the locks

    def _ensure(self, network_id: str) -> Report:
        network = self.get(network_id)
        done = ["let the host forward packets"] if ensure_forwarding() else []
        done += ensure_bridge(self._route, self._instance, network)
        done += self._sandboxes.repair(network)
        if self._apply_rules(anyway=True):
            done.append("put the packet filter rules in place")
        return done

    def _publish(
        self, owner: str, ports: Sequence[PublishedPort], sandboxes: Sequence[str]
    ) -> tuple[PublishedPort, ...]:
        owners = {owner, *sandboxes}
        with self._locks.instance():
            before = [b for owner in owners for b in self._leases.bindings(owner=owner)]
            resolved = self._publishing.publish(owner, ports, sandboxes)
        try:
            self._apply_rules()
        except BaseException:
            with self._locks.instance():
                self._publishing.restore(owners, before)
            raise
        return resolved

    def _forget(self, network: Network) -> None:
        """Remove the bridge, then the row, then the rules."""
        remove_bridge(self._route, self._instance, network)
        self._leases.delete_network(network.id)
        self._apply_rules()

    def _apply_rules(self, *, anyway: bool = False) -> bool:
        """Make the rules be what the database calls for; whether they were anything else.

        Whoever comes while somebody else is at it finds, unless he wants it `anyway`, that his
        changes have been taken along by the next one: many ports are one transaction.
        """
        mine = self._wanted = next(self._numbers)
        with self._locks.rules():
            if self._settled >= mine and not anyway:
                return False
            reached = self._wanted  # before the database is read
            ruleset = self._publishing.ruleset()
            before = self._firewall.applied
            if ruleset.networks or ruleset.ports:
                changed = self._firewall.apply(ruleset)
            else:
                self._firewall.remove()
                changed = False
            self._settled = reached
            moved = udp_ports_moved(before, ruleset)
            if moved:
                local = {address for _, address, _ in self._route.addresses()}
                forget_udp(self._conntrack, moved, local)
            return changed

    def _follow_ports(self, sandbox_id: str, before: Endpoint | None) -> None:
        """After endpoints came or went: the sandbox's ports may lead to another one now."""
        out = self._sandboxes.way_out(sandbox_id)
        if out != before and self._leases.is_backend(sandbox_id):
            self._apply_rules()
            if out is not None:
                self._sandboxes.hairpin(out)

    def _out_of_place(
        self, networks: Sequence[Network], endpoints: Sequence[Endpoint]
    ) -> frozenset[str]:
        return out_of_place(networks, endpoints, self._route.links(), self._route.addresses())

    def _is_idle(self, endpoint: Endpoint) -> bool:
        with self._locks.try_sandbox(endpoint.sandbox_id) as free:
            return free


def _host_resolv_conf() -> str:
    try:
        return _RESOLV_CONF.read_text(errors="replace")
    except OSError:
        return ""  # a host without one has no name server to keep clear of
