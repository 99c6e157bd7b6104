"""Debian's docker-registry as a peer, skopeo as a client, and images to move about.

Every process listens on a port of its own choice on the loopback address and is ended by
who started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from runtime.images.layers import Layer
from runtime.images.store import Image, ImageStore
from runtime.oci.image_config import ImageConfig
from runtime.registry.endpoints import RegistryConfig

NOBODY = Path("/nonexistent/docker")


def required(program: str) -> str:
    """The path of a peer's program; skips the test where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def quick(**changes: object) -> RegistryConfig:
    """A configuration that reads nobody's files and does not wait long."""
    given: dict[str, object] = {
        "docker_config": NOBODY,
        "certificates": (),
        "first_delay": 0.01,
        "longest_delay": 0.05,
        "connect_timeout": 10.0,
        "read_timeout": 20.0,
    }
    return RegistryConfig(**{**given, **changes})  # type: ignore[arg-type]  # by name, as given


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_image(
    store: ImageStore, reference: str, *, sizes: tuple[int, ...] = (1000, 300_000), seed: int = 1
) -> Image:
    """An image with one layer per size, of bytes that do not compress."""
    made = random.Random(seed)
    with store.lease() as lease:
        layers: list[Layer] = []
        for number, size in enumerate(sizes):
            tar = layer_tar({f"file-{number}": made.randbytes(size)})
            layers.append(
                store.add_layer(
                    io.BytesIO(tar),
                    parents=[layer.chain_id for layer in layers],
                    lease=lease,
                )
            )
        config = ImageConfig(architecture="amd64", cmd=("true",), env=("A=b",))
        return store.create_image(config, layers, [reference], lease=lease)


def blob_files(store: ImageStore, image: Image) -> dict[str, str]:
    """Digest and true digest of every blob of an image that the store has."""
    parts = (image.manifest.config, *image.manifest.layers)
    return {
        part.digest: "sha256:"
        + hashlib.sha256(store.blobs.path(part.digest).read_bytes()).hexdigest()
        for part in parts
    }


@contextlib.asynccontextmanager
async def docker_registry(
    directory: Path, *, htpasswd: Path | None = None, tls: tuple[Path, Path] | None = None
) -> AsyncIterator[str]:
    """Run Debian's docker-registry; gives `127.0.0.1:port`."""
    program = required("docker-registry")
    directory.mkdir(parents=True, exist_ok=True)
    lines = [
        "version: 0.1",
        "log: {level: info}",
        "storage:",
        f"  filesystem: {{rootdirectory: {directory / 'data'}}}",
        "  delete: {enabled: true}",
        "http:",
        "  addr: 127.0.0.1:0",
    ]
    if tls is not None:
        lines.append(f"  tls: {{certificate: {tls[0]}, key: {tls[1]}}}")
    if htpasswd is not None:
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}")
    configuration = directory / "config.yml"
    configuration.write_text("\n".join(lines) + "\n")
    process = await asyncio.create_subprocess_exec(
        program,
        "serve",
        str(configuration),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
    )
    assert process.stderr is not None
    seen: list[str] = []
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(20):
            while True:
                line = (await process.stderr.readline()).decode(errors="replace")
                assert line, f"docker-registry ended: {''.join(seen)}"
                seen.append(line)
                found = re.search(r"listening on (127\.0\.0\.1:\d+)", line)
                if found:
                    break
        reading = asyncio.create_task(_swallow(process.stderr))
        yield found[1]
    finally:
        process.kill()
        await process.wait()
        if reading is not None:
            await reading


async def _swallow(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


async def skopeo(*arguments: str, seconds: float = 60) -> str:
    """Run skopeo; its output, or a failed test with what it said."""
    process = await asyncio.create_subprocess_exec(
        required("skopeo"),
        "--insecure-policy",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode(errors="replace")
    return output.decode()
