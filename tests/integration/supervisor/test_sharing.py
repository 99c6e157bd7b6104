"""What containers have of others: volumes, names by links; and a restart when they are unwell."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.supervisor.harbour import IMAGE, Harbour


def stack(**services: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "shop",
        "working_dir": "/srv/shop",
        "config_files": ["/srv/shop/compose.yaml"],
        "services": {
            name: {
                "image": IMAGE,
                "command": ["sleep", "1000"],
                "init": True,
                "networks": {"default": {}},
                "stop_grace_period": 500_000_000,
                **service,
            }
            for name, service in services.items()
        },
        "networks": {"default": {"name": "shop_default"}},
        "volumes": {"data": {"name": "shop_data"}},
    }


def hook(*command: str) -> dict[str, Any]:
    """A hook that fails unless the command succeeds in the container."""
    return {"command": ["sh", "-c", " ".join(command)]}


def test_volumes_from_has_the_volumes_of_another_container(harbour: Harbour) -> None:
    volume = {"type": "volume", "source": "data", "target": "/data"}
    harbour.up(
        stack(
            store={"volumes": [volume], "post_start": [hook("echo shared > /data/it")]},
            reader={
                "volumes_from": ["store:ro"],
                "depends_on": {"store": {"condition": "service_started"}},
                "post_start": [hook("test -f /data/it && ! touch /data/other")],
            },
        )
    )


def test_a_link_is_found_by_its_alias(harbour: Harbour) -> None:
    serve = "mkdir -p /tmp/www; echo hello > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
    fetch = "wget -q -O /tmp/got http://backend/ && exit"
    look = f"for n in 1 2 3 4 5 6 7 8 9; do {fetch}; sleep 0.1; done; exit 1"
    harbour.up(
        stack(
            db={"command": ["sh", "-c", serve]},
            web={
                "links": ["db:backend"],
                "depends_on": {"db": {"condition": "service_started"}},
                "post_start": [hook(look)],
            },
        )
    )


@pytest.mark.parametrize(
    "asking",
    [
        {"extensions": {"x-bayplan": {"restart_on_unhealthy": True}}},
        {"labels": {"autoheal": "true"}},
    ],
)
def test_an_unhealthy_container_is_restarted_if_it_asks_for_it(
    harbour: Harbour, asking: dict[str, Any]
) -> None:
    check = {"test": ["CMD", "test", "!", "-f", "/tmp/ill"], "interval": 100_000_000, "retries": 2}
    start = "test -f /tmp/once && rm -f /tmp/ill; touch /tmp/once; exec sleep 1000"
    harbour.up(
        stack(
            web={
                "command": ["sh", "-c", start],
                "healthcheck": check,
                "post_start": [hook("touch /tmp/ill")],
                **asking,
            }
        ),
        wait=False,
    )
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        (web,) = harbour.containers().values()
        if web["restarts"] >= 1 and web["health"] == "healthy":
            break
        time.sleep(0.05)
    assert web["restarts"] == 1 and web["health"] == "healthy"
