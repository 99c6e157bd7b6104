"""Building: what ends up in the image, what is taken from the cache, what is refused."""

from __future__ import annotations

import dataclasses
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runtime.build.builder import BuildRequest, build, check
from runtime.build.cache import StepCache
from runtime.build.events import (
    BuildWarning,
    StepCached,
    StepDone,
    StepFailed,
    StepOutput,
    StepStarted,
)
from runtime.build.steps import BuildSecret, RunStep
from runtime.errors import BuildError
from runtime.images.store import ImageStore
from tests.unit.runtime.build.workshop import ScriptedRunner, Workshop
from tests.unit.runtime.images.archives import archive, directory, member, symlink

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners are set by root alone")


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_configuration_lands_in_the_image(shop: Workshop) -> None:
    image = shop.build(
        "FROM scratch\n"
        "ARG VERSION=1.0\n"
        'ENV A=x B="two words" C=$VERSION\n'
        "ENV D $A-old form\n"
        "LABEL a.b=$A\n"
        "EXPOSE 80 53/udp 9000-9001\n"
        "VOLUME /data /more\n"
        "USER 1000:1000\n"
        "STOPSIGNAL SIGINT\n"
        "HEALTHCHECK --interval=2s CMD curl x\n"
        'ENTRYPOINT ["run"]\n'
        "CMD start $A\n"
        "ONBUILD RUN echo\n",
        tags=("app:1", "app:2"),
        labels={"from": "outside"},
    )
    config = image.config
    assert config.env == ("A=x", "B=two words", "C=1.0", "D=x-old form")
    assert config.labels == {"a.b": "x", "from": "outside"}
    assert config.exposed_ports == ("53/udp", "80/tcp", "9000/tcp", "9001/tcp")
    assert config.volumes == ("/data", "/more")
    assert (config.user, config.stop_signal) == ("1000:1000", "SIGINT")
    assert config.healthcheck is not None
    assert config.healthcheck.test == ("CMD-SHELL", "curl x")
    assert config.entrypoint == ("run",)
    assert config.cmd == ("/bin/sh", "-c", "start $A")
    assert config.onbuild == ("RUN echo",)
    assert image.references == ("app:1", "app:2")
    assert len(config.history) == 12


def test_an_entrypoint_drops_an_inherited_command_but_not_its_own(shop: Workshop) -> None:
    shop.build('FROM scratch\nCMD ["old"]', tags=("base",))
    assert shop.build('FROM base\nENTRYPOINT ["e"]').config.cmd is None
    image = shop.build('FROM base\nCMD ["new"]\nENTRYPOINT ["e"]')
    assert image.config.cmd == ("new",)


def test_the_shell_instruction_changes_the_shell_form(shop: Workshop) -> None:
    image = shop.build('FROM scratch\nSHELL ["/bin/bash", "-ec"]\nRUN x\nCMD y')
    assert shop.runner.steps[0].argv == ("/bin/bash", "-ec", "x")
    assert image.config.cmd == ("/bin/bash", "-ec", "y")


def test_copy_takes_the_content_of_a_directory(shop: Workshop) -> None:
    shop.write({"src/a": "1", "src/sub/b": "2", "other": "3"})
    image = shop.build("FROM scratch\nCOPY src /app\nCOPY other /app/\nCOPY other /renamed\n")
    assert shop.files(image) == {
        "app/a": "1", "app/sub/b": "2", "app/other": "3", "renamed": "3",
    }  # fmt: skip


def test_copy_knows_wildcards_and_the_working_directory(shop: Workshop) -> None:
    shop.write({"a.py": "1", "b.py": "2", "c.txt": "3", "d1/x": "4", "d2/x": "5"})
    image = shop.build(
        "FROM scratch\nWORKDIR /w\nWORKDIR sub\nCOPY *.py ./\nCOPY d?/x /d/\nCOPY [c].txt .\n"
    )
    assert shop.files(image) == {
        "w/sub/a.py": "1", "w/sub/b.py": "2", "w/sub/c.txt": "3", "d/x": "5",
    }  # fmt: skip
    assert image.config.working_dir == "/w/sub"


def test_copy_keeps_modes_and_times_and_links(shop: Workshop) -> None:
    shop.write({"src/run.sh": "x"})
    os.chmod(shop.context / "src/run.sh", 0o751)
    os.utime(shop.context / "src/run.sh", (1000, 1000))
    os.symlink("run.sh", shop.context / "src/link")
    image = shop.build("FROM scratch\nCOPY src /s\nCOPY src/link /followed\n")
    status = shop.status(image, "/s/run.sh")
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o751, 1000)
    assert shop.files(image)["s/link"] == "-> run.sh"
    assert shop.files(image)["followed"] == "x"


def test_chmod_holds_for_everything_copied(shop: Workshop) -> None:
    shop.write({"src/a": "1", "src/d/b": "1"})
    image = shop.build("FROM scratch\nCOPY --chmod=0700 src /s\n")
    for path in ("/s", "/s/a", "/s/d", "/s/d/b"):
        assert stat.S_IMODE(shop.status(image, path).st_mode) == 0o700


