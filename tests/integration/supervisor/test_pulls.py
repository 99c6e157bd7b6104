"""Images come from a registry by themselves, with what people need to know on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.integration.supervisor.harbour import IMAGE, Harbour

PLACE = "127.0.0.1:15000"

_REGISTRY = """
import asyncio, sys
from pathlib import Path
from runtime.images.store import ImageStore
from runtime.registry.push import push
from runtime.registry.server.app import serving
from runtime.registry.server.config import ServerConfig

async def main():
    store = ImageStore(Path(sys.argv[1]))
    async with serving(ServerConfig(storage=Path(sys.argv[2]), listen=sys.argv[3])):
        for name in sys.argv[5:]:
            store.tag(name, store.resolve(sys.argv[4]).id)
            await push(name, store=store)
            store.untag(name)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@contextmanager
def registry(harbour: Harbour, *names: str) -> Iterator[None]:
    """A registry in the harbour that has the image by these names."""
    storage = harbour.root.parent / "registry"
    server = subprocess.Popen(
        [
            *("nsenter", f"--net=/run/netns/{harbour.netns}", sys.executable, "-I", "-c"),
            *(_REGISTRY, str(harbour.root), str(storage), PLACE, IMAGE, *names),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        yield
    finally:
        server.communicate(timeout=20)


def stack(*names: str, **attributes: Any) -> dict[str, Any]:
    service = {"command": ["sleep", "1000"], "init": True, "networks": {"default": {}}}
    return {
        "version": 1,
        "name": "shop",
        "working_dir": "/srv/shop",
        "config_files": ["/srv/shop/compose.yaml"],
        "services": {
            f"s{number}": {**service, "image": name, **attributes}
            for number, name in enumerate(names)
        },
        "networks": {"default": {"name": "shop_default"}},
    }


def test_several_images_are_pulled_at_once_and_tell_how_far_they_are(harbour: Harbour) -> None:
    names = (f"{PLACE}/one:1", f"{PLACE}/two:1")
    with registry(harbour, *names):
        body = {"project": stack(*names), "options": {}}
        events = list(harbour.post("up", **body))
    assert events[-1]["ok"], events[-1]
    pulls = [event for event in events if event["type"] == "pull"]
    assert {event["image"] for event in pulls} == set(names)
    assert {"resolved", "done"} <= {event["stage"] for event in pulls}
    assert {c["state"] for c in harbour.containers().values()} == {"running"}


def test_an_image_that_is_always_pulled_recreates_nothing_while_it_is_the_same(
    harbour: Harbour,
) -> None:
    name = f"{PLACE}/one:1"
    project = stack(name, pull_policy="always")
    with registry(harbour, name):
        harbour.up(project)
        before = {c["id"] for c in harbour.containers().values()}
        steps = harbour.up(project)
    assert [step["action"] for step in steps] == ["PullImage"]
    assert {c["id"] for c in harbour.containers().values()} == before


def test_without_its_registry_a_run_says_what_it_could_not_reach(harbour: Harbour) -> None:
    result = harbour.result("up", project=stack(f"{PLACE}/one:1"), options={})
    assert not result["ok"]
    assert result["error"]["message"].startswith(f"pull {PLACE}/one:1: {PLACE} cannot be reached:")
    assert harbour.containers() == {}


def test_an_image_that_must_not_be_pulled_is_not_asked_for(harbour: Harbour) -> None:
    name = f"{PLACE}/one:1"
    with registry(harbour, name):
        result = harbour.result("up", project=stack(name, pull_policy="never"), options={})
    assert result["error"]["type"] == "ImageNotFound"
