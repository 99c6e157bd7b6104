"""Which TCP ports of a host are free: only somebody who has bound one stands in the way."""

from __future__ import annotations

import socket

import pytest

from bridge.errors import PortInUse
from bridge.ports import probe


def test_a_port_that_connections_go_out_by_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        port = client.getsockname()[1]
        server, _ = listener.accept()
        assert probe("", port, "tcp") == port
        client.close()
        server.close()
        assert probe("", port, "tcp") == port  # it lingers in TIME_WAIT


def test_a_port_with_a_listener_is_not_free_whatever_connections_it_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), pytest.raises(PortInUse):
            probe("", address[1], "tcp")


def test_a_port_that_somebody_has_only_bound_is_not_free() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(PortInUse):
            probe("", bound.getsockname()[1], "tcp")
