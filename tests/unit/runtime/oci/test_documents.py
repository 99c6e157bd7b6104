"""OCI documents: what is read is written again, and what is not a document is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT4

from runtime.errors import ImageError
from runtime.oci.descriptor import CONFIG, LAYER_GZIP, Descriptor, Platform
from runtime.oci.digest import chain_ids, check_digest, digest_of, is_digest
from runtime.oci.image_config import HistoryEntry, ImageConfig, ImageHealthcheck
from runtime.oci.manifest import Index, Manifest

SCHEMAS = Path(__file__).parents[4] / "../shared/corpora/oci/image"
DIGEST = digest_of(b"x")

needs_schemas = pytest.mark.skipif(
    not SCHEMAS.is_dir(), reason="the OCI image schemas are not beside this checkout"
)


def validate(document: bytes, schema: str) -> None:
    schemas = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    resources = [(name, DRAFT4.create_resource(found)) for name, found in schemas.items()]
    resources += [
        (found["id"], DRAFT4.create_resource(found)) for found in schemas.values() if "id" in found
    ]
    base = schemas[schema]["id"].rpartition("/")[0]
    resources += [
        (f"{base}/{name}", DRAFT4.create_resource(found)) for name, found in schemas.items()
    ]
    registry: Registry[Any] = Registry().with_resources(resources)
    jsonschema.Draft4Validator(schemas[schema], registry=registry).validate(json.loads(document))


def descriptor(media_type: str = LAYER_GZIP) -> Descriptor:
    return Descriptor(media_type=media_type, digest=DIGEST, size=1)


def full_config() -> ImageConfig:
    return ImageConfig(
        architecture="amd64",
        variant="v2",
        created="2026-01-02T03:04:05Z",
        author="somebody",
        env=("A=b",),
        cmd=("x",),
        entrypoint=("y",),
        user="1:2",
        working_dir="/w",
        exposed_ports=("80/tcp",),
        volumes=("/data",),
        labels={"k": "v"},
        stop_signal="SIGTERM",
        healthcheck=ImageHealthcheck(test=("CMD", "true"), interval=1_000_000_000, retries=2),
        shell=("/bin/sh", "-c"),
        onbuild=("RUN x",),
        diff_ids=(DIGEST,),
        history=(HistoryEntry(created_by="RUN x"), HistoryEntry(empty_layer=True)),
    )


@needs_schemas
def test_a_config_satisfies_the_schema() -> None:
    validate(full_config().to_bytes(), "config-schema.json")


@needs_schemas
def test_a_manifest_satisfies_the_schema() -> None:
    manifest = Manifest(config=descriptor(CONFIG), layers=(descriptor(),), annotations={"a": "b"})
    validate(manifest.to_bytes(), "image-manifest-schema.json")


@needs_schemas
def test_an_index_satisfies_the_schema() -> None:
    index = Index(
        manifests=(
            Descriptor(
                media_type="application/vnd.oci.image.manifest.v1+json",
                digest=DIGEST,
                size=1,
                platform=Platform(os="linux", architecture="arm64", variant="v8"),
            ),
        )
    )
    validate(index.to_bytes(), "image-index-schema.json")


def test_a_config_is_read_as_it_was_written() -> None:
    config = full_config()
    assert ImageConfig.from_bytes(config.to_bytes()) == config


def test_unknown_fields_survive_a_round_trip() -> None:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "os.version": "1",
        "config": {"Cmd": ["a"], "ArgsEscaped": True},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    config = ImageConfig.from_bytes(json.dumps(document).encode())
    again = json.loads(config.to_bytes())
    assert again["os.version"] == "1"
    assert again["config"]["ArgsEscaped"] is True


def test_an_empty_command_differs_from_none() -> None:
    none = ImageConfig(architecture="amd64")
    empty = ImageConfig(architecture="amd64", cmd=())
    assert ImageConfig.from_bytes(none.to_bytes()).cmd is None
    assert ImageConfig.from_bytes(empty.to_bytes()).cmd == ()


def test_a_document_that_is_both_manifest_and_index_is_refused() -> None:
    document = {
        "schemaVersion": 2,
        "config": descriptor(CONFIG).document(),
        "layers": [descriptor().document()],
        "manifests": [descriptor().document()],
    }
    content = json.dumps(document).encode()
    with pytest.raises(ImageError):
        Manifest.from_bytes(content)
    with pytest.raises(ImageError):
        Index.from_bytes(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"schemaVersion": 1}', b'{"schemaVersion": 2, "layers": 3}', b"[" * 9999],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ImageError):
        Manifest.from_bytes(content)


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:../../x", "sha256:" + "A" * 64, "md5:" + "0" * 32, "0" * 64,
     "sha256:" + "0" * 63, "sha256:" + "0" * 64 + "\n"],
)  # fmt: skip
def test_only_a_digest_is_a_digest(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(ImageError):
        check_digest(text)


def test_the_chain_of_one_layer_is_its_diff_id() -> None:
    first, second = digest_of(b"1"), digest_of(b"2")
    chains = chain_ids((first, second))
    assert chains == (first, digest_of(f"{first} {second}".encode()))


def test_a_descriptor_without_size_is_refused() -> None:
    with pytest.raises(ImageError):
        Descriptor.from_document({"mediaType": "x", "digest": DIGEST})


@pytest.mark.parametrize(
    "extra",
    [
        rb'"\ud800"', rb'{"\uDFFF": 1}', b"NaN", b"-Infinity", b"1e400", b'"\xed\xa0\x80"',
        b'"\xff"', b"1" + b"0" * 5000, b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_could_not_be_written_again_is_refused(extra: bytes) -> None:
    with pytest.raises(ImageError, match="image config is not JSON"):
        ImageConfig.from_bytes(b'{"rootfs": {"type": "layers"}, "x": ' + extra + b"}")


def test_only_utf_8_is_read() -> None:
    text = '{"rootfs": {"type": "layers"}, "author": "é \\u00e9 \\ud83d\\ude00"}'
    assert ImageConfig.from_bytes(text.encode()).author == "é é 😀"
    for encoding in ("utf-16", "utf-32-le", "utf-8-sig"):
        with pytest.raises(ImageError, match="is not JSON"):
            ImageConfig.from_bytes(text.encode(encoding))


def test_a_history_or_layers_without_end_are_refused() -> None:
    for document, message in (
        ({"rootfs": {"type": "layers"}, "history": [{}] * 1_000_000}, "1000000 lines of history"),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * 1001}}, "1001 layers"),
    ):
        with pytest.raises(ImageError, match=message):
            ImageConfig.from_bytes(json.dumps(document).encode())
