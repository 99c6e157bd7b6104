"""Every key of a build section, and every flag of `bay build`, through the command."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime.build.cache import StepCache
from runtime.images.merged import MergedTree
from runtime.images.platforms import host_platform, parse_platform
from runtime.images.store import Image, ImageStore
from runtime.oci.digest import digest_of
from runtime.oci.image_config import ImageConfig

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

EVERYTHING = r"""
secrets:
  from-file: {file: ./token}
  from-variable: {environment: TOKEN}
services:
  base:
    image: every-base
    build:
      context: ./base
      dockerfile_inline: |
        FROM debian:bookworm
        RUN echo of the base > /of-the-base
  web:
    image: every-web
    init: true
    command: sleep 1000
    build:
      context: ./context
      dockerfile: ../files/Dockerfile
      args: {GIVEN: one, TAKEN: }
      target: wanted
      labels: {made.by: hand}
      tags: [every-web:second]
      secrets:
        - from-file
        - {source: from-variable, target: renamed, uid: "65534", gid: "12", mode: 0440}
      ssh: ["key=./key", default]
      additional_contexts:
        other: ./other
        base: service:base
        image: docker-image://debian:bookworm
      extra_hosts: ["far:10.1.2.3", "here:host-gateway"]
      shm_size: 32mb
      ulimits: {nofile: {soft: 1111, hard: 2222}, nproc: 333}
      entitlements: [security.insecure, network.host]
      network: default
      cache_to: ["type=local,dest=./cache"]
      isolation: hyperv
      provenance: mode=max
      sbom: true
"""
DOCKERFILE = r"""
FROM base AS wanted
ARG GIVEN
ARG TAKEN
COPY f /f
COPY --from=other o /other
COPY --from=image /etc/debian_version /version
RUN echo "$GIVEN $TAKEN" > /args; \
    grep -E 'far|here' /etc/hosts > /hosts; \
    df -k /dev/shm | tail -1 > /shm; \
    ulimit -Sn > /limits; ulimit -Hn >> /limits; grep processes /proc/self/limits >> /limits; \
    grep CapEff /proc/self/status > /confined
RUN --mount=type=secret,id=renamed stat -c '%u %g %a' /run/secrets/renamed > /owner
RUN --mount=type=secret,id=from-file --mount=type=secret,id=renamed,env=RENAMED \
    cat /run/secrets/from-file > /secrets; echo " $RENAMED" >> /secrets
RUN --mount=type=ssh,id=key --mount=type=ssh,id=default,target=/other.sock,required=true \
    test -S "$SSH_AUTH_SOCK" && test -S /other.sock && echo sockets > /agents