@needs_root
def test_chown_takes_names_of_the_image(shop: Workshop) -> None:
    shop.write({"a": "1"})
    os.chown(shop.context / "a", 77, 77)
    shop.base(
        "base",
        member("etc/passwd", b"web:x:33:44::/:/bin/sh\n"),
        member("etc/group", b"staff:x:50:\n"),
    )
    image = shop.build(
        "FROM base\nCOPY a /plain\nCOPY --chown=web a /new/web\nCOPY --chown=web:staff a /group\n"
        "COPY --chown=12 a /number\nCOPY --chown=1:staff a /mixed\n"
    )
    owners = {
        path: (shop.status(image, path).st_uid, shop.status(image, path).st_gid)
        for path in ("/plain", "/new", "/new/web", "/group", "/number", "/mixed")
    }
    assert owners == {
        "/plain": (0, 0), "/new": (33, 44), "/new/web": (33, 44), "/group": (33, 50),
        "/number": (12, 12), "/mixed": (1, 50),
    }  # fmt: skip


@needs_root
def test_a_copy_from_a_stage_keeps_owners(shop: Workshop) -> None:
    shop.base("base", member("f", b"1", uid=5, gid=6))
    image = shop.build("FROM base AS one\nFROM scratch\nCOPY --from=one /f /g\n")
    status = shop.status(image, "/g")
    assert (status.st_uid, status.st_gid) == (5, 6)


