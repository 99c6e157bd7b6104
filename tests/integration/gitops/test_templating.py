"""Templates of a repository: rendered in a process that is bounded and has nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from orchestrator.gitops import template_process, templating
from orchestrator.gitops.errors import HostFailed
from orchestrator.gitops.templating import Templates
from specs import templates
from specs.errors import SpecError
from specs.source import Source


def rendered(text: str, **values: Any) -> str:
    return Templates().render(Source("compose.yaml.j2", text), values, False)


def refusal(text: str, **values: Any) -> str:
    with pytest.raises(SpecError) as caught:
        rendered(text, **values)
    assert caught.value.issues[0].file == "compose.yaml.j2"
    return str(caught.value)


def test_what_comes_back_is_what_this_process_would_have_made() -> None:
    text = "{% for name in names %}\n{{ name }}: {{ values.n | tojson }} ü\n{% endfor %}\n"
    values = {"names": ["a", "b\u2028"], "n": {"x": [1, 2.5, None, True]}}
    template = Source("compose.yaml.j2", text)
    for marked in (False, True):
        assert Templates().render(template, values, marked) == templates.render(
            template, values, marked
        )


def test_a_template_has_all_that_jinja2_knows() -> None:
    text = (
        "{{ 'a\\n'|urlize|wordwrap(3) }} {{ [1]|pprint }} {{ lipsum(n=1)|length > 0 }}"
        "{{ '&#228;<b>'|striptags }} {{ 'é'.encode('idna') }} {{ {'a': 1}|xmlattr }}"
        "{{ [{'a': 1}]|groupby('a')|list|length }} {{ '%s'|format(1)|urlencode }}"
    )
    template = Source("compose.yaml.j2", text)
    assert rendered(text) == templates.render(template, {}, False)


@pytest.mark.parametrize("text", ["a\n{{ nope }}\n", "{% if %}", "\n\n{{ 1 / 0 }}", "{{ ''.x() }}"])
def test_faults_are_those_of_a_template_that_is_rendered_here(text: str) -> None:
    with pytest.raises(SpecError) as here:
        templates.render(Source("compose.yaml.j2", text), {}, False)
    with pytest.raises(SpecError) as apart:
        rendered(text)
    assert apart.value.issues == here.value.issues


def test_a_template_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def soon(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        code = "from orchestrator.gitops import template_process as t; t.SECONDS = 1; t.main()"
        return real([sys.executable, "-c", code], **{**options, "cwd": os.getcwd()})

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", soon)
    loops = "{% for i in range(99999) %}" * 4 + "{% endfor %}" * 4
    assert "s of processor time" in refusal(loops)


def test_many_templates_have_one_bound() -> None:
    apart, template = Templates(seconds=0.001), Source("compose.yaml.j2", "x")
    assert apart.render(template, {}, False) == "x"
    with pytest.raises(SpecError, match="templates take more than"):
        apart.render(template, {}, False)


def test_a_template_cannot_take_all_memory() -> None:
    text = "{% set ns = namespace(l=[]) %}{% for i in range(500) %}"
    text += "{% set ns.l = ns.l + [('x' * 9000000) ~ i] %}{% endfor %}"
    assert "too much memory" in refusal(text)


def test_a_template_cannot_write_without_an_end() -> None:
    text = "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}"
    assert "more than 16 MiB" in refusal(text)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_others_end_is_no_fault_of_the_template(
    monkeypatch: pytest.MonkeyPatch, kind: signal.Signals
) -> None:
    monkeypatch.setattr(template_process, "__name__", "no_such_module")
    with pytest.raises(HostFailed, match="No module named no_such_module") as caught:
        rendered("x")
    assert caught.value.transient
    raised = templating._explain(Source("a", ""), -kind, b"")
    assert isinstance(raised, HostFailed)


@pytest.mark.root
def test_the_process_has_no_network_no_rights_and_nothing_of_ours() -> None:
    code = """
import os, json, socket
from orchestrator.engine import seclusion
seclusion.limit(memory=2**29, seconds=5, output=2**20)
seclusion.seclude()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "interfaces": [name for _, name in socket.if_nameindex()],
    "ids": os.getresuid() + os.getresgid(),
    "groups": os.getgroups(),
    "rights": [status[n].strip() for n in ("CapEff", "CapPrm", "CapInh", "NoNewPrivs")],
    "directory": os.getcwd(),
}))
try:
    os.open("/etc/shadow", os.O_RDONLY)
except PermissionError:
    print("kept out")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    found, kept_out = done.stdout.splitlines()
    assert found == (
        '{"interfaces": ["lo"], "ids": [65534, 65534, 65534, 65534, 65534, 65534], "groups": [], '
        '"rights": ["0000000000000000", "0000000000000000", "0000000000000000", "1"], '
        '"directory": "/"}'
    )
    assert kept_out == "kept out"


def test_the_process_inherits_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    seen: list[Any] = []
    real = subprocess.Popen

    def spied(words: list[str], **options: Any) -> subprocess.Popen[bytes]:
        seen.append(options)
        code = (
            "import os; print('{\"text\": \"%s\"}' % sorted(map(int, os.listdir('/proc/self/fd'))))"
        )
        return real([sys.executable, "-I", "-c", code], **options)

    try:
        monkeypatch.setattr(subprocess, "Popen", spied)
        # Three streams, and the listing itself.
        assert rendered("x") == "[0, 1, 2, 3]"
        assert seen[0]["env"] == {"LC_ALL": "C.UTF-8"}
    finally:
        os.close(read)
        os.close(write)
