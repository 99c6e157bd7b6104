"""Beside other people's programs: skopeo and Debian's docker-registry."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from runtime.build.builder import BuildRequest, build_platforms
from runtime.build.steps import RunStep
from runtime.errors import ImageNotFound
from runtime.images.layouts import load_directory
from runtime.images.platforms import parse_platform
from runtime.images.store import Image, ImageStore
from runtime.oci.descriptor import DOCKER_MANIFEST, INDEX, MANIFEST
from runtime.oci.manifest import Index, Manifest
from runtime.registry.client import RegistryClient
from runtime.registry.copy import copy
from runtime.registry.endpoints import endpoint_of
from runtime.registry.progress import TransferEvent
from runtime.registry.pull import pull, resolve_digest
from runtime.registry.push import push
from runtime.registry.repository import Repository, document_of
from runtime.registry.server.app import serving
from runtime.registry.server.config import ServerConfig
from tests.integration.registry.peers import (
    blob_files,
    docker_registry,
    make_image,
    quick,
    required,
    skopeo,
)

MIB = 1024 * 1024
Served = Callable[[Path], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def our_registry(directory: Path) -> AsyncIterator[str]:
    async with serving(ServerConfig(storage=directory, listen="127.0.0.1:0")) as address:
        yield address


SERVERS = [
    pytest.param(our_registry, id="ours"),
    pytest.param(docker_registry, id="docker-registry"),
]


@pytest.mark.parametrize("served", SERVERS)
@pytest.mark.parametrize("chunk_size", [None, MIB])
def test_what_is_pushed_is_pulled_the_same(
    tmp_path: Path, served: Served, chunk_size: int | None
) -> None:
    async def scenario() -> None:
        source, target = ImageStore(tmp_path / "source"), ImageStore(tmp_path / "target")
        async with served(tmp_path / "registry") as address:
            name = f"{address}/team/app:1"
            image = make_image(source, name, sizes=(0, 1000, 300_000, 9 * MIB))
            pushed = await push(name, store=source, config=quick(chunk_size=chunk_size))
            assert pushed.digest == image.digest
            assert await resolve_digest(name, quick()) == image.digest
            pulled = await pull(name, store=target, config=quick())
            assert (pulled.id, pulled.digest) == (image.id, image.digest)
            assert pulled.references == (name,)
            files = blob_files(target, pulled)
            assert all(digest == true for digest, true in files.items())
            assert target.check() == ()
            by_digest = await pull(
                f"{address}/team/app@{image.digest}", store=target, config=quick()
            )
            assert by_digest.id == image.id

    asyncio.run(scenario())


@pytest.mark.parametrize("served", SERVERS)
def test_only_what_is_missing_goes_over_the_wire(tmp_path: Path, served: Served) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with served(tmp_path / "registry") as address:
            image = make_image(store, f"{address}/a:1", sizes=(1000, 2000))

            async def stages(name: str) -> set[str]:
                events: list[TransferEvent] = []
                await push(
                    name, source=image.id, store=store, config=quick(), progress=events.append
                )
                layers = {layer.digest for layer in image.manifest.layers}
                return {event.stage for event in events if event.digest in layers}

            assert await stages(f"{address}/a:1") == {"uploading", "done"}
            assert await stages(f"{address}/a:2") == {"exists"}
            assert await stages(f"{address}/b:1") == {"mounted"}

    asyncio.run(scenario())


@pytest.mark.parametrize("served", SERVERS)
def test_the_tags_and_the_absence_of_images_are_told(tmp_path: Path, served: Served) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with served(tmp_path / "registry") as address:
            image = make_image(store, f"{address}/a:1", sizes=(1000,))
            for tag in ("1", "2", "latest"):
                await push(f"{address}/a:{tag}", source=image.id, store=store, config=quick())
            async with RegistryClient(quick()) as client:
                repository = Repository(client, endpoint_of(address, quick()), "a", write=True)
                assert set(await repository.tags()) == {"1", "2", "latest"}
                assert await repository.find_manifest("9") is None
                assert await repository.referrers(image.digest) == ()
                await repository.delete_manifest(image.digest)
                assert await repository.find_manifest("1") is None
            for call in (
                pull(f"{address}/a:1", store=store, config=quick()),
                pull(f"{address}/never", store=store, config=quick()),
            ):
                with pytest.raises(ImageNotFound):
                    await call
            with pytest.raises(ImageNotFound):
                await resolve_digest(f"{address}/never", quick())

    asyncio.run(scenario())


@pytest.mark.parametrize("served", SERVERS)
def test_what_refers_to_an_image_is_found_with_and_without_the_call_for_it(
    tmp_path: Path, served: Served
) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with served(tmp_path / "registry") as address:
            image = make_image(store, f"{address}/a:1", sizes=(1000,))
            await push(f"{address}/a:1", store=store, config=quick())
            subject = {"mediaType": MANIFEST, "digest": image.digest, "size": 1}
            async with RegistryClient(quick()) as client:
                repository = Repository(client, endpoint_of(address, quick()), "a", write=True)
                expected = set()
                for number in range(2):
                    document = document_of(
                        json.dumps(
                            {
                                "schemaVersion": 2,
                                "mediaType": MANIFEST,
                                "artifactType": f"test/{number}",
                                "config": image.manifest.config.document(),
                                "layers": [],
                                "subject": subject,
                            }
                        ).encode()
                    )
                    await repository.put_manifest(document.digest, document)
                    expected.add(document.digest)
                found = await repository.referrers(image.digest)
                assert {each.digest for each in found} == expected
                (one,) = await repository.referrers(image.digest, "test/1")
                assert one.artifact_type == "test/1"

    asyncio.run(scenario())


@pytest.mark.parametrize("served", SERVERS)
def test_a_copy_has_the_digest_of_its_source(tmp_path: Path, served: Served) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with served(tmp_path / "one") as first, our_registry(tmp_path / "two") as second:
            name = f"{first}/a/b:1"
            image = make_image(store, name, sizes=(1000, 9 * MIB))
            await push(name, store=store, config=quick())
            for destination in (f"{second}/c:2", f"{first}/d:3"):
                copied = await copy(name, destination, quick())
                assert copied.digest == image.digest
                assert await resolve_digest(destination, quick()) == image.digest
            target = ImageStore(tmp_path / "target")
            assert (await pull(f"{second}/c:2", store=target, config=quick())).id == image.id
            assert target.check() == ()

    asyncio.run(scenario())


@pytest.mark.parametrize("served", SERVERS)
def test_an_index_is_copied_with_all_its_images(tmp_path: Path, served: Served) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with served(tmp_path / "one") as first, our_registry(tmp_path / "two") as second:
            children = []
            async with RegistryClient(quick()) as client:
                repository = Repository(client, endpoint_of(first, quick()), "m", write=True)
                for number, architecture in enumerate(("amd64", "arm64")):
                    image = make_image(
                        store, f"{first}/m:{architecture}", sizes=(2000,), seed=number
                    )
                    await push(f"{first}/m:{architecture}", store=store, config=quick())
                    document = await repository.manifest(architecture)
                    descriptor = document.descriptor.document()
                    descriptor["platform"] = {"os": "linux", "architecture": architecture}
                    children.append(descriptor)
                    if architecture == "amd64":
                        ours = image
                index = document_of(
                    json.dumps(
                        {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
                    ).encode()
                )
                await repository.put_manifest("all", index)
            copied = await copy(f"{first}/m:all", f"{second}/n:all", quick())
            assert copied.digest == index.digest
            target = ImageStore(tmp_path / "target")
            pulled = await pull(f"{second}/n:all", store=target, config=quick())
            assert (pulled.id, pulled.digest) == (ours.id, index.digest)

            # Only one platform was pulled, so only that one can be pushed elsewhere ...
            events: list[TransferEvent] = []
            pushed = await push(
                f"{second}/elsewhere:1",
                source=f"{second}/n:all",
                store=target,
                config=quick(),
                progress=events.append,
            )
            assert pushed.digest == ours.digest
            assert "warning" in {event.stage for event in events}
            # ... and the whole index where the rest is already.
            pushed = await push(
                f"{second}/n:again", source=f"{second}/n:all", store=target, config=quick()
            )
            assert pushed.digest == index.digest

    asyncio.run(scenario())


def layout_manifest(layout: Path) -> Manifest:
    (entry,) = Index.from_bytes((layout / "index.json").read_bytes()).manifests
    name = entry.digest.removeprefix("sha256:")
    return Manifest.from_bytes((layout / "blobs" / "sha256" / name).read_bytes())


def test_skopeo_copies_from_and_to_our_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with our_registry(tmp_path / "registry") as address:
            image = make_image(store, f"{address}/a:1", sizes=(1000, 5 * MIB))
            await push(f"{address}/a:1", store=store, config=quick())
            await skopeo(
                "copy", "--src-tls-verify=false", f"docker://{address}/a:1", f"oci:{tmp_path}/lay:x"
            )
            found = layout_manifest(tmp_path / "lay")
            assert found == image.manifest
            for layer in found.layers:
                name = layer.digest.removeprefix("sha256:")
                stored = (tmp_path / "lay" / "blobs" / "sha256" / name).read_bytes()
                assert stored == store.blobs.path(layer.digest).read_bytes()
            await skopeo(
                "copy",
                "--dest-tls-verify=false",
                f"oci:{tmp_path}/lay:x",
                f"docker://{address}/b/c:2",
            )
            assert await resolve_digest(f"{address}/b/c:2", quick()) == image.digest
            output = json.loads(
                await skopeo("inspect", "--tls-verify=false", f"docker://{address}/b/c:2")
            )
            assert output["Digest"] == image.digest
            output = json.loads(
                await skopeo("list-tags", "--tls-verify=false", f"docker://{address}/b/c")
            )
            assert output["Tags"] == ["2"]
            await skopeo("delete", "--tls-verify=false", f"docker://{address}/b/c:2")
            with pytest.raises(ImageNotFound):
                await resolve_digest(f"{address}/b/c:2", quick())

    asyncio.run(scenario())


def test_images_in_dockers_own_format_go_through_and_can_be_pulled(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with our_registry(tmp_path / "registry") as address:
            image = make_image(store, f"{address}/a:1", sizes=(1000,))
            await push(f"{address}/a:1", store=store, config=quick())
            await skopeo(
                "copy", "--src-tls-verify=false", f"docker://{address}/a:1", f"dir:{tmp_path}/dir"
            )
            await skopeo(
                "copy",
                "--format=v2s2",
                "--dest-tls-verify=false",
                f"dir:{tmp_path}/dir",
                f"docker://{address}/v2s2:1",
            )
            pulled = await pull(
                f"{address}/v2s2:1", store=ImageStore(tmp_path / "target"), config=quick()
            )
            assert pulled.manifest.media_type == DOCKER_MANIFEST
            assert pulled.config.diff_ids == image.config.diff_ids
            assert pulled.config.env == ("A=b",)

    asyncio.run(scenario())


def test_what_skopeo_pushes_elsewhere_is_pulled_by_us(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with (
            our_registry(tmp_path / "registry") as ours,
            docker_registry(tmp_path / "peer") as theirs,
        ):
            image = make_image(store, f"{ours}/a:1", sizes=(1000, 3 * MIB))
            await push(f"{ours}/a:1", store=store, config=quick())
            await skopeo(
                "copy",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                f"docker://{ours}/a:1",
                f"docker://{theirs}/a:1",
            )
            shutil.rmtree(tmp_path / "store")
            target = ImageStore(tmp_path / "target")
            pulled = await pull(f"{theirs}/a:1", store=target, config=quick())
            assert pulled.digest == image.digest
            assert target.check() == ()

    asyncio.run(scenario())


PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")


class Nothing:
    """Runs no steps: the Dockerfile has none."""

    def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
        raise AssertionError(step.argv)


def built_for_all(store: ImageStore, place: Path, name: str) -> Image:
    """An image of several platforms, each with a layer of its own over one that they share."""
    place.mkdir()
    for architecture in ("amd64", "arm64", "arm"):
        (place / architecture).write_text(architecture * 1000)
    (place / "shared").write_bytes(bytes(300_000))
    dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY shared /s\nCOPY $TARGETARCH /own\n"
    request = BuildRequest(context=place, dockerfile_inline=dockerfile, tags=(name,))
    return build_platforms(
        request, PLATFORMS, store=store, steps=Nothing(), progress=lambda event: None
    )


@pytest.mark.parametrize("served", SERVERS)
def test_an_image_built_for_several_platforms_goes_out_whole(
    tmp_path: Path, served: Served
) -> None:
    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with served(tmp_path / "registry") as address:
            image = built_for_all(store, tmp_path / "context", f"{address}/all:1")
            pushed = await push(f"{address}/all:1", store=store, config=quick())
            assert pushed.digest == image.digest

            # What others have after a copy of everything is what we have made.
            layout = tmp_path / "layout"
            plain = ("--src-tls-verify=false", f"docker://{address}/all:1", f"oci:{layout}:x")
            await skopeo("copy", "--all", *plain)
            (top,) = Index.from_bytes((layout / "index.json").read_bytes()).manifests
            assert top.digest == image.digest
            again = ImageStore(tmp_path / "again")
            load_directory(again, layout, name="all:1")
            for platform in PLATFORMS:
                wanted = parse_platform(platform)
                ours = store.resolve(f"{address}/all:1", wanted)
                assert again.resolve("all:1", wanted).id == ours.id
                target = ImageStore(tmp_path / platform.replace("/", "-"))
                pulled = await pull(
                    f"{address}/all:1", store=target, config=quick(), platform=wanted
                )
                assert pulled.id == ours.id and str(pulled.config.platform) == platform
                assert target.check() == ()
            assert again.check() == ()
            # And the way back: pushed by others, index and all, and by us to another name.
            await skopeo(
                "copy", "--all", "--dest-tls-verify=false", f"oci:{layout}:x",
                f"docker://{address}/back:1",
            )  # fmt: skip
            assert await resolve_digest(f"{address}/back:1", quick()) == image.digest
            copied = await copy(f"{address}/all:1", f"{address}/other/all:2", quick())
            assert copied.digest == image.digest

    asyncio.run(scenario())


@pytest.mark.root
def test_podman_pulls_from_our_server_and_pushes_to_it(tmp_path: Path) -> None:
    program = required("podman")

    async def podman(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            program,
            *(f"--root={tmp_path}/root", f"--runroot={short}/run", f"--tmpdir={tmp_path}/tmp"),
            "--storage-driver=vfs",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode().strip()

    async def scenario() -> None:
        store = ImageStore(tmp_path / "store")
        async with our_registry(tmp_path / "registry") as address:
            image = make_image(store, f"{address}/team/app:1", sizes=(1000, MIB))
            await push(f"{address}/team/app:1", store=store, config=quick())
            pulled = await podman("pull", "--tls-verify=false", f"{address}/team/app:1")
            assert f"sha256:{pulled}" == image.id
            await podman("push", "--tls-verify=false", pulled, f"{address}/back:1")
            target = ImageStore(tmp_path / "target")
            assert (await pull(f"{address}/back:1", store=target, config=quick())).id == image.id
            assert target.check() == ()

            every = f"{address}/all:1"
            built_for_all(store, tmp_path / "context", every)
            await push(every, store=store, config=quick())
            for architecture in ("amd64", "arm64"):
                pulled = await podman("pull", "--tls-verify=false", "--arch", architecture, every)
                ours = store.resolve(every, parse_platform(architecture))
                assert f"sha256:{pulled}" == ours.id
            await podman("manifest", "create", "mine")
            plain = ("--tls-verify=false", "--all")
            await podman("manifest", "add", *plain, "mine", f"docker://{every}")
            await podman(
                "manifest", "push", "--tls-verify=false", "--all", "mine",
                f"docker://{address}/mine:1",
            )  # fmt: skip
            for platform in PLATFORMS:
                wanted = parse_platform(platform)
                pulled_here = await pull(
                    f"{address}/mine:1", store=target, config=quick(), platform=wanted
                )
                assert pulled_here.id == store.resolve(every, wanted).id
            assert target.check() == ()

    # podman takes no run directory with a path of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman.", dir="/tmp") as short:
        asyncio.run(scenario())
