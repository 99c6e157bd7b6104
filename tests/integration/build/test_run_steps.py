"""RUN steps in real containers, on an image of one static busybox."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.build.builder import BuildRequest, build
from runtime.build.events import BuildEvent, StepCached, StepOutput
from runtime.build.memory_files import SHARED_MEMORY
from runtime.build.run import ContainerStepRunner, host_network
from runtime.build.steps import BuildSecret, RunStep
from runtime.container.config import Ulimit
from runtime.container.containers import Containers
from runtime.errors import BuildError
from runtime.images.merged import MergedTree
from runtime.images.store import Image, ImageStore

BUSYBOX = Path("/bin/busybox")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
    # The launcher is meant to go on after its parent has forgotten it.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

BASE = """\
FROM scratch AS base
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY <<EOF /etc/passwd
root:x:0:0::/root:/bin/sh
web:x:33:33::/:/bin/sh
EOF
"""


class Site:
    """A store, containers and a context of one test."""

    def __init__(self, place: Path) -> None:
        self.store = ImageStore(place / "store")
        self.containers = Containers(place / "root", place / "run")
        self.context = place / "context"
        self.context.mkdir()
        (self.context / "busybox").write_bytes(BUSYBOX.read_bytes())
        (self.context / "busybox").chmod(0o755)
        self.runner = ContainerStepRunner(
            self.containers, open_network=host_network, scratch=place / "scratch"
        )
        self.events: list[BuildEvent] = []

    def build(self, dockerfile: str, **options: object) -> Image:
        self.events.clear()
        request = BuildRequest(
            context=self.context,
            dockerfile_inline=BASE + dockerfile,
            **options,  # type: ignore[arg-type]  # the tests pass what BuildRequest takes
        )
        return build(request, store=self.store, steps=self.runner, progress=self.events.append)

    def output(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, StepOutput))

    def tree(self, image: Image) -> MergedTree:
        return MergedTree(self.store.layer_paths(image))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    assert made.containers.list() == []
    made.containers.close()


def test_a_step_changes_the_image_and_prints(site: Site) -> None:
    image = site.build(
        "RUN mkdir /made && echo content >/made/f && rm /etc/passwd && echo printed && id -u\n"
    )
    assert site.output() == "printed\n0\n"
    with site.tree(image) as tree:
        assert tree.read(b"/made/f") == b"content\n"
        assert tree.find(b"/etc/passwd") is None
        assert tree.read(b"/bin/busybox", limit=1 << 26) == BUSYBOX.read_bytes()


def test_nothing_that_was_mounted_is_left_in_the_image(site: Site) -> None:
    image = site.build("RUN cat /etc/hosts /etc/resolv.conf /proc/self/status >/dev/null\n")
    with site.tree(image) as tree:
        assert tree.names(()) == [b"bin", b"etc"]
        assert tree.names((b"etc",)) == [b"passwd"]


def test_user_directory_and_environment_hold_for_a_step(site: Site) -> None:
    site.build(
        "ARG A=1\nENV B='two words'\nWORKDIR /w/x\nUSER web\n"
        'RUN id -un; pwd; echo "$A $B"; touch /w/x/f 2>&1 || true\n'
    )
    assert site.output().splitlines()[:3] == ["web", "/w/x", "1 two words"]
    assert "Permission denied" in site.output()


def test_the_second_build_runs_nothing(site: Site) -> None:
    first = site.build("RUN date +%N >/now\n")
    second = site.build("RUN date +%N >/now\n")
    assert second.id == first.id
    assert sum(isinstance(event, StepCached) for event in site.events) == 4


def test_a_directory_that_is_made_again_is_empty(site: Site) -> None:
    image = site.build("RUN mkdir /d && touch /d/old\nRUN rm -r /d && mkdir /d && touch /d/new\n")
    with site.tree(image) as tree:
        assert tree.names((b"d",)) == [b"new"]
    # The same from the blobs alone, as another machine would have it.
    with site.store.lease() as lease:
        for chain in site.store.layers.chains():
            site.store.layers.take_away(chain, lease)
    with site.tree(image) as tree:
        assert tree.names((b"d",)) == [b"new"]


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("RUN echo before; exit 7", 7, "exit code 7"),
        ("RUN nonexistent-command", 127, "exit code 127"),
        ('RUN ["/nonexistent"]', 127, "cannot run /nonexistent"),
        ('RUN ["/etc/passwd"]', 126, "cannot run /etc/passwd"),
    ],
)
def test_a_failing_command_says_how(site: Site, command: str, code: int, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        site.build(command)
    assert caught.value.exit_code == code
    assert caught.value.line == 8
    assert site.store.list() == []


def test_the_end_of_the_output_is_in_the_error(site: Site) -> None:
    with pytest.raises(BuildError) as caught:
        site.build("RUN seq 1 1000; false\n")
    assert caught.value.output_tail.endswith("999\n1000")
    assert len(caught.value.output_tail.splitlines()) == 25


def test_a_step_has_dropped_capabilities(site: Site) -> None:
    site.build("RUN grep -E 'Cap(Inh|Amb|Bnd)' /proc/self/status\n")
    sets = dict(line.split(":\t") for line in site.output().splitlines())
    assert sets["CapInh"] == sets["CapAmb"] == "0" * 16
    assert sets["CapBnd"] == "00000000a80425fb"


def test_canceling_kills_the_running_step(site: Site) -> None:
    errors: list[BaseException] = []
    started = threading.Event()

    def run() -> None:
        request = BuildRequest(
            context=site.context, dockerfile_inline=BASE + "RUN echo up; sleep 1000\n"
        )

        def progress(event: BuildEvent) -> None:
            if isinstance(event, StepOutput) and "up" in event.text:
                started.set()

        try:
            build(request, store=site.store, steps=site.runner, progress=progress)
        except BuildError as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(30)
    site.runner.cancel()
    thread.join(30)
    assert [str(error) for error in errors] == ["the build was canceled"]


def test_mounts_are_there_for_the_step_alone(site: Site) -> None:
    (site.context / "data").write_text("from the context")
    dockerfile = (
        "RUN --mount=type=cache,target=/var/cache/x --mount=target=/ctx,source=data"
        " --mount=type=secret,id=key --mount=type=tmpfs,target=/scratch"
        " --mount=from=base,source=/etc,target=/base-etc"
        " cat /ctx /run/secrets/key /base-etc/passwd && ls /var/cache/x"
        " && touch /scratch/f /var/cache/x/kept && ! touch /base-etc/f 2>/dev/null"
        " && stat -c %a%u /run/secrets/key\n"
    )
    image = site.build(
        f"FROM base\n{dockerfile}", secrets={"key": BuildSecret(content=b"s3cret\n")}
    )
    assert "from the contexts3cret\nroot:x:0" in site.output()
    assert site.output().endswith("4000\n")
    with site.tree(image) as tree:
        assert tree.names(()) == [b"bin", b"etc"]
    site.build(
        f"FROM base\n{dockerfile}", secrets={"key": BuildSecret(content=b"x\n")}, no_cache=True
    )
    assert "\nkept\n" in site.output(), "the cache mount outlives the build"


def test_limits_and_hosts_hold_for_a_step(site: Site) -> None:
    site.build(
        "RUN ulimit -n; grep other /etc/hosts; df -k /dev/shm | tail -1 | awk '{print $2}'\n",
        ulimits=(Ulimit(name="nofile", soft=77, hard=88),),
        extra_hosts=(("other", "192.0.2.7"),),
        shm_size=1 << 20,
    )
    assert site.output() == "77\n192.0.2.7\tother\n1024\n"


def test_a_script_with_its_own_interpreter_runs(site: Site) -> None:
    site.build("RUN <<EOF\n#!/bin/busybox sh\necho $0\nEOF\n")
    assert site.output() == "/dev/pipes/EOF\n"


def test_a_step_stands_on_what_the_one_before_it_made(site: Site) -> None:
    image = site.build(
        "RUN echo one >/a && chmod 700 / && rm /etc/passwd\n"
        "RUN test ! -e /etc/passwd && stat -c %a / && cat /a && echo two >>/a\n"
        "RUN cat /a && rm /a\n"
        "RUN test ! -e /a\n"
    )
    assert site.output() == "700\none\none\ntwo\n"
    with site.tree(image) as tree:
        assert tree.find(b"/a") is None
    assert os.listdir(site.store.root / "ingest") == []
    assert list((site.context.parent / "scratch").glob("gate-*")) == []


def test_a_step_that_was_made_ready_is_not_run_where_its_result_is_known(site: Site) -> None:
    first = site.build("RUN true\nRUN echo runs; date +%N >/b\n")
    second = site.build("RUN :\nRUN echo runs; date +%N >/b\n")
    assert site.output() == ""
    assert second.config.diff_ids == first.config.diff_ids


def test_a_step_that_was_made_ready_for_nothing_is_taken_away(site: Site) -> None:
    with pytest.raises(BuildError, match="exit code 3"):
        site.build("RUN exit 3\nRUN echo never\n")
    assert site.output() == ""
    assert site.containers.list() == []


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from runtime.build.builder import BuildRequest, build
from runtime.build.events import StepOutput
from runtime.build.run import ContainerStepRunner, host_network
from runtime.container.config import Ulimit
from runtime.container.containers import Containers
from runtime.images.store import ImageStore
place = Path(sys.argv[1])
def progress(event):
    if isinstance(event, StepOutput):
        os.kill(os.getpid(), signal.SIGKILL)
runner = ContainerStepRunner(Containers(place / "root", place / "run"),
                             open_network=host_network, scratch=place / "scratch")
build(BuildRequest(context=place / "context", dockerfile_inline=sys.argv[3]),
      store=ImageStore(place / "store"), steps=runner, progress=progress)
"""


