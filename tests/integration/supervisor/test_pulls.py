"""Images come from a registry by themselves, with what people need to know on the way."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runtime.images.store import ImageStore
from runtime.oci.image_config import ImageConfig
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
def registry(harbour: Harbour, *names: str, image: str = IMAGE) -> Iterator[None]:
    """A registry in the harbour that has the image by these names."""
    storage = harbour.root.parent / "registry"
    server = subprocess.Popen(
        [
            *("nsenter", f"--net=/run/netns/{harbour.netns}", sys.executable, "-I", "-c"),
            *(_REGISTRY, str(harbour.root), str(storage), PLACE, image, *names),
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


def foreign_image(harbour: Harbour, name: str) -> None:
    """An image for s390x, whose program this machine cannot execute."""
    buffer = io.BytesIO()
    # What the kernel looks at: an ELF header of machine 22, big-endian (elf(5)).
    program = b"\x7fELF\x02\x02\x01".ljust(16, b"\0") + struct.pack(">HH", 2, 22) + bytes(44)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("program")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    buffer.seek(0)
    store = ImageStore(harbour.root)
    config = ImageConfig(architecture="s390x", cmd=("/program",))
    with store.lease() as lease:
        store.create_image(config, [store.add_layer(buffer, lease=lease)], [name], lease=lease)


def test_the_platform_of_a_service_is_pulled_and_what_cannot_run_here_is_told(
    harbour: Harbour,
) -> None:
    name = f"{PLACE}/one:1"
    foreign_image(harbour, "foreign")
    with registry(harbour, name, image="foreign"):
        other = harbour.result("up", project=stack(name, platform="linux/arm64"), options={})
        assert not other["ok"]
        message = other["error"]["message"]
        assert f"image {name} is for linux/s390x, not for linux/arm64" in message

        project = stack(name, platform="linux/s390x", command=None, init=False)
        ended = harbour.result("up", project=project, options={})
    assert not ended["ok"], ended
    assert "the image is for linux/s390x, this machine is" in ended["error"]["hint"]
    assert ended["exit_code"] == 126, ended
