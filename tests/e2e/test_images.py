"""Images: commit, export, changes, archives, a registry of one's own, and what they take."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime.images.store import ImageStore

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


@pytest.fixture
def stack(bay: Bay, project: Callable[..., Path]) -> Path:
    directory = project(
        "services:\n  web: {image: debian:bookworm, init: true, command: sleep 1000}\n"
    )
    bay.ok("up", "-d", cwd=directory)
    bay.ok("exec", "web", "sh", "-c", "echo made > /made; rm /etc/motd", cwd=directory)
    return directory


def test_what_a_container_changed_can_be_seen_exported_and_committed(
    bay: Bay, stack: Path, project: Callable[..., Path]
) -> None:
    changed = bay.ok("changes", "web", cwd=stack).splitlines()
    assert {"A /made", "D /etc/motd", "C /etc"} <= set(changed)

    done = subprocess.run(
        bay.command("export", "web"), cwd=stack, capture_output=True, timeout=120, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        names = set(tar.getnames())
    assert "made" in names and "etc/motd" not in names

    made = bay.ok(
        "commit", "-m", "by hand", "-c", 'CMD ["cat", "/made"]', "web", "mine:1", cwd=stack
    )
    assert made.startswith("sha256:")
    assert bay.containers(stack)[f"{stack.name}-web-1"]["State"] == "running"
    assert "by hand" in bay.ok("image", "history", "mine:1")
    other = project("services:\n  job: {image: 'mine:1'}\n")
    assert "made" in bay.ok("up", cwd=other)


def test_images_are_tagged_saved_loaded_and_imported(bay: Bay, tmp_path: Path) -> None:
    bay.ok("image", "tag", "debian:bookworm", "copy:1")
    bay.ok("image", "save", "-o", "image.tar", "copy:1", cwd=tmp_path)
    bay.ok("image", "rm", "copy:1")
    assert "copy:1" in bay.ok("image", "load", "-i", "image.tar", cwd=tmp_path)

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    (tmp_path / "root.tar").write_bytes(stream.getvalue())
    made = bay.ok("image", "import", "-c", "CMD x", "root.tar", "flat:1", cwd=tmp_path)
    assert made.startswith("sha256:")
    bay.ok("image", "rm", "flat:1", "copy:1")
    assert "reclaimed" in bay.ok("image", "prune", "--force")
    lines = bay.ok("system", "df", "--format", "json").splitlines()
    usage = {record["Type"]: record for record in map(json.loads, lines)}
    assert usage["Images"]["TotalCount"] >= 1 and usage["Images"]["Size"] > 1_000_000


def test_a_registry_of_one_s_own_takes_and_gives_images(bay: Bay, tmp_path: Path) -> None:
    storage = str(tmp_path / "registry")
    command = ("registry", "serve", "--storage", storage, "--listen", "127.0.0.1:0")
    with bay.started(*command) as registry:
        assert registry.stdout is not None
        address = registry.stdout.readline().split()[-1]
        bay.ok("image", "tag", "debian:bookworm", f"{address}/debian:mine")
        pushed = bay.ok("image", "push", f"{address}/debian:mine")
        assert "@sha256:" in pushed
        bay.ok("image", "rm", f"{address}/debian:mine")
        bay.ok("image", "copy", f"{address}/debian:mine", f"{address}/other:mine")

        (tmp_path / "compose.yaml").write_text(
            f"services:\n  web: {{image: '{address}/other:mine', command: echo pulled}}\n"
        )
        bay.ok("pull", cwd=tmp_path)
        bay.ok("pull", "--policy", "missing", "-q", cwd=tmp_path)
        (tmp_path / "compose.yaml").write_text(
            f"services:\n  web: {{image: '{address}/nothing:here'}}\n"
        )
        assert bay("pull", cwd=tmp_path).status == 1
        bay.ok("pull", "--ignore-pull-failures", cwd=tmp_path)
        bay.ok("image", "rm", f"{address}/other:mine")


def test_a_build_can_push_and_refuses_what_it_cannot_do(bay: Bay, tmp_path: Path) -> None:
    storage = str(tmp_path / "registry")
    with bay.started(
        "registry", "serve", "--storage", storage, "--listen", "127.0.0.1:0"
    ) as registry:
        assert registry.stdout is not None
        address = registry.stdout.readline().split()[-1]
        (tmp_path / "compose.yaml").write_text(
            f"services:\n  web:\n    image: '{address}/built:1'\n"
            '    build: {context: ., dockerfile_inline: "FROM debian:bookworm\\nENV A=1"}\n'
        )

        assert bay.ok("build", "-q", "--push", cwd=tmp_path) == ""
        bay.ok("image", "rm", f"{address}/built:1")
        bay.ok("image", "pull", f"{address}/built:1")
        refused = bay("build", "--sbom", "true", cwd=tmp_path)
        assert refused.status == 1 and "--sbom true is not supported" in refused.err
        bay.ok("image", "rm", f"{address}/built:1")


def test_garbage_makes_no_image_and_has_its_reason(bay: Bay, tmp_path: Path) -> None:
    before = bay.ok("image", "ls", "-q")
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size = 3000
        tar.addfile(info, io.BytesIO(bytes(3000)))
    packed = gzip.compress(whole.getvalue())
    cases = {
        b"": ("the archive is empty", "neither an oci layout"),
        bytes(range(256)) * 8: ("is it a tar archive?", "is it a tar archive?"),
        whole.getvalue()[:2000]: ("the archive is cut", "the archive is cut"),
        packed[:40]: ("the gzip stream is cut", "the gzip stream is cut"),
        packed + b"junk": ("gzip", "gzip"),
        b"\x28\xb5\x2f\xfd" + b"x" * 100: ("zstd", "zstd"),
    }
    for number, (content, reasons) in enumerate(cases.items()):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(content)
        for command, reason in zip(
            (("image", "import", str(path), "garbage:1"), ("image", "load", "-i", str(path))),
            reasons,
            strict=True,
        ):
            for words in (command, tuple("-" if word == str(path) else word for word in command)):
                if words[:2] == ("image", "load") and "-" in words:
                    words = words[:2]
                with open(path, "rb") as stdin:
                    done = subprocess.run(
                        bay.command(*words), stdin=stdin, capture_output=True, timeout=60,
                        check=False,
                    )  # fmt: skip
                said = done.stderr.decode().lower()
                assert done.returncode == 1 and reason in said, (words, said)
                assert said.count("\n") <= 2 and "traceback" not in said
    assert bay.ok("image", "ls", "-q") == before
    assert bay.ok("system", "check") == "no fault found\n"


def test_a_check_of_the_system_finds_what_is_damaged(bay: Bay, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")
    subprocess.run(["tar", "-cf", tmp_path / "x.tar", "-C", tmp_path, "f"], check=True)
    bay.ok("image", "import", str(tmp_path / "x.tar"), "damaged:1")
    store = ImageStore(bay.root)
    [layer] = store.resolve("damaged:1").manifest.layers
    store.blobs.path(layer.digest).write_bytes(b"x" * layer.size)
    done = bay("system", "check")
    assert done.status == 1 and f"blob {layer.digest} is damaged" in done.out
    bay.ok("image", "rm", "damaged:1")
    assert bay.ok("system", "check") == "no fault found\n"