RUN --security=insecure grep CapEff /proc/self/status > /unconfined
RUN --network=none ls /sys/class/net > /links
RUN --network=host ls /sys/class/net > /host-links
FROM wanted
RUN echo never > /never
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """An ssh agent of the person's own; its socket."""
    socket = tmp_path / "agent.sock"
    with subprocess.Popen(
        ["ssh-agent", "-a", socket, "sh", "-c", 'echo; cat; kill "$SSH_AGENT_PID"'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        yield str(socket)
        process.stdin.close()


def write(directory: Path, **files: str) -> None:
    for name, content in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def found(bay: Bay, image: str) -> Image:
    return ImageStore(bay.root).resolve(image)


def files(bay: Bay, image: str, *paths: str) -> list[str]:
    """What files of an image hold, without running it."""
    store = ImageStore(bay.root)
    with MergedTree(store.layer_paths(store.resolve(image))) as tree:
        texts = [tree.read(path.encode()) for path in paths]
    return ["(none)" if text is None else text.decode() for text in texts]


def test_every_key_of_a_build_section_is_honoured_or_named(
    bay: Bay, project: Callable[..., Path], agent: str
) -> None:
    directory = project(EVERYTHING, token="of a file")
    write(
        directory,
        base__x="",
        context__f="of the context",
        other__o="of another context",
        files__Dockerfile=DOCKERFILE,
    )
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "key"], check=True
    )
    environ = {"TOKEN": "of a variable", "TAKEN": "two", "SSH_AUTH_SOCK": agent}

    done = bay("build", cwd=directory, env=environ)
    assert done.status == 0, str(done)
    told = done.out + done.err
    for line in (
        "build.isolation has no effect",
        "build.provenance has no effect",
        "build.sbom has no effect",
    ):
        assert line in told
    image = found(bay, "every-web")
    assert found(bay, "every-web:second").id == image.id
    labels = image.config.labels
    assert labels["made.by"] == "hand" and labels["com.docker.compose.service"] == "web"

    assert files(bay, "every-web", "/f", "/other", "/of-the-base", "/args", "/never") == [
        "of the context", "of another context", "of the base\n", "one two\n", "(none)",
    ]  # fmt: skip
    hosts, shm, limits, links, own_links = files(
        bay, "every-web", "/hosts", "/shm", "/limits", "/links", "/host-links"
    )
    assert "10.1.2.3\tfar" in hosts and "\there" in hosts
    assert shm.split()[1] == "32768"
    assert limits.split()[:2] == ["1111", "2222"] and "333" in limits
    assert links.split() == ["lo"] and len(own_links.split()) > 1
    confined, unconfined = files(bay, "every-web", "/confined", "/unconfined")
    assert int(confined.split()[1], 16) < int(unconfined.split()[1], 16)
    assert files(bay, "every-web", "/owner", "/secrets", "/agents") == [
        "65534 12 440\n",
        "of a file of a variable\n",
        "sockets\n",
    ]
    assert any((directory / "cache").iterdir())


def test_what_is_granted_nowhere_is_refused_by_name(bay: Bay, project: Callable[..., Path]) -> None:
    def refusal(build: str, dockerfile: str = "FROM scratch\n") -> str:
        directory = project(
            f"services: {{web: {{build: {{context: ., {build}}}}}}}", Dockerfile=dockerfile
        )
        done = bay("build", cwd=directory, env={"SSH_AUTH_SOCK": ""})
        assert done.status == 1, str(done)
        return done.err

    asked = "FROM debian:bookworm\nRUN --security=insecure true\n"
    assert "needs the entitlement security.insecure" in refusal("no_cache: true", asked)
    assert "build.entitlements device is not supported" in refusal("entitlements: [device]")
    assert "there is no network other to build on" in refusal("network: other")
    assert "build.network container:x is not supported" in refusal("network: 'container:x'")
    assert "build.ssh default has no agent" in refusal("ssh: [default]")
    assert "/nothing/here: no such file" in refusal("ssh: [own=/nothing/here]")
    assert "there is no type 'gha'" in refusal("cache_to: [type=gha]")
    assert "there is no OCI image layout at " in refusal(
        "additional_contexts: {o: 'oci-layout://x'}", "FROM o\n"
    )
    fetched = refusal("target: x").replace("\n", " ")
    assert "there is no stage 'x'" in fetched


