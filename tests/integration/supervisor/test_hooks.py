"""Hooks for real: in the container, and in containers of their own."""

from __future__ import annotations

from typing import Any

from tests.integration.supervisor.harbour import IMAGE, Harbour


def stack(**attributes: Any) -> dict[str, Any]:
    service = {
        "image": IMAGE,
        "command": ["sh", "-c", "test -f /data/migrated && exec sleep 1000"],
        "init": True,
        "networks": {"default": {}},
        "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
        "pre_start": [{"command": ["touch", "/data/migrated"]}],
        **attributes,
    }
    return {
        "version": 1,
        "name": "shop",
        "working_dir": "/srv/shop",
        "config_files": ["/srv/shop/compose.yaml"],
        "services": {"web": service},
        "networks": {"default": {"name": "shop_default"}},
        "volumes": {"data": {"name": "shop_data"}},
    }


def data(harbour: Harbour, name: str) -> str:
    return (harbour.root / "volumes" / "shop_data" / "_data" / name).read_text().strip()


def test_hooks_run_before_the_start_after_it_and_before_the_stop(harbour: Harbour) -> None:
    project = stack(
        post_start=[
            {
                "command": ["sh", "-c", "echo $WHO $(pwd) > /data/started"],
                "environment": {"WHO": "hook"},
                "working_dir": "/tmp",
            }
        ],
        pre_stop=[{"command": ["sh", "-c", "echo bye > /data/stopping"]}],
    )
    harbour.up(project)
    assert set(harbour.containers()) == {"shop-web-1"}
    assert harbour.containers()["shop-web-1"]["state"] == "running"
    assert data(harbour, "started") == "hook /tmp"
    assert harbour.result("stop", services=[], options={"timeout": 0})["ok"]
    assert data(harbour, "stopping") == "bye"


def test_an_init_container_that_fails_keeps_the_service_from_starting(harbour: Harbour) -> None:
    project = stack(pre_start=[{"command": ["sh", "-c", "echo no database; exit 3"]}])
    result = harbour.result("up", project=project, options={})
    assert not result["ok"]
    assert "shop-web-pre-start-1 exited with 3" in result["error"]["message"]
    assert "shop-web-1" not in harbour.containers()
    harbour.up(stack())
    assert set(harbour.containers()) == {"shop-web-1"}


def test_a_hook_that_fails_is_told_with_what_it_wrote(harbour: Harbour) -> None:
    project = stack(post_start=[{"command": ["sh", "-c", "echo no luck; exit 4"]}])
    result = harbour.result("up", project=project, options={})
    assert result["error"]["type"] == "HookFailed"
    assert result["error"]["message"].endswith("exited with 4: no luck")
