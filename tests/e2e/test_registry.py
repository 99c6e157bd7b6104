"""Logging in and out, pushing and pulling, at a registry of one's own."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_BUSYBOX = Path("/bin/busybox")
_INLINE = 'FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox", "echo", "here"]\n'


@contextlib.contextmanager
def serving(bay: Bay, storage: Path, *options: str) -> Iterator[str]:
    """A registry that runs; gives its address."""
    where = ("--storage", str(storage), "--listen", "127.0.0.1:0")
    with bay.started("registry", "serve", *where, *options) as registry:
        assert registry.stdout is not None
        yield registry.stdout.readline().split()[-1]


@pytest.fixture(scope="module")
def closed(bay: Bay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that lets in alice alone."""
    place = tmp_path_factory.mktemp("closed")
    digest = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (place / "htpasswd").write_text(f"alice:{digest}\n")
    with serving(bay, place / "storage", "--htpasswd", str(place / "htpasswd")) as address:
        yield address


@pytest.fixture
def built(bay: Bay, tmp_path: Path) -> Path:
    """A directory to write a stack into whose image can be built from one file."""
    if not _BUSYBOX.exists():
        pytest.skip(f"{_BUSYBOX} is not installed (Debian: busybox-static)")
    shutil.copy(_BUSYBOX, tmp_path / "busybox")
    return tmp_path


def write(directory: Path, image: str) -> None:
    build = {"context": ".", "dockerfile_inline": _INLINE}
    stack = {"services": {"web": {"image": image, "build": build}}}
    (directory / "compose.yaml").write_text(json.dumps(stack))


def test_who_is_logged_in_may_push_and_pull_and_nobody_else(
    bay: Bay, closed: str, built: Path
) -> None:
    image = f"{closed}/web:1"
    mine = {"DOCKER_CONFIG": str(built / "docker")}
    write(built, image)
    bay.ok("build", "-q", cwd=built)

    refused = bay("push", cwd=built, env=mine)
    assert refused.status == 1 and "bay login" in refused.err + refused.out, str(refused)
    login = ("login", "-u", "alice", "--password-stdin", closed)
    wrong = bay(*login, stdin="guessed\n", env=mine)
    assert wrong.status == 1 and "check the user name and the password" in wrong.err
    assert not (built / "docker" / "config.json").exists()

    done = bay(*login, stdin="secret\n", env=mine)
    assert done.status == 0 and "succeeded" in done.err, str(done)
    kept = built / "docker" / "config.json"
    assert closed in json.loads(kept.read_text())["auths"]
    assert kept.stat().st_mode & 0o077 == 0
    bay.ok("push", cwd=built, env=mine)
    bay.ok("image", "rm", image)
    bay.ok("pull", "web", "--policy", "always", cwd=built, env=mine)

    bay.ok("logout", closed, env=mine)
    assert json.loads(kept.read_text()).get("auths", {}) == {}
    assert bay("push", cwd=built, env=mine).status == 1
    bay.ok("image", "rm", image)


def test_up_shows_how_a_pull_goes_unless_it_is_to_be_quiet(bay: Bay, built: Path) -> None:
    with serving(bay, built / "storage") as address:
        image = f"{address}/web:1"
        write(built, image)
        bay.ok("build", "-q", "--push", cwd=built)
        (built / "compose.yaml").write_text(f"services:\n  web: {{image: '{image}'}}\n")

        for options, shown in (((), True), (("--quiet-pull",), False)):
            bay.ok("image", "rm", image)
            done = bay("up", "-d", "-y", *options, cwd=built)
            assert done.status == 0, str(done)
            progress = [line for line in done.err.splitlines() if "Pulling:" in line]
            assert bool(progress) is shown, done.err
            assert all(f"Image {image}" in line and " / " in line for line in progress)
            bay.ok("down", "-t", "0", "--rmi", "all" if shown else "local", cwd=built)
            if shown:
                bay.ok("image", "pull", image)
        bay.ok("image", "rm", image)