def test_steps_are_taken_from_caches_and_made_again_where_asked(
    bay: Bay, project: Callable[..., Path], tmp_path: Path
) -> None:
    storage = str(tmp_path / "registry")
    with bay.started(
        "registry", "serve", "--storage", storage, "--listen", "127.0.0.1:0"
    ) as registry:
        assert registry.stdout is not None
        address = registry.stdout.readline().split()[-1]
        text = "services: {{web: {{image: 'cached:1', build: {{context: ., {0}}}}}}}".format
        steps = (
            "FROM debian:bookworm AS one\nRUN echo {0} > /1\nFROM one\nRUN echo {0} > /2\n".format
        )
        first, second = steps("first"), steps("second")
        place = f"'type=registry,ref={address}/cache:1'"

        def cached(extra: str, dockerfile: str, *flags: str, **replaced: str) -> int:
            directory = project(text(extra), Dockerfile=dockerfile, **replaced)
            done = bay("--progress", "plain", "build", *flags, cwd=directory)
            assert done.status == 0, str(done)
            return (done.out + done.err).count("CACHED")

        assert cached(f"cache_to: [{place}]", first) == 0
        local = project(text("cache_to: ['type=local,dest=./kept']"), Dockerfile=second)
        bay.ok("build", cwd=local)
        assert cached("target: ''", first) == 2
        assert cached("no_cache: true", first) == 0
        assert cached("no_cache_filter: [one]", first) <= 1
        assert cached("target: ''", first, "--no-cache") == 0
        forget(bay)
        assert cached(f"cache_from: [{place}]", first) == 2
        assert cached(f"cache_from: ['type=local,src={local}/kept']", second) == 2

        bay.ok("image", "tag", "debian:bookworm", f"{address}/base:1")
        bay.ok("image", "push", f"{address}/base:1")
        bay.ok("image", "rm", f"{address}/base:1")
        based = f"FROM {address}/base:1\n"
        directory = project(text("pull: false"), Dockerfile=based)
        bay.ok("build", cwd=directory)
        bay.ok("image", "tag", "cached:1", f"{address}/base:1")  # another one, here alone
        bay.ok("build", "--pull", cwd=directory)
        store = ImageStore(bay.root)
        pulled, base = store.resolve(f"{address}/base:1"), store.resolve("debian:bookworm")
        assert pulled.id == base.id


def nameless(bay: Bay) -> list[str]:
    return [image.id for image in ImageStore(bay.root).list() if not image.references]


def forget(bay: Bay) -> None:
    """What builds have kept of their steps."""
    StepCache(ImageStore(bay.root)).prune()


def test_an_image_is_made_for_several_platforms(
    bay: Bay, project: Callable[..., Path], tmp_path: Path
) -> None:
    directory = project(
        "services:\n  web:\n    image: both:1\n    platform: linux/arm64\n    command: /arch\n"
        "    build: {context: ., platforms: [linux/amd64, linux/arm64]}\n",
        Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n",
        amd64="a", arm64="b",
    )  # fmt: skip
    before = nameless(bay)
    bay.ok("build", cwd=directory)
    store = ImageStore(bay.root)
    for platform in ("linux/amd64", "linux/arm64"):
        assert store.resolve("both:1", parse_platform(platform)).config.platform == parse_platform(
            platform
        )
    assert nameless(bay) == before
    bay.ok("up", "--build", "--no-start", cwd=directory)
    assert ImageStore(bay.root).resolve("both:1").config.architecture == "arm64"