def test_links_of_the_image_are_followed_inside_it(shop: Workshop, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shop.write({"a": "1", "d/lib/x": "2"})
    shop.base(
        "base",
        directory("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("evil", str(outside)),
        symlink("up", "../../../../../.." + str(outside)),
        symlink("file", "usr/target"),
    )
    image = shop.build(
        "FROM base\nCOPY a /lib/a\nCOPY d /\nCOPY a /evil/a\nCOPY a /up/b\nCOPY a /file\n"
    )
    files = shop.files(image)
    assert files["usr/lib/a"] == "1"
    assert files["usr/lib/x"] == "2"
    assert files["lib"] == "-> usr/lib"
    assert files["file"] == "1", "a link at the destination's own name is replaced"
    assert os.listdir(outside) == []


def test_a_context_cannot_be_left(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    shop.write({"in": "1"})
    os.symlink("../secret", shop.context / "link")
    os.symlink(str(tmp_path / "secret"), shop.context / "absolute")
    for source in ("../secret", "link", "absolute", str(tmp_path / "secret")):
        with pytest.raises(BuildError, match="not in the build context"):
            shop.build(f"FROM scratch\nCOPY {source} /x\n")
    assert shop.files(shop.build("FROM scratch\nCOPY ../in /x\n")) == {"x": "1"}


def test_dockerignore_hides_files_and_says_so(shop: Workshop) -> None:
    shop.write(
        {"a": "1", "b.log": "2", "d/x": "3", "d/keep": "4", ".dockerignore": "*.log\nd\n!d/keep\n"}
    )
    image = shop.build("FROM scratch\nCOPY . /\n")
    assert set(shop.files(image)) == {"a", "d/keep", ".dockerignore"}
    with pytest.raises(BuildError) as caught:
        shop.build("FROM scratch\nCOPY b.log /\n")
    assert caught.value.hint == "the file exists, but .dockerignore leaves it out"


def test_a_dockerfiles_own_ignore_file_comes_first(shop: Workshop) -> None:
    shop.write({"a": "1", "b": "2", ".dockerignore": "a\n", "D.dockerignore": "b\n",
                "D": "FROM scratch\nCOPY a b* /\n"})  # fmt: skip
    request = BuildRequest(context=shop.context, dockerfile="D")
    with pytest.raises(BuildError, match=r"'b\*' is not in"):
        build(request, store=shop.store, steps=shop.runner, progress=lambda _: None)


def test_documents_become_files(shop: Workshop) -> None:
    image = shop.build(
        "FROM scratch\nARG WHO=me\nCOPY <<one <<'two' /d/\nhello $WHO \"x\"\none\nraw $WHO\ntwo\n"
        "COPY <<EOF /single\n1\nEOF\n"
    )
    assert shop.files(image) == {
        "d/one": 'hello me "x"\n', "d/two": "raw $WHO\n", "single": "1\n",
    }  # fmt: skip


def test_a_step_sees_arguments_variables_user_and_directory(shop: Workshop) -> None:
    shop.build(
        "ARG GLOBAL=g\nFROM scratch\nARG GLOBAL\nARG A=1\nARG B\nARG C=c\nENV C=env\n"
        "WORKDIR /w\nUSER nobody\nRUN x\n",
        args={"B": "given", "HTTP_PROXY": "p"},
    )
    [step] = shop.runner.steps
    env = dict(item.split("=", 1) for item in step.env)
    assert env | {"PATH": ""} == {
        "PATH": "", "GLOBAL": "g", "A": "1", "B": "given", "C": "env", "HTTP_PROXY": "p",
    }  # fmt: skip
    assert (step.cwd, step.user, step.argv) == ("/w", "nobody", ("/bin/sh", "-c", "x"))


def test_an_argument_is_not_seen_before_it_is_declared(shop: Workshop) -> None:
    shop.build("FROM scratch\nRUN one\nARG A=1\nRUN two\n", args={"A": "2"})
    assert [any(item == "A=2" for item in step.env) for step in shop.runner.steps] == [False, True]


def test_arguments_pass_to_stages_built_on_the_stage(shop: Workshop) -> None:
    shop.build("FROM scratch AS a\nARG A=1\nFROM a\nRUN x\nFROM scratch AS c\nRUN y\n", target="1")
    shop_env = shop.runner.steps[0].env
    assert "A=1" in shop_env


def test_a_heredoc_is_the_shells_script(shop: Workshop) -> None:
    shop.build("FROM scratch\nRUN <<EOF\na\nb\nEOF\nRUN cat <<X >/f\n1\nX\n")
    assert [step.argv[2] for step in shop.runner.steps] == ["a\nb\n", "cat <<X >/f\n1\nX"]


def cached(shop: Workshop) -> list[bool]:
    steps = [event for event in shop.events if isinstance(event, StepCached | StepDone)]
    return [isinstance(event, StepCached) for event in steps]


DOCKERFILE = "FROM scratch\nRUN a\nCOPY f /f\nRUN b\nENV X=1\n"


def test_a_second_build_gives_the_same_image_from_the_cache(shop: Workshop) -> None:
    shop.write({"f": "1"})
    first = shop.build(DOCKERFILE)
    assert cached(shop) == [False, False, False]
    second = shop.build(DOCKERFILE)
    assert cached(shop) == [True, True, True]
    assert second.id == first.id
    assert shop.runner.steps == []


def test_only_content_matters_to_the_cache_not_time(shop: Workshop) -> None:
    shop.write({"f": "1", "unrelated": "1"})
    shop.build(DOCKERFILE)
    os.utime(shop.context / "f", (1, 1))
    shop.write({"unrelated": "2"})
    shop.build(DOCKERFILE)
    assert cached(shop) == [True, True, True]
    shop.write({"f": "2"})
    shop.build(DOCKERFILE)
    assert cached(shop) == [True, False, False]
    os.chmod(shop.context / "f", 0o600)
    shop.build(DOCKERFILE)
    assert cached(shop) == [True, False, False]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("FROM scratch\nENV A=1\nRUN x", "FROM scratch\nENV A=2\nRUN x"),
        ("FROM scratch\nARG A=1\nRUN x", "FROM scratch\nARG A=2\nRUN x"),
        ("FROM scratch\nUSER a\nRUN x", "FROM scratch\nUSER b\nRUN x"),
        ("FROM scratch\nRUN x", "FROM scratch\nRUN --network=none x"),
        ("FROM scratch\nRUN x", 'FROM scratch\nSHELL ["/s"]\nRUN x'),
    ],
)
def test_what_a_step_sees_is_part_of_its_key(shop: Workshop, first: str, second: str) -> None:
    shop.build(first)
    shop.build(second)
    assert cached(shop) == [False]


def test_a_label_above_does_not_spoil_the_cache(shop: Workshop) -> None:
    shop.build("FROM scratch\nLABEL a=1\nRUN x")
    shop.build("FROM scratch\nLABEL a=2\nRUN x")
    assert cached(shop) == [True]


def test_a_proxy_is_not_part_of_the_key(shop: Workshop) -> None:
    shop.build("FROM scratch\nRUN x", args={"http_proxy": "a"})
    shop.build("FROM scratch\nRUN x", args={"http_proxy": "b"})
    assert cached(shop) == [True]


def test_a_forged_history_plants_nothing(shop: Workshop) -> None:
    """CVE-2024-24557: an image cannot pretend to be the result of a step."""
    shop.build("FROM scratch\nRUN x", tags=("honest",))
    shop.base("forged", member("evil", b"1"))
    image = shop.build("FROM forged\nRUN x")
    assert cached(shop) == [False]
    assert set(shop.files(image)) == {"evil", "ran"}


def test_no_cache_runs_everything(shop: Workshop) -> None:
    shop.build("FROM scratch\nRUN x")
    shop.build("FROM scratch\nRUN x", no_cache=True)
    assert cached(shop) == [False]


def test_a_cached_layer_that_is_not_unpacked_comes_from_its_blob(shop: Workshop) -> None:
    image = shop.build("FROM scratch\nRUN x")
    with shop.store.lease() as lease:
        shop.store.layers.take_away(image.config.diff_ids[0], lease)
    assert shop.files(shop.build("FROM scratch\nRUN x")) == {"ran": "/bin/sh -c x"}
    assert cached(shop) == [True]


def test_a_cache_entry_without_its_blob_is_made_again(shop: Workshop) -> None:
    image = shop.build("FROM scratch\nRUN x")
    shop.store.blobs.remove(image.manifest.layers[0].digest)
    shop.build("FROM scratch\nRUN x")
    assert cached(shop) == [False]


def test_the_cache_survives_the_removal_of_the_image(shop: Workshop) -> None:
    image = shop.build("FROM scratch\nRUN x", tags=("app",))
    shop.store.remove("app")
    assert shop.build("FROM scratch\nRUN x").id == image.id
    assert cached(shop) == [True]


def test_only_stages_that_count_are_built(shop: Workshop) -> None:
    image = shop.build(
        "FROM scratch AS a\nRUN a\nFROM scratch AS b\nRUN b\nFROM scratch\nCOPY --from=a /ran /x\n"
    )
    assert len(shop.runner.steps) == 1
    assert shop.files(image) == {"x": "/bin/sh -c a"}
    shop.build("FROM scratch AS a\nRUN a2\nFROM scratch AS b\nRUN b2\n", target="a")
    assert [step.argv[2] for step in shop.runner.steps] == ["a2"]


def test_an_onbuild_trigger_runs_in_the_next_build_only(shop: Workshop) -> None:
    shop.write({"app": "1"})
    shop.build("FROM scratch\nONBUILD COPY app /app\nONBUILD ENV A=1\n", tags=("base",))
    image = shop.build("FROM base\nRUN x\n", tags=("child",))
    assert shop.files(image)["app"] == "1"
    assert image.config.env == ("A=1",)
    assert image.config.onbuild == ()


def test_with_an_epoch_two_builds_give_one_digest(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shop = Workshop(tmp_path / name)
        shop.write({"d/f": "1"})
        image = shop.build(
            "FROM scratch\nRUN x\nCOPY d /d\nCOPY <<E /e\n1\nE\nWORKDIR /new\n",
            environ={"SOURCE_DATE_EPOCH": "1000000000"},
        )
        assert image.created == "2001-09-09T01:46:40Z"
        digests.add(image.digest)
    assert len(digests) == 1


def failing(step: RunStep, output: Callable[[bytes], None]) -> int:
    output(b"one\ntwo\n")
    output(b"three, without an end")
    return 3


def test_a_failing_step_says_what_it_printed(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, failing)
    with pytest.raises(
        BuildError, match=r":2: the command returned exit code 3: /bin/sh -c x"
    ) as caught:
        shop.build("FROM scratch\nRUN x\n", tags=("app",))
    error = caught.value
    assert (error.exit_code, error.output_tail) == (3, "one\ntwo\nthree, without an end")
    assert [type(event) for event in shop.events] == [
        StepStarted,
        StepOutput,
        StepOutput,
        StepFailed,
    ]
    assert shop.store.list() == []
    assert os.listdir(shop.store.root / "ingest") == []


@pytest.mark.parametrize(
    ("dockerfile", "line", "message"),
    [
        ("FROM nothing:here", 1, "there is no image nothing:here"),
        ("FROM Bad:ref", 1, "invalid image reference"),
        ("FROM --platform=linux/s390x scratch\nRUN x", 1, "cannot build for linux/s390x"),
        ("FROM scratch\nCOPY nothing /", 2, "'nothing' is not in the build context"),
        ("FROM scratch\nCOPY f f2 /x", 2, "must be a directory and end with /"),
        ("FROM scratch\nCOPY f /x\nCOPY d /x", 3, "cannot copy a directory over the file"),
        ("FROM scratch\nCOPY d /x\nCOPY f /y/x/z\nCOPY f /y/x", None, ""),
        ("FROM scratch\nCOPY f /x\nCOPY f /x/y", 3, "no directory"),
        ("FROM scratch\nCOPY --chmod=9 f /", 2, "octal"),
        ("FROM scratch\nCOPY --chown=nobody f /", 2, "unable to find user nobody"),
        ("FROM scratch\nEXPOSE 99999", 2, "not a port"),
        ("FROM scratch\nSTOPSIGNAL SIGNONE", 2, "not a signal"),
        ("FROM scratch\nENV A=${B:?unset!}", 2, "B: unset!"),
        ("FROM scratch\nENV A=${B", 2, "missing"),
        ("FROM scratch\nUSER $NOBODY", 2, "the user is empty"),
        ("FROM scratch\nRUN --network=bridge x", 2, "default, none or host"),
        ("FROM scratch\nRUN --security=insecure x", 2, "needs the entitlement security.insecure"),
        ("FROM scratch\nRUN --security=less x", 2, "it is sandbox or insecure"),
        ("FROM scratch\nRUN --network=host x", 2, "needs the entitlement network.host"),
        ("FROM scratch\nCOPY --from=other:1 a b", 2, "there is no image other:1"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_line(
    shop: Workshop, dockerfile: str, line: int | None, message: str
) -> None:
    shop.write({"f": "1", "f2": "2", "d/x": "3"})
    if line is None:
        shop.build(dockerfile)
        return
    with pytest.raises(BuildError, match=message) as caught:
        shop.build(dockerfile)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("dockerfile", "line", "message", "hint"),
    [
        ("FROM scratch\nRUM x", 2, "unknown instruction RUM", "did you mean RUN?"),
        ("FROM scratch\nCOPY --chwon=1 f /", 2, "no flag --chwon", "did you mean --chown?"),
        ("FROM scratch\nCOPY mian.py /", 2, "is not in the build context", "mean main.py?"),
        ("FROM scratch\nCOPY d/parts.py /", 2, "is not in the build context", "mean d/part.py?"),
        ("FROM scratch\nCOPY hidden.log /", 2, "is not in", ".dockerignore leaves it out"),
        ("FROM scratch AS build\nFROM scratch\nCOPY --from=biuld / /", 3, "no image biuld",
         "did you mean the stage build?"),
        ("FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nCOPY --from=a / /", 2,
         "no image b", "the stage b stands below"),
        ("FROM b AS a\nFROM a AS b", 1, "no image b", "the stage b stands below"),
        ("ARG BASE\nFROM $BASE", 2, "is empty once", "--build-arg"),
        ("FROM scratch\nARG BASE=x\nFROM $BASE", 3, "is empty once", "before the first FROM"),
        ("# syntax=someone/else:1\nFROM scratch", 1, "'someone/else:1' is not known",
         "leave the line out"),
        ("FROM debian:nothing", 1, "no image debian:nothing", "bay image bootstrap debian:nothing"),
        ("FROM scratch\nRUN --mount=type=secret,id=k,required=true x", 2, "secret 'k' is required",
         None),
        ("FROM scratch\nRUN --mount=type=cahce,target=/x x", 2, "unknown type 'cahce'", None),
        ("FROM scratch\nADD ftp://host/f /", 2, "only http and https", None),
        ("FROM scratch\nHEALTHCHECK CDM x", 2, "unknown type 'CDM'", "HEALTHCHECK NONE"),
        ("FROM scratch\nCMD ['x']\nENTRYPOINT", None, "", None),
        ("FROM scratch\nONBUILD FROM x", 2, "cannot keep FROM", None),
        ("FROM scratch\nRUN <<EOF\nx", 2, "has no end", None),
        ("FROM scratch\nRUN --device=gpu x", 2, "RUN has no flag --device", "it takes --mount"),
        ("FROM scratch\nWORKDIR", 2, "exactly one argument", None),
        ("FROM scratch\nARG", 2, "ARG needs a name", None),
        ("FROM --platform=linux/ scratch", 1, "not a platform", "write it as linux/arm64"),
    ],
)  # fmt: skip
def test_a_bad_input_has_a_clear_error(
    shop: Workshop, dockerfile: str, line: int | None, message: str, hint: str | None
) -> None:
    shop.write(
        {"main.py": "", "d/part.py": "", "hidden.log": "", "f": "", ".dockerignore": "*.log"}
    )
    if line is None:
        shop.build(dockerfile)
        return
    with pytest.raises(BuildError, match=message) as caught:
        shop.build(dockerfile)
    assert (caught.value.line, caught.value.dockerfile) == (line, "dockerfile_inline")
    if hint is None:
        assert caught.value.hint is None
    else:
        assert hint in (caught.value.hint or "")


def test_a_missing_dockerfile_or_context_is_said(shop: Workshop, tmp_path: Path) -> None:
    def attempt(request: BuildRequest) -> str:
        with pytest.raises(BuildError) as caught:
            build(request, store=shop.store, steps=shop.runner, progress=lambda _: None)
        return str(caught.value)

    assert "there is no Dockerfile Dockerfile in" in attempt(BuildRequest(context=shop.context))
    assert "is not a directory" in attempt(BuildRequest(context=tmp_path / "nothing"))
    os.mkfifo(shop.context / "fifo")
    message = attempt(BuildRequest(context=shop.context, dockerfile="fifo"))
    assert "cannot read the Dockerfile fifo" in message


def test_an_argument_that_nobody_takes_is_warned_about(shop: Workshop) -> None:
    shop.build("FROM scratch\nARG A=0\n", args={"A": "1", "B": "2"})
    [warning] = [event for event in shop.events if isinstance(event, BuildWarning)]
    assert warning.message == "no ARG takes the build argument B"


def test_a_canceled_build_stops_between_steps(shop: Workshop) -> None:
    cancel = threading.Event()

    def stop(step: RunStep, output: Callable[[bytes], None]) -> int:
        cancel.set()
        return 0

    shop.runner = type(shop.runner)(stop)
    request = BuildRequest(context=shop.context, dockerfile_inline="FROM scratch\nRUN a\nRUN b\n")
    with pytest.raises(BuildError, match="canceled"):
        build(request, store=shop.store, steps=shop.runner, progress=lambda _: None, cancel=cancel)
    assert len(shop.runner.steps) == 1


def test_two_builds_at_once_make_a_step_once(shop: Workshop) -> None:
    running = threading.Barrier(2, timeout=0.5)
    count = []

    def slow(step: RunStep, output: Callable[[bytes], None]) -> int:
        count.append(step)
        try:
            running.wait()
        except threading.BrokenBarrierError:
            return 0  # as it should be: the other one waits
        return 1

    images = []

    def one() -> None:
        request = BuildRequest(context=shop.context, dockerfile_inline="FROM scratch\nRUN a\n")
        store = ImageStore(shop.store.root)
        runner = type(shop.runner)(slow)
        images.append(build(request, store=store, steps=runner, progress=lambda _: None).id)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1
    assert len(images) == 2 and len(set(images)) == 1


def test_a_linked_copy_fits_on_any_base(shop: Workshop) -> None:
    shop.write({"f": "1"})
    shop.base("one", member("a", b"1"), symlink("d", "elsewhere"), directory("elsewhere"))
    shop.base("two", member("b", b"1"))
    first = shop.build("FROM one\nCOPY --link f /d/f\n")
    assert cached(shop) == [False]
    assert shop.files(first)["d/f"] == "1", "a link of the image is not followed"
    second = shop.build("FROM two\nCOPY --link f /d/f\n")
    assert cached(shop) == [True]
    assert shop.files(second) == {"b": "1", "d/f": "1"}


def test_parents_come_along(shop: Workshop) -> None:
    shop.write({"x/a/f.txt": "1", "x/b/f.txt": "2", "x/b/c/g.txt": "3", "x/b/h.md": "4"})
    image = shop.build(
        "FROM scratch\nCOPY --parents x/a/f.txt /one/\nCOPY --parents x/./b/c /two/\n"
        "COPY --parents x/**/*.txt /three/\n"
    )
    assert shop.files(image) == {
        "one/x/a/f.txt": "1", "two/b/c/g.txt": "3",
        "three/x/a/f.txt": "1", "three/x/b/f.txt": "2", "three/x/b/c/g.txt": "3",
    }  # fmt: skip


def test_excluded_files_stay_out(shop: Workshop) -> None:
    shop.write({"d/a.txt": "1", "d/b.md": "2", "d/s/c.txt": "3", "x.txt": "4", "x.md": "5"})
    image = shop.build(
        "FROM scratch\nCOPY --exclude=*.txt --exclude=s d /d\nCOPY --exclude=*.md x* /x/\n"
    )
    assert shop.files(image) == {"d/b.md": "2", "x/x.txt": "4"}


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_add_unpacks_a_local_archive(shop: Workshop, compression: str) -> None:
    (shop.context / "src").mkdir()
    (shop.context / "src/f").write_text("1")
    with tarfile.open(shop.context / "a", f"w:{compression}") as tar:  # type: ignore[call-overload]
        tar.add(shop.context / "src", arcname="top")
    image = shop.build("FROM scratch\nADD a /d/\n")
    assert shop.files(image) == {"d/top/f": "1"}


def test_add_leaves_other_files_as_they_are(shop: Workshop) -> None:
    shop.write({"f.tar": "not an archive, whatever its name says" * 20})
    assert set(shop.files(shop.build("FROM scratch\nADD f.tar /d/\n"))) == {"d/f.tar"}


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_damaged_archive_is_an_error_of_its_line(shop: Workshop, compression: str) -> None:
    (shop.context / "src").mkdir()
    (shop.context / "src/f").write_bytes(os.urandom(3_000_000))
    with tarfile.open(shop.context / "a", f"w:{compression}") as tar:  # type: ignore[call-overload]
        tar.add(shop.context / "src", arcname="top")
    content = (shop.context / "a").read_bytes()
    (shop.context / "a").write_bytes(content[: len(content) // 2])
    with pytest.raises(BuildError, match=r":2: .*stream is (damaged|cut)"):
        shop.build("FROM scratch\nADD a /d/\n")


def test_a_hostile_archive_stays_inside(shop: Workshop, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (shop.context / "evil.tar").write_bytes(
        archive(symlink("l", str(outside)), member("l/x", b"1")).getvalue()
    )
    image = shop.build("FROM scratch\nADD evil.tar /\n")
    assert os.listdir(outside) == []
    (shop.context / "evil.tar").write_bytes(archive(member("../x", b"1")).getvalue())
    with pytest.raises(BuildError, match=r"'../x' is refused"):
        shop.build("FROM scratch\nADD evil.tar /\n")
    assert image.id


def test_mounts_are_prepared_and_leave_nothing(shop: Workshop) -> None:
    seen: list[Mapping[str, object]] = []

    def look(step: RunStep, output: Callable[[bytes], None]) -> int:
        seen.append(
            {mount.target: sorted(os.listdir(mount.source)) for mount in step.mounts}
            | {file.target: (file.content, oct(file.mode)) for file in step.files}
            | {mount.target: mount.size for mount in step.tmpfs}
            | {"env": [item for item in step.env if item.startswith("TOKEN")]}
        )
        for mount in step.mounts:
            if not mount.read_only:
                Path(mount.source, "written").touch()
        return 0

    shop.runner = type(shop.runner)(look)
    shop.write({"d/f": "1", "d/ignored": "2", ".dockerignore": "**/ignored"})
    dockerfile = (
        "FROM scratch AS s\nCOPY d/f /s/f\nFROM scratch\nWORKDIR /w\n"
        "RUN --mount=target=/ctx,source=d --mount=type=bind,from=s,source=/s,target=rel"
        " --mount=type=cache,id=../../evil,target=/cache --mount=type=tmpfs,target=/t,size=1m"
        " --mount=type=secret,id=key --mount=type=secret,id=key,env=TOKEN"
        " --mount=type=secret,id=absent x\n"
    )
    image = shop.build(dockerfile, secrets={"key": BuildSecret(content=b"s3cret")})
    assert seen == [
        {"/ctx": ["f"], "/w/rel": ["f"], "/cache": [], "/t": 1 << 20,
         "/run/secrets/key": ("s3cret", "0o400"), "env": ["TOKEN=s3cret"]},
    ]  # fmt: skip
    assert "s3cret" not in str(image.config)
    shop.write({"d/f": "2"})
    shop.build(dockerfile, secrets={"key": BuildSecret(content=b"other")})
    assert seen[1]["/cache"] == ["written"], "a cache keeps what a step wrote"
    assert os.listdir(shop.store.root / "ingest") == []
    shop.build(dockerfile)
    assert len(seen) == 2, "neither a secret nor a cache is part of the key"


def test_a_secret_s_owner_and_mode_hold_where_the_mount_says_nothing(shop: Workshop) -> None:
    def build(flags: str, secret: BuildSecret) -> list[tuple[int, int, str]]:
        shop.build(
            f"FROM scratch\nRUN --mount=type=secret,id=key{flags} x\n", secrets={"key": secret}
        )
        return [
            (file.uid, file.gid, oct(file.mode))
            for step in shop.runner.steps
            for file in step.files
        ]

    plain = BuildSecret(content=b"x")
    owned = BuildSecret(content=b"x", uid=7, gid=8, mode=0o440)
    assert build("", owned) == [(7, 8, "0o440")]
    assert build("", plain) == [], "the result is the same whoever may read the secret"
    assert build(",uid=9,mode=0400", owned) == [(9, 8, "0o400")]
    assert build(",uid=0", owned) == [(0, 8, "0o440")]
    assert build(",mode=0444", plain) == [(0, 0, "0o444")]


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("type=what,target=/x", "unknown type"),
        ("type=cache", "needs a target"),
        ("type=cache,target=/x,size=1", "no option 'size'"),
        ("type=bind,target=/x,bind-propagation=shared", "no option 'bind-propagation'"),
        ("type=cache,target=/x,sharing=no", "sharing is"),
        ("type=tmpfs,target=/", "nothing can be mounted on /"),
        ("type=secret,id=a,required", "is required"),
        ("type=bind,target=/x,source=nothing", "is not in the build context"),
        ("target", "needs a value"),
    ],
)
def test_a_wrong_mount_is_refused(shop: Workshop, mount: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        shop.build(f"FROM scratch\nRUN --mount={mount} x\n")


def test_named_contexts_are_directories_or_images(shop: Workshop, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "d").mkdir(parents=True)
    (other / "d/f").write_text("1")
    (other / "no").write_text("1")
    (other / ".dockerignore").write_text("no")
    shop.base("real:1", member("from-image", b"2"))
    image = shop.build(
        "FROM base\nCOPY --from=assets . /a/\n",
        contexts={"base": "docker-image://real:1", "assets": str(other)},
    )
    assert shop.files(image) == {"from-image": "2", "a/d/f": "1", "a/.dockerignore": "no"}
    for value in (str(other), "https://example", "/nonexistent"):
        with pytest.raises(BuildError, match="named context 'base'"):
            shop.build("FROM base\n", contexts={"base": value})


def test_pull_needs_somebody_who_can(shop: Workshop) -> None:
    with pytest.raises(BuildError, match="no registry to pull from"):
        shop.build("FROM scratch\nRUN x", pull=True)


def test_independent_stages_run_at_once(shop: Workshop) -> None:
    together = threading.Barrier(2, timeout=10)

    def meet(step: RunStep, output: Callable[[bytes], None]) -> int:
        (step.upper / step.argv[2]).touch()
        if step.argv[2] in "ab":
            together.wait()
        return 0

    shop.runner = type(shop.runner)(meet)
    image = shop.build(
        "FROM scratch AS one\nRUN a\nFROM scratch AS two\nRUN b\n"
        "FROM one\nCOPY --from=two / /\nRUN c\n"
    )
    assert set(shop.files(image)) == {"a", "b", "c"}


def test_the_first_stage_that_fails_ends_the_others(tmp_path: Path) -> None:
    running = threading.Event()
    ended = threading.Event()

    def script(step: RunStep, output: Callable[[bytes], None]) -> int:
        if step.argv[-1] == "long":
            killed = threading.Event()
            with step.stop.calling(killed.set):
                running.set()
                if killed.wait(30):
                    ended.set()
            return 137
        assert running.wait(30)
        return 3

    shop = Workshop(tmp_path, script)
    with pytest.raises(BuildError, match="exit code 3"):
        shop.build(
            "FROM scratch AS a\nRUN long\nFROM scratch AS b\nRUN short\n"
            "FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n"
        )
    assert ended.is_set()


def test_an_image_for_another_platform_says_so(shop: Workshop) -> None:
    shop.base("native:1", member("f"))
    image = shop.build(
        "FROM --platform=$BUILDPLATFORM native:1 AS make\nARG TARGETARCH\nRUN x $TARGETARCH\n"
        "FROM scratch\nCOPY --from=make /ran /ran\n",
        platform="linux/s390x",
    )
    assert image.config.architecture == "s390x"
    assert shop.runner.steps[0].env[-1] == "TARGETARCH=s390x"
    with pytest.raises(BuildError, match="not for linux/s390x") as caught:
        shop.build("FROM native:1\n", platform="s390x")
    assert caught.value.hint == "fetch it: bay pull --platform linux/s390x native:1"


def test_the_error_of_the_stage_that_failed_is_told(shop: Workshop) -> None:
    def fail(step: RunStep, output: Callable[[bytes], None]) -> int:
        return 5 if step.argv[2] == "bad" else 0

    shop.runner = type(shop.runner)(fail)
    with pytest.raises(BuildError, match="exit code 5: /bin/sh -c bad") as caught:
        shop.build(
            "FROM scratch AS one\nRUN a\nFROM scratch AS two\nRUN bad\n"
            "FROM one\nCOPY --from=two / /\n"
        )
    assert caught.value.line == 4


def test_a_variable_that_is_not_set_is_warned_about(shop: Workshop) -> None:
    shop.build("FROM scratch\nARG A=1\nENV B=$A$UNSET C=${ALSO:-x}\n")
    warnings = [event for event in shop.events if isinstance(event, BuildWarning)]
    assert [(event.rule, event.message) for event in warnings] == [
        ("UndefinedVar", "the variable UNSET is not set here")
    ]


def test_a_check_builds_nothing(shop: Workshop) -> None:
    request = BuildRequest(context=shop.context, dockerfile_inline="FROM x as y\nRUN z\n")
    assert [warning.rule for warning in check(request)] == ["FromAsCasing"]
    with pytest.raises(BuildError, match="no stage 'z'"):
        check(dataclasses.replace(request, target="z"))


def test_pruning_the_cache_starts_with_what_was_used_longest_ago(shop: Workshop) -> None:
    cache = StepCache(shop.store)
    shop.build("FROM scratch\nRUN old", tags=("old",))
    [old] = cache.usage()
    os.utime(old.path, (1000, 1000))
    shop.build("FROM scratch\nRUN --mount=type=cache,target=/c new")
    assert cache.prune(unused_since=500) == 0
    assert cache.prune(unused_since=2000) == len("/bin/sh -c old")
    assert len(cache.usage()) == 2
    shop.build("FROM scratch\nRUN --mount=type=cache,target=/c new")
    assert cached(shop) == [True]
    cache.prune()
    assert cache.usage() == ()
    shop.store.prune(everything=True)
    assert list(shop.store.blobs.digests()) == []


def test_a_cache_mount_in_use_is_not_pruned(shop: Workshop) -> None:
    cache = StepCache(shop.store)

    def prune(step: RunStep, output: Callable[[bytes], None]) -> int:
        Path(step.mounts[0].source, "f").write_text("12345")
        cache.prune()
        return 0

    shop.runner = type(shop.runner)(prune)
    shop.build("FROM scratch\nRUN --mount=type=cache,target=/c x")
    assert [entry.size for entry in cache.usage() if entry.path.suffix != ".json"] == [
        len("12345") + len("/c")
    ]


def test_a_cache_travels_in_a_directory(shop: Workshop, tmp_path: Path) -> None:
    shop.write({"f": "1"})
    directory = tmp_path / "cache"
    first = shop.build(DOCKERFILE, cache_to=(f"type=local,dest={directory}",))
    (tmp_path / "elsewhere").mkdir()
    other = Workshop(tmp_path / "elsewhere")
    other.write({"f": "1"})
    again = other.build(DOCKERFILE, cache_from=(f"type=local,src={directory}",))
    assert cached(other) == [True, True, True]
    assert again.id == first.id
    for path in (directory / "blobs/sha256").iterdir():
        path.write_bytes(b"damaged")
    (tmp_path / "third").mkdir()
    third = Workshop(tmp_path / "third")
    third.write({"f": "1"})
    third.build(DOCKERFILE, cache_from=(f"type=local,src={directory}",))
    assert cached(third) == [False, False, False]
    assert third.store.check() == ()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("type=s3,ref=x", "no type 's3'", "type=registry,ref=NAME"),
        ("type=local", "src= is missing", "type=local,src=DIRECTORY"),
        ("type=registry,ref=Bad:x", "invalid image reference", None),
        ("type=registry,ref=a/b,mode=some", "mode is min or max", None),
        ("type=local,src=/x,depth=1", "no option 'depth'", None),
        ("type=inline", "is read from its image", "type=registry"),
    ],
)
def test_a_place_for_a_cache_that_is_none_is_refused(
    shop: Workshop, text: str, message: str, hint: str | None
) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        shop.build("FROM scratch", cache_from=(text,))
    assert (hint or "") in (caught.value.hint or "")


def test_single_stages_are_built_anew(shop: Workshop) -> None:
    dockerfile = "FROM scratch AS one\nRUN a\nFROM one\nRUN b\n"
    shop.build(dockerfile)
    shop.build(dockerfile, no_cache_filter=("one",))
    assert [step.argv[2] for step in shop.runner.steps] == ["a"]


def test_a_dockerfile_that_is_a_link_stays_in_the_context(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("FROM scratch\n")
    shop.write({"real": "FROM scratch\nENV A=1\n"})
    os.symlink(str(tmp_path / "outside"), shop.context / "Dockerfile")
    os.symlink("real", shop.context / "inside")

    def attempt(name: str) -> None:
        request = BuildRequest(context=shop.context, dockerfile=name)
        build(request, store=shop.store, steps=shop.runner, progress=lambda _: None)

    with pytest.raises(BuildError, match="there is no Dockerfile"):
        attempt("Dockerfile")
    with pytest.raises(BuildError, match="there is no Dockerfile"):
        attempt("../outside")
    attempt("inside")


def test_a_build_that_waits_for_another_can_be_canceled(shop: Workshop) -> None:
    running, finish, cancel = threading.Event(), threading.Event(), threading.Event()
    errors: list[BuildError] = []

    def slow(step: RunStep, output: Callable[[bytes], None]) -> int:
        running.set()
        finish.wait(30)
        return 0

    def one(runner: ScriptedRunner, cancel: threading.Event | None) -> None:
        request = BuildRequest(context=shop.context, dockerfile_inline="FROM scratch\nRUN a\n")
        try:
            build(request, store=shop.store, steps=runner, progress=lambda _: None, cancel=cancel)
        except BuildError as exc:
            errors.append(exc)

    first = threading.Thread(target=one, args=(ScriptedRunner(slow), None))
    second = threading.Thread(target=one, args=(ScriptedRunner(None), cancel))
    first.start()
    assert running.wait(30)
    second.start()
    cancel.set()
    second.join(30)
    assert not second.is_alive()
    finish.set()
    first.join(30)
    assert [str(error) for error in errors] == ["the build was canceled"]
