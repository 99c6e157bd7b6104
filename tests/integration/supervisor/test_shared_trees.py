"""What containers write into a git source's tree leads nobody to the host's own files."""

from __future__ import annotations

from typing import Any

from tests.integration.supervisor.harbour import IMAGE, Harbour


def stack(harbour: Harbour, word: str) -> dict[str, Any]:
    """A service that has the whole tree, and one with a volume that is a directory of it."""
    tree = str(harbour.root / "gitops/shop/tree")
    whole = {"type": "bind", "source": tree, "target": "/tree", "bind": {"beneath": tree}}
    services: dict[str, dict[str, Any]] = {
        "writer": {"volumes": [whole], "command": ["sh", "-c", "exec sleep 1000"]},
        "reader": {
            "volumes": [{"type": "volume", "source": "data", "target": "/x"}],
            "command": ["sh", "-c", "echo was here >> /x/visitors; exec sleep 1000"],
            "environment": {"WORD": word},
        },
    }
    for service in services.values():
        service |= {"image": IMAGE, "init": True, "stop_grace_period": 0, "network_mode": "none"}
    device = {"type": "none", "o": "bind", "device": f"{tree}/data"}
    return {
        "version": 1,
        "name": "shop",
        "working_dir": tree,
        "config_files": [f"{tree}/compose.yaml"],
        "services": services,
        "volumes": {"data": {"name": "shop_data", "driver_opts": device}},
    }


def test_a_link_in_place_of_a_volume_s_directory_leads_nowhere(harbour: Harbour) -> None:
    tree, outside = harbour.root / "gitops/shop/tree", harbour.root.parent / "outside"
    (tree / "data").mkdir(parents=True)
    outside.mkdir()
    harbour.up(stack(harbour, "one"))
    assert (tree / "data/visitors").read_text() == "was here\n"
    (tree / "data").rename(tree / "moved")
    (tree / "data").symlink_to(outside)
    ended = harbour.result("up", project=stack(harbour, "two"), options={"wait": True})
    assert not ended["ok"]
    assert list(outside.iterdir()) == []