def test_a_context_can_be_a_repository(
    bay: Bay, project: Callable[..., Path], tmp_path: Path
) -> None:
    repository = tmp_path / "served" / "it.git"
    work = tmp_path / "work"
    write(work, sub__f="of the repository", sub__Dockerfile="FROM scratch\nCOPY f /f\n")
    (work / "out").symlink_to("/etc")
    for words in (
        ("init", "-q", "-b", "main", str(work)),
        ("-C", str(work), "add", "."),
        ("-C", str(work), "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "x"),
        ("clone", "-q", "--bare", str(work), str(repository)),
        ("-C", str(repository), "update-server-info"),
    ):
        subprocess.run(["git", *words], check=True)
    program = (
        "import functools, http.server as h, sys;"
        "s = h.HTTPServer(('127.0.0.1', 0), functools.partial("
        "h.SimpleHTTPRequestHandler, directory=sys.argv[1]));"
        "print(s.server_port, flush=True); s.serve_forever()"
    )
    with subprocess.Popen(
        bay.host.inside(sys.executable, "-I", "-c", program, str(repository.parent)),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/it.git"
            directory = project(f"services: {{web: {{image: 'git:1', build: '{url}#main:sub'}}}}")
            bay.ok("build", cwd=directory)
            assert files(bay, "git:1", "/f") == ["of the repository"]
            led = project(f"services: {{web: {{build: '{url}#main:out'}}}}")
            assert "there is no directory out" in bay("build", cwd=led).err
        finally:
            server.kill()
    assert list((bay.root / "build").glob("checkout-*")) == []


def test_flags_of_build_are_acted_on_or_refused_by_name(
    bay: Bay, project: Callable[..., Path], agent: str
) -> None:
    directory = project(
        "services:\n  web:\n    image: flags:1\n    build:\n      context: .\n"
        "      additional_contexts: {base: 'service:base'}\n"
        "      secrets: [s]\n"
        "  base: {image: flags-base, build: {context: ., dockerfile_inline: FROM scratch}}\n"
        "secrets: {s: {environment: S}}\n",
        Dockerfile="FROM base\nFROM debian:bookworm\nCMD echo\n"
        "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK; "
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max > /max || true\n",
    )
    environ = {"S": "hidden", "SSH_AUTH_SOCK": agent, "SOURCE_DATE_EPOCH": "1000000000"}
    checked = bay("build", "--check", "web", cwd=directory, env=environ)
    assert checked.status == 1
    assert "web: Dockerfile:3: CMD in the shell form" in checked.out
    printed = bay.ok("build", "--print", "--build-arg", "A=1", "web", cwd=directory, env=environ)
    baked = json.loads(printed)
    assert baked["group"]["default"]["targets"] == ["base", "web"]
    web = baked["target"]["web"]
    assert web["contexts"] == {"base": "target:base"} and web["args"] == {"A": "1"}
    assert web["tags"] == ["flags:1"] and web["secret"] == ["id=s,type=env,env=S"]
    assert "hidden" not in printed
    assert bay("image", "inspect", "flags:1").status == 1

    bay.ok("build", "--ssh", "default", "-m", "64m", "web", cwd=directory, env=environ)
    assert str(64 << 20) in files(bay, "flags:1", "/max")[0]
    assert found(bay, "flags:1").created.startswith("2001-09-09")
    for flag in ("--builder=other", "--provenance=true", "--sbom=true"):
        refused = bay("build", flag, cwd=directory)
        assert refused.status == 1 and "is not supported" in refused.err
    assert bay("build", "--ssh", "nonsense", cwd=directory).status == 1


def test_the_same_build_twice_at_once_is_made_once(
    bay: Bay, project: Callable[..., Path], tmp_path: Path
) -> None:
    text = "services: {{web: {{image: 'twice:{}', build: .}}}}"
    dockerfile = "FROM debian:bookworm\nRUN cat /proc/sys/kernel/random/uuid > /once\n"
    places = [project(text.format(number), Dockerfile=dockerfile) for number in (1, 2)]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(bay.started("--progress", "plain", "build", cwd=place))
            for place in places
        ]
        for process in running:
            said = process.communicate(timeout=120)[0]
            assert process.returncode == 0, said
    assert files(bay, "twice:1", "/once") == files(bay, "twice:2", "/once")
    assert ImageStore(bay.root).check() == ()


def test_contexts_come_from_layouts_and_from_web_servers(
    bay: Bay, project: Callable[..., Path], tmp_path: Path
) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    with tarfile.open(pages / "context", "w:gz") as archive:
        for name, text in (("Dockerfile", CONTEXTS), ("f", "of the archive")):
            (tmp_path / name).write_text(text)
            archive.add(tmp_path / name, name)
    shutil.copy(pages / "context", pages / "other")
    (pages / "alone").write_text("FROM scratch\nCOPY Dockerfile /kept\n")
    with serving(bay, pages) as address:
        directory = project(
            "services:\n"
            "  web:\n"
            "    image: of-contexts\n"
            "    build:\n"
            f"      context: {address}/context\n"
            "      additional_contexts:\n"
            f"        other: {address}/other\n"
            "        base: oci-layout://./layout:1\n"
            f"  alone: {{image: of-alone, build: {address}/alone}}\n"
        )
        store = ImageStore(directory / "layout")
        with store.lease() as lease:
            layer = store.add_layer(packed("of the layout"), lease=lease)
            config = ImageConfig(architecture=host_platform().architecture)
            store.create_image(config, (layer,), ("any:1",), lease=lease)
        done = bay("--progress", "plain", "build", cwd=directory)
        assert done.status == 0, str(done)
        digest = digest_of((pages / "context").read_bytes())
        assert f"[context] {address}/context: {digest}" in done.out + done.err
        assert f"[context other] {address}/other: {digest}" in done.out + done.err
        assert files(bay, "of-contexts", "/layout", "/f", "/other") == [
            "of the layout", "of the archive", "of the archive",
        ]  # fmt: skip
        assert files(bay, "of-alone", "/kept") == [(pages / "alone").read_text()]
        bay.ok("build", "--check", "alone", cwd=directory)
        (pages / "alone").unlink()
        failed = bay("build", "alone", cwd=directory)
        assert failed.status == 1 and f"cannot fetch {address}/alone: 404" in failed.err
    assert [left.name for left in (Path(bay.root) / "build").glob("context-*")] == []


CONTEXTS = "FROM base\nCOPY f /f\nCOPY --from=other f /other\n"


def packed(text: str) -> io.BytesIO:
    """A layer with the file /layout."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("layout")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
    out.seek(0)
    return out


@contextlib.contextmanager
def serving(bay: Bay, directory: Path) -> Iterator[str]:
    """A web server beside the instance, with the files of a directory; its address."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    with subprocess.Popen(
        bay.host.inside(*command),
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().split()[5]}"
        finally:
            process.terminate()


