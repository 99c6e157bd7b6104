"""Images: commit, export, changes, archives, a registry of one's own, and what they take."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
