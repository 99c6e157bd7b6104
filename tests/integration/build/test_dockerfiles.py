"""Dockerfiles of the kinds that people write: each is built, built again, and run.

`dockerfiles/<name>/context` is what is built, `dockerfiles/<name>/case.toml` what is expected.
The images that they stand on are one Debian with compilers and interpreters, made once and
kept in a cache directory (`BAYPLAN_TEST_CACHE`), and one Debian with nothing added.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.build.builder import BuildRequest, build
from runtime.build.events import BuildEvent, StepCached, StepDone
from runtime.build.ground import DEFAULT_PATH
from runtime.build.run import ContainerStepRunner, host_network
from runtime.build.steps import BuildSecret, RunStep
from runtime.container.containers import Containers
from runtime.errors import ImageError
from runtime.images import bootstrap as bootstrapping
from runtime.images.bootstrap import bootstrap
from runtime.images.store import Image, ImageStore

CASES = Path(__file__).parent / "dockerfiles"
PLAIN = "debian:bookworm"
TOOLS = ("gcc", "libc6-dev", "make", "golang-go", "nodejs", "python3-venv", "tini")
TOOLED = (
    "gcc:12-bookworm",
    "golang:1.19-bookworm",
    "node:18-bookworm-slim",
    "python:3.11-slim-bookworm",
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap"),
    # The launcher is meant to go on after its parent has forgotten it.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]


def _make_bases(root: Path) -> None:
    store = ImageStore(root)
    bootstrap(store, PLAIN, include=TOOLS)
    for name in TOOLED:
        store.tag(name, PLAIN)
    bootstrap(store, PLAIN)
    store.settle()


@pytest.fixture(scope="module")
def bases() -> Path:
    """A store with the base images, not to be written to."""
    cache = Path(os.environ.get("BAYPLAN_TEST_CACHE", "/var/cache/bayplan-tests"))
    cache.mkdir(parents=True, exist_ok=True)
    source = Path(bootstrapping.__file__).read_bytes()
    key = hashlib.sha256(source + repr((TOOLS, TOOLED)).encode()).hexdigest()[:16]
    home = cache / f"toolbox-{key}"
    with (cache / "toolbox.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            for stale in cache.glob("toolbox-*"):
                shutil.rmtree(stale)
            try:
                _make_bases(home / "root")
            except ImageError as exc:
                pytest.skip(f"the base images cannot be made: {exc}")
            (home / "complete").touch()
    return home / "root"


class Site:
    """A store that knows the base images, and containers."""

    def __init__(self, place: Path, bases: Path) -> None:
        root = place / "store"
        # Blobs and layers never change: links will do, in the same file system.
        for linked, names in ((True, ("blobs", "layers")), (False, ("index.json", "oci-layout"))):
            for name in names:
                root.mkdir(parents=True, exist_ok=True)
                argv = ["cp", "-a", *(("--link",) if linked else ()), bases / name, root]
                subprocess.run(argv, check=True)
        self.store = ImageStore(root)
        self.containers = Containers(place / "root", place / "run")
        self.runner = ContainerStepRunner(
            self.containers, open_network=host_network, scratch=place / "scratch"
        )
        self.place = place

    def build(self, request: BuildRequest) -> tuple[Image, list[BuildEvent]]:
        events: list[BuildEvent] = []
        image = build(request, store=self.store, steps=self.runner, progress=events.append)
        return image, events

    def run(self, image: Image, command: tuple[str, ...] | None) -> tuple[int, str]:
        """Run an image as its config says; the exit code and what it prints."""
        config = image.config
        argv = command or (*(config.entrypoint or ()), *(config.cmd or ()))
        here = self.place / uuid.uuid4().hex
        (here / "upper").mkdir(parents=True)
        (here / "work").mkdir()
        output: list[bytes] = []
        path = () if any(item.startswith("PATH=") for item in config.env) else (
            f"PATH={DEFAULT_PATH}",
        )  # fmt: skip
        step = RunStep(
            layers=tuple(map(str, self.store.layer_paths(image))),
            upper=here / "upper",
            work=here / "work",
            argv=argv,
            env=(*path, *config.env),
            cwd=config.working_dir or "/",
            user=config.user,
        )
        code = self.runner.run(step, output.append)
        return code, b"".join(output).decode()


@pytest.fixture(scope="module")
def site(bases: Path) -> Iterator[Site]:
    place = bases.parents[1] / f"dockerfiles-{uuid.uuid4().hex[:8]}"
    place.mkdir()
    made = Site(place, bases)
    try:
        yield made
        assert made.containers.list() == []
        assert made.store.check() == ()
    finally:
        made.containers.close()
        shutil.rmtree(place)


def _request(context: Path, case: dict[str, Any], tag: str) -> BuildRequest:
    return BuildRequest(
        context=context,
        tags=(tag,),
        target=case.get("target"),
        args=case.get("args", {}),
        secrets={
            name: BuildSecret(content=text.encode())
            for name, text in case.get("secrets", {}).items()
        },
        contexts={name: str(context / path) for name, path in case.get("contexts", {}).items()},
    )


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CASES.glob("*/case.toml")))
def test_it_builds_and_runs(site: Site, tmp_path: Path, name: str) -> None:
    case = tomllib.loads((CASES / name / "case.toml").read_text())
    context = tmp_path / "context"
    shutil.copytree(CASES / name / "context", context)
    for dockerfile, tag in case.get("before", {}).items():
        site.build(BuildRequest(context=context, dockerfile=dockerfile, tags=(tag,)))
        (context / dockerfile).unlink()
    image, _ = site.build(_request(context, case, f"case/{name}:latest"))

    again, events = site.build(_request(context, case, f"case/{name}:latest"))
    assert again.id == image.id
    assert not any(isinstance(event, StepDone) for event in events)
    assert any(isinstance(event, StepCached) for event in events)

    code, output = site.run(image, tuple(case["command"]) if "command" in case else None)
    assert code == 0, output
    if "contains" in case:
        assert case["contains"] in output
    else:
        assert output == case["output"]
    config = image.config
    assert config.user == case.get("user", "")
    assert case.get("labels", {}).items() <= config.labels.items()
    assert set(case.get("ports", ())) == set(config.exposed_ports) or "ports" not in case
    if "healthcheck" in case:
        assert config.healthcheck is not None
        assert list(config.healthcheck.test) == case["healthcheck"]
    if "size_below" in case:
        assert image.size < case["size_below"]


def test_there_are_as_many_cases_as_promised() -> None:
    assert len(list(CASES.glob("*/case.toml"))) >= 26