def test_steps_run_on_a_network_that_is_there(bay: Bay, project: Callable[..., Path]) -> None:
    served = project(
        "services:\n"
        "  web: {image: 'debian:bookworm', init: true, command: sleep 1000, networks: [back]}\n"
        "networks: {back: {internal: true}}\n"
    )
    bay.ok("up", "-d", cwd=served)
    steps = (
        "FROM debian:bookworm\n"
        'SHELL ["bash", "-c"]\n'
        "RUN getent ahostsv4 web > /found; (echo > /dev/tcp/web/9) 2> /told; "
        "cat /etc/hosts > /hosts\n"
        "RUN --network=none ls /sys/class/net > /links\n"
    )
    name = f"{served.name}_back"
    text = (
        "services:\n  web:\n    image: on-network:1\n    build:\n      context: .\n"
        "      network: {0}\n      no_cache: true\n      extra_hosts: ['here:host-gateway']\n{1}"
    ).format
    own = f"    networks: [far]\nnetworks: {{far: {{name: {name}, external: true}}}}\n"
    for directory in (
        project(text(name, ""), Dockerfile=steps),
        project(text("far", own), Dockerfile=steps),
    ):
        bay.ok("build", cwd=directory)
        address = bay.ok("exec", "-T", "web", "hostname", "-i", cwd=served).strip()
        found, told, hosts, links = files(
            bay, "on-network:1", "/found", "/told", "/hosts", "/links"
        )
        assert found.split()[0] == address
        assert "Connection refused" in told
        gateway = address.rsplit(".", 1)[0] + ".1"
        assert f"{gateway}\there" in hosts
        assert links.split() == ["lo"]
    close = bay("build", cwd=project(text(name[:-1], ""), Dockerfile=steps))
    assert close.status == 1 and f"did you mean {name}?" in close.err
    bay.ok("down", "-t", "0", cwd=served)
    gone = bay("build", cwd=directory)
    assert gone.status == 1 and f"there is no network {name} to build on" in gone.err
