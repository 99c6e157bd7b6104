"""What a registry keeps, and what a collection takes away while it is in use."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError, Unsupported
from runtime.oci.descriptor import CONFIG, INDEX, LAYER_GZIP, MANIFEST
from runtime.registry.repository import Document, document_of
from runtime.registry.server.collect import collect
from runtime.registry.server.config import Retention
from runtime.registry.server.storage import MissingParts, Storage

DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(tmp_path: Path, clock: Clock) -> Iterator[Storage]:
    opened = Storage(tmp_path, clock=clock)
    yield opened
    opened.close()


def put_blob(storage: Storage, content: bytes, repository: str = "app") -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    file = storage.uploads / f"{threading.get_ident()}-{digest[-8:]}"
    file.write_bytes(content)
    storage.add_blob(repository, digest, len(content), file)
    return {"mediaType": LAYER_GZIP, "digest": digest, "size": len(content)}


def manifest(
    config: dict[str, Any], *layers: dict[str, Any], subject: Document | None = None, **more: Any
) -> Document:
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {**config, "mediaType": CONFIG},
        "layers": list(layers),
        **more,
    }
    if subject is not None:
        document["subject"] = subject.descriptor.document()
    return document_of(json.dumps(document).encode())


def put_image(storage: Storage, name: str, *tags: str, repository: str = "app") -> Document:
    document = manifest(
        put_blob(storage, f"{name} config".encode(), repository),
        put_blob(storage, f"{name} layer".encode(), repository),
    )
    storage.put_manifest(repository, document, tags)
    return document


def blobs(storage: Storage) -> set[str]:
    return {digest for digest, _path in storage.blob_files()}


def test_a_blob_is_seen_in_the_repositories_that_have_it_and_no_others(storage: Storage) -> None:
    digest = put_blob(storage, b"x", "one")["digest"]
    assert storage.find_blob("one", digest) == 1
    assert storage.find_blob("two", digest) is None
    assert not storage.mount_blob("two", digest, "three")
    assert storage.mount_blob("two", digest, "one")
    assert storage.find_blob("two", digest) == 1
    assert storage.remove_blob("one", digest)
    assert not storage.remove_blob("one", digest)
    assert storage.find_blob("two", digest) == 1


def test_a_manifest_is_kept_byte_for_byte_and_found_by_tag_and_digest(storage: Storage) -> None:
    document = put_image(storage, "a", "v1", "latest")
    for reference in ("v1", "latest", document.digest):
        stored = storage.find_manifest("app", reference)
        assert stored is not None
        assert (stored.content, stored.digest) == (document.content, document.digest)
    assert storage.find_manifest("app", "v2") is None
    assert storage.find_manifest("other", "v1") is None


def test_a_manifest_whose_blobs_are_not_there_is_refused(storage: Storage) -> None:
    config = put_blob(storage, b"config")
    elsewhere = put_blob(storage, b"layer", "other")
    with pytest.raises(MissingParts) as missing:
        storage.put_manifest("app", manifest(config, elsewhere), ["v1"])
    assert missing.value.digests == (elsewhere["digest"],)
    assert storage.find_manifest("app", "v1") is None


def test_layers_with_addresses_of_their_own_need_not_be_there(storage: Storage) -> None:
    config = put_blob(storage, b"config")
    foreign = {
        "mediaType": LAYER_GZIP,
        "digest": "sha256:" + "1" * 64,
        "size": 5,
        "urls": ["https://elsewhere.test/layer"],
    }
    storage.put_manifest("app", manifest(config, foreign), ["v1"])
    assert storage.find_manifest("app", "v1") is not None


def test_an_index_needs_its_manifests(storage: Storage) -> None:
    child = put_image(storage, "a")
    absent = manifest(put_blob(storage, b"never pushed"))
    for part, expected in ((child, True), (absent, False)):
        content = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [part.descriptor.document()],
        }
        index = document_of(json.dumps(content).encode())
        if expected:
            storage.put_manifest("app", index, ["multi"])
        else:
            with pytest.raises(MissingParts):
                storage.put_manifest("app", index, ["multi"])


def test_moving_a_tag_leaves_the_old_manifest(storage: Storage) -> None:
    first = put_image(storage, "a", "v1")
    second = put_image(storage, "b", "v1")
    found = storage.find_manifest("app", "v1")
    assert found is not None
    assert found.digest == second.digest
    assert storage.find_manifest("app", first.digest) is not None


def test_removing_a_manifest_removes_its_tags_and_removing_a_tag_does_not(
    storage: Storage,
) -> None:
    document = put_image(storage, "a", "v1", "v2")
    assert storage.remove_tag("app", "v1")
    assert not storage.remove_tag("app", "v1")
    assert storage.find_manifest("app", document.digest) is not None
    assert storage.remove_manifest("app", document.digest)
    assert not storage.remove_manifest("app", document.digest)
    assert storage.tags("app", "", 10) == ([], False)


def test_pages_follow_each_other_in_the_order_of_bytes(storage: Storage) -> None:
    names = ["1", "10", "2", "B", "_x", "a", "b"]
    put_image(storage, "a", *reversed(names))
    first, more = storage.tags("app", "", 3)
    assert (first, more) == (["1", "10", "2"], True)
    rest, more = storage.tags("app", "2", 10)
    assert (rest, more) == (["B", "_x", "a", "b"], False)
    assert storage.tags("app", "", 0) == ([], True)


def test_repositories_are_listed_once_each(storage: Storage) -> None:
    for name in ("b", "a", "a/c"):
        put_image(storage, "x", "v1", repository=name)
        put_image(storage, "y", "v2", repository=name)
    assert storage.repositories("", 10) == (["a", "a/c", "b"], False)
    assert storage.repositories("a", 1) == (["a/c"], True)


def test_referrers_are_found_by_subject_and_type(storage: Storage) -> None:
    image = put_image(storage, "a", "v1")
    config = put_blob(storage, b"{}")
    signature = manifest(
        config, subject=image, artifactType="test/signature", annotations={"k": "v"}
    )
    listing = manifest(config, subject=image)
    assert storage.put_manifest("app", signature) == image.digest
    storage.put_manifest("app", listing)
    found, _more = storage.referrers("app", image.digest, "", "", 10)
    assert {each.digest for each in found} == {signature.digest, listing.digest}
    (only,), _more = storage.referrers("app", image.digest, "test/signature", "", 10)
    assert (only.artifact_type, only.annotations) == ("test/signature", {"k": "v"})
    # Without an artifact type of its own, a manifest counts as its config's (spec "Listing").
    (other,), _more = storage.referrers("app", image.digest, CONFIG, "", 10)
    assert other.digest == listing.digest
    assert storage.referrers("other", image.digest, "", "", 10) == ([], False)


def test_a_digest_that_is_a_path_is_refused(storage: Storage) -> None:
    with pytest.raises(ImageError, match="not a digest"):
        storage.blob_path("sha256:../../etc")


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path, storage: Storage) -> None:
    storage.database.connection().execute("PRAGMA user_version = 99")
    with pytest.raises(Unsupported, match="newer"):
        Storage(tmp_path)


# Collections


def test_what_a_manifest_names_is_kept_and_the_rest_goes_after_its_time(
    storage: Storage, clock: Clock
) -> None:
    document = put_image(storage, "a", "v1")
    loose = put_blob(storage, b"loose")["digest"]
    collect(storage, Retention())
    assert loose in blobs(storage)
    clock.now += 2 * DAY
    done = collect(storage, Retention())
    assert (done.blobs, done.freed) == (1, 5)
    assert loose not in blobs(storage)
    assert len(blobs(storage)) == 2
    assert storage.find_manifest("app", document.digest) is not None


def test_a_blob_that_a_push_has_looked_at_is_kept_for_it(storage: Storage, clock: Clock) -> None:
    digest = put_blob(storage, b"loose")["digest"]
    clock.now += 2 * DAY
    assert storage.find_blob("app", digest) == 5
    assert collect(storage, Retention()).blobs == 0
    storage.put_manifest("app", manifest({"mediaType": CONFIG, "digest": digest, "size": 5}), ["v"])
    clock.now += 2 * DAY
    assert collect(storage, Retention()).blobs == 0


def test_a_deleted_image_frees_what_no_other_image_shares(storage: Storage, clock: Clock) -> None:
    shared = put_blob(storage, b"shared")
    first = manifest(put_blob(storage, b"c1"), shared)
    second = manifest(put_blob(storage, b"c2"), shared)
    storage.put_manifest("app", first, ["v1"])
    storage.put_manifest("app", second, ["v2"])
    storage.remove_manifest("app", first.digest)
    clock.now += 2 * DAY
    assert collect(storage, Retention()).blobs == 1
    assert storage.find_blob("app", shared["digest"]) == 6


def test_the_newest_tags_are_kept_and_protected_ones_always(storage: Storage, clock: Clock) -> None:
    for number in range(6):
        put_image(storage, f"i{number}", f"build-{number}")
        clock.now += 60
    put_image(storage, "i0", "release-1")
    done = collect(storage, Retention(newest=2, protect=("release-*",)))
    assert done.tags == 4
    assert storage.tags("app", "", 10)[0] == ["build-4", "build-5", "release-1"]


def test_old_tags_go_with_their_manifests_when_untagged_ones_go(
    storage: Storage, clock: Clock
) -> None:
    old = put_image(storage, "old", "v1")
    clock.now += 10 * DAY
    put_image(storage, "new", "v2")
    done = collect(storage, Retention(tag_age=5 * DAY, untagged_age=DAY))
    assert (done.tags, done.manifests, done.blobs) == (1, 1, 2)
    assert storage.find_manifest("app", old.digest) is None
    assert storage.tags("app", "", 10)[0] == ["v2"]


def test_untagged_manifests_are_kept_unless_told_otherwise(storage: Storage, clock: Clock) -> None:
    document = put_image(storage, "a")
    clock.now += 100 * DAY
    assert collect(storage, Retention()).manifests == 0
    assert storage.find_manifest("app", document.digest) is not None


def test_children_and_referrers_of_what_is_kept_are_kept(storage: Storage, clock: Clock) -> None:
    child = put_image(storage, "child")
    loose = put_image(storage, "loose")
    content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [child.descriptor.document()]}
    index = document_of(json.dumps(content).encode())
    storage.put_manifest("app", index, ["multi"])
    signature = manifest(put_blob(storage, b"{}"), subject=child)
    orphan = manifest(put_blob(storage, b"{}"), subject=loose)
    storage.put_manifest("app", signature)
    storage.put_manifest("app", orphan)
    clock.now += 10 * DAY
    assert collect(storage, Retention(untagged_age=DAY)).manifests == 2
    for kept in (child, index, signature):
        assert storage.find_manifest("app", kept.digest) is not None
    for gone in (loose, orphan):
        assert storage.find_manifest("app", gone.digest) is None


def test_what_a_crash_left_is_removed(storage: Storage, clock: Clock) -> None:
    document = put_image(storage, "a", "v1")
    stray = storage.blob_path("sha256:" + "0" * 64)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"12345")
    junk = stray.with_name(".temporary")
    junk.write_bytes(b"1")
    # Condemned, its file deleted, its row not yet.
    condemned = put_blob(storage, b"gone", "other")["digest"]
    storage.remove_blob("other", condemned)
    storage.database.connection().execute(
        "UPDATE blobs SET condemned = 1 WHERE digest = ?", (condemned,)
    )
    storage.blob_path(condemned).unlink()
    collect(storage, Retention())
    assert not stray.exists()
    assert not junk.exists()
    assert storage.find_manifest("app", document.digest) is not None
    assert len(blobs(storage)) == 2


def test_a_blob_uploaded_again_while_it_is_condemned_lives(storage: Storage) -> None:
    digest = put_blob(storage, b"again")["digest"]
    storage.remove_blob("app", digest)
    storage.database.connection().execute("UPDATE blobs SET condemned = 1")
    assert storage.find_blob("app", digest) is None
    assert not storage.mount_blob("two", digest, None)
    put_blob(storage, b"again")
    collect(storage, Retention())
    assert storage.find_blob("app", digest) == 5
    assert storage.blob_path(digest).read_bytes() == b"again"


def test_pushes_and_collections_at_the_same_time_never_lose_an_image(
    tmp_path: Path,
) -> None:
    storage = Storage(tmp_path)
    stop = threading.Event()
    problems: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as exc:
                problems.append(exc)

        return run

    def collecting() -> None:
        while not stop.is_set():
            collect(storage, Retention(unused_age=-1.0, newest=3, untagged_age=-1.0))

    def pushing(worker: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(25):
                name = f"{worker}-{number % 3}"
                for _attempt in range(200):
                    try:
                        document = put_image(storage, name, f"t{number}", repository=f"r{worker}")
                        break
                    except MissingParts:
                        continue  # swept before the manifest came: the client sends again
                else:
                    raise AssertionError("a push never got through")
                parsed = document.manifest()
                if storage.find_manifest(f"r{worker}", f"t{number}") is not None:
                    for part in (parsed.config, *parsed.layers):
                        assert storage.blob_path(part.digest).exists()

        return run

    collector = threading.Thread(target=guarded(collecting))
    workers = [threading.Thread(target=guarded(pushing(n))) for n in range(2)]
    collector.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    stop.set()
    collector.join(100)
    storage.close()
    assert problems == []