def test_a_builder_that_is_killed_leaves_a_clean_store(site: Site, tmp_path: Path) -> None:
    dockerfile = BASE + "RUN touch /half; echo now; sleep 2; touch /whole\nRUN echo next\n"
    root = str(Path(__file__).parents[3])
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), root, dockerfile], check=False
    )
    assert killed.returncode == -9
    for state in site.containers.list():
        site.containers.delete(state.id, force=True)
    again = ImageStore(site.store.root)
    assert again.check() == ()
    assert os.listdir(again.root / "ingest") == []
    image = site.build("RUN touch /half; echo now; touch /whole\n")
    with site.tree(image) as tree:
        assert tree.find(b"/whole") is not None


def test_a_secret_may_be_any_bytes(site: Site) -> None:
    secret = bytes(range(256)) * 3
    stale = SHARED_MEMORY / "bayplan-build-stale"
    stale.mkdir()
    (stale / "lock").touch()
    site.build(
        "RUN --mount=type=secret,id=key,target=/key,mode=0440,uid=33 "
        "sha256sum /key; stat -c '%a %u' /key; echo x 2>/dev/null >/key || echo kept\n"
        "RUN test ! -s /key\n",
        secrets={"key": BuildSecret(content=secret)},
    )
    digest = hashlib.sha256(secret).hexdigest()
    assert site.output().splitlines()[:3] == [f"{digest}  /key", "440 33", "kept"]
    assert list(SHARED_MEMORY.glob("*bayplan-*")) == []
    with pytest.raises(BuildError, match="not text, so it cannot be the variable KEY"):
        site.build(
            "RUN --mount=type=secret,id=key,env=KEY x\n",
            secrets={"key": BuildSecret(content=secret)},
        )


def test_a_stage_that_fails_kills_the_steps_of_the_others(site: Site) -> None:
    started = threading.Event()
    site.runner = _Noticing(site, started)
    with pytest.raises(BuildError, match="exit code 3"):
        site.build(
            "FROM base AS long\nRUN echo runs; exec sleep 1000\n"
            "FROM base AS short\nRUN exit 3\n"
            "FROM base\nCOPY --from=long / /a/\nCOPY --from=short / /b/\n"
        )
    assert started.is_set()


class _Noticing(ContainerStepRunner):
    """Lets the step that fails begin when the long one has printed."""

    def __init__(self, site: Site, started: threading.Event) -> None:
        super().__init__(
            site.containers, open_network=host_network, scratch=site.context.parent / "scratch"
        )
        self._started = started

    def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
        def noticing(piece: bytes) -> None:
            if b"runs" in piece:
                self._started.set()
            output(piece)

        if "exit 3" in step.argv[-1]:
            assert self._started.wait(60)
        return super().run(step, noticing)
