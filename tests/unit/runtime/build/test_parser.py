"""The Dockerfile language, where BuildKit's recorded cases say nothing."""

from __future__ import annotations

import pytest

from runtime.build.instructions import Copy, Healthcheck, Onbuild, Run, instruction
from runtime.build.parser import parse
from runtime.errors import BuildError


def test_a_heredoc_is_read_to_its_name() -> None:
    [_, node] = parse("FROM x\nRUN <<EOF\na\n  b # kept\n\nEOF\n").nodes
    [document] = node.heredocs
    assert (document.content, document.expand, node.line, node.end_line) == (
        "a\n  b # kept\n\n", True, 2, 6,
    )  # fmt: skip


def test_several_heredocs_stand_after_each_other() -> None:
    text = "FROM x\nCOPY <<a.txt <<-'b.txt' /d/\none $x\na.txt\n\ttwo $x\n\tb.txt\nRUN x\n"
    [_, copy, run] = parse(text).nodes
    assert [(d.name, d.content, d.expand, d.chomp) for d in copy.heredocs] == [
        ("a.txt", "one $x\n", True, False),
        ("b.txt", "two $x\n", False, True),
    ]
    assert run.name == "run"


def test_a_shift_is_no_heredoc() -> None:
    [_, node, _] = parse("FROM x\nRUN echo $((1<<2)) <<<word '<<EOF'\nRUN y\n").nodes
    assert node.heredocs == ()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "no instructions"),
        ("FROM x\nRUN <<EOF\nabc\n", 2, "has no end"),
        ("# escape=x\nFROM x", 1, "escape character"),
        ("# escape=`\n# escape=`\nFROM x", 2, "stands twice"),
        ("FROM x\n\nENV A", 3, "needs a value"),
        ("FROM x\nENV A=1 B", 2, "cannot find ="),
        ("FROM x\nCMD [1]", 2, "strings only"),
    ],
)
def test_a_syntax_error_names_its_line(text: str, line: int | None, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        parse(text, name="D")
    assert caught.value.line == line
    assert caught.value.dockerfile == "D"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("RUM x", "unknown instruction RUM", "did you mean RUN?"),
        ("RUN", "RUN needs a command", None),
        ("COPY x", "at least a source and a destination", None),
        ("COPY --form=a x y", "COPY has no flag --form", "did you mean --from?"),
        ("COPY --chown=a --chown=b x y", "stands twice", None),
        ("COPY --from x y", "needs a value", None),
        ("COPY --link=maybe x y", "true or false", None),
        ("SHELL /bin/sh", "exec form", None),
        ("HEALTHCHECK", "needs a type", None),
        ("HEALTHCHECK CMD", "needs a command", None),
        ("HEALTHCHECK --interval=5 CMD x", "not a duration", None),
        ("HEALTHCHECK --interval=1us CMD x", "less than 1ms", None),
        ("HEALTHCHECK --retries=-1 CMD x", "not a number", None),
        ("HEALTHCHECK NONE x", "no arguments", None),
        ("ONBUILD", "needs an instruction", None),
        ("ONBUILD FROM x", "cannot keep FROM", None),
        ("ONBUILD ONBUILD RUN x", "cannot keep ONBUILD", None),
        ("ONBUILD RUM x", "unknown instruction RUM", None),
        ("USER", "exactly one argument", None),
        ("FROM a b", "an image AS a name", None),
        ("FROM a AS 1x", "not a stage name", None),
        ("EXPOSE", "needs a port", None),
        ("ARG =1", "a value without a name", None),
    ],
)
def test_a_wrong_instruction_is_refused(text: str, message: str, hint: str | None) -> None:
    [node] = parse(text).nodes
    with pytest.raises(BuildError, match=message) as caught:
        instruction(node, "Dockerfile")
    assert caught.value.line == 1
    if hint is not None:
        assert caught.value.hint == hint


def test_flags_and_forms_are_typed() -> None:
    text = (
        "COPY --from=base --chown=1:2 --chmod=755 a b /c/\n"
        'RUN --network=none ["a", "b"]\n'
        "HEALTHCHECK --interval=1m30s --retries=4 CMD curl -f x\n"
        "ONBUILD COPY . /app\n"
    )
    copy, run, health, onbuild = (instruction(node, "D") for node in parse(text).nodes)
    assert isinstance(copy, Copy) and copy.from_ == "base" and copy.sources == ("a", "b")
    assert (copy.chown, copy.chmod, copy.destination) == ("1:2", "755", "/c/")
    assert isinstance(run, Run) and run.argv == ("a", "b") and run.network == "none"
    assert isinstance(health, Healthcheck) and health.interval == 90 * 10**9
    assert (health.retries, health.command) == (4, "curl -f x")
    assert isinstance(onbuild, Onbuild) and onbuild.trigger == "COPY . /app"


def test_an_empty_line_in_a_continuation_is_warned_about() -> None:
    [warning] = parse("FROM x\nRUN a \\\n\n b\n").warnings
    assert (warning.rule, warning.line) == ("NoEmptyContinuation", 2)


@pytest.mark.parametrize(
    "syntax",
    [
        "docker/dockerfile",
        "docker/dockerfile:1",
        "docker.io/docker/dockerfile:1.7-labs",
        "docker/dockerfile-upstream:master",
        f"docker/dockerfile:1@sha256:{'a' * 64}",
    ],
)
def test_the_syntax_of_dockers_own_front_ends_is_known(syntax: str) -> None:
    assert parse(f"# syntax = {syntax}\nFROM x\n").directives["syntax"] == syntax
