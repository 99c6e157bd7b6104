"""`bay config` and `bay graph`: what a person asks of spec files; no daemon is needed."""

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from orchestrator.cli import entry

Run = Callable[..., tuple[int, str, str]]

_SPEC = """\
name: shop
services:
  web:
    image: web:${TAG:-1}
    depends_on: {store: {condition: service_healthy}}
  store:
    image: store
    healthcheck: {test: [CMD, check]}
"""


@pytest.fixture
def bay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in a directory with a stack of two services; gives status, output, errors."""
    (tmp_path / "compose.yaml").write_text(_SPEC)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bay", *words])
        status = entry.main()
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_a_variable_is_explained_with_what_it_hides(
    bay: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("# the tag\nTAG=2\n")
    monkeypatch.setenv("TAG", "3")

    assert bay("config", "--explain", "TAG")[1].splitlines() == [
        "TAG=3",
        "  from the environment",
        f"  hides '2' from {tmp_path}/.env:2",
        "  used at compose.yaml:4:12 in services.web.image, default '1'",
    ]


def test_an_unset_variable_is_explained_by_its_uses(bay: Run) -> None:
    status, shown, _ = bay("config", "--explain", "TAG", "--format", "json")

    assert status == 0
    explained = json.loads(shown)
    assert explained["setting"] is None
    assert [use["default"] for use in explained["uses"]] == ["1"]


def test_the_graph_is_a_tree_or_a_drawing(bay: Run) -> None:
    assert bay("graph")[1] == "web\n└─ store (healthy)\n"
    assert bay("graph", "--format", "dot")[1].startswith("digraph")
    assert bay("graph", "--format", "svg")[1].startswith("<svg")


def test_the_schema_is_one_and_takes_the_stack(bay: Run) -> None:
    schema = json.loads(bay("config", "schema")[1])

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(_SPEC), schema)


def test_the_config_of_a_service_has_what_it_depends_on_and_no_more(
    bay: Run, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").write_text(
        _SPEC + "  other: {image: o, networks: [far]}\nnetworks: {far: }\n"
    )

    shown = yaml.safe_load(bay("config", "web")[1])

    assert (list(shown["services"]), list(shown["networks"])) == (["store", "web"], ["default"])


def test_a_digest_of_a_service_that_is_not_there_is_refused(bay: Run) -> None:
    status, shown, errors = bay("config", "--hash", "web,wbe")
    assert (status, shown) == (1, "")
    assert errors == "bay: no such service: wbe\n"


def test_resources_without_settings_are_shown_unnormalised(bay: Run, tmp_path: Path) -> None:
    uses = "services: {a: {image: i, networks: [n], volumes: ['data:/d']}}\n"
    (tmp_path / "compose.yaml").write_text(f"{uses}networks: {{n: }}\nvolumes: {{data: }}\n")

    status, shown, _ = bay("config", "--no-normalize")

    assert status == 0
    assert yaml.safe_load(shown)["networks"] == {"n": {}}
    assert yaml.safe_load(shown)["volumes"] == {"data": {}}


def test_a_template_is_rendered_with_its_values(bay: Run, tmp_path: Path) -> None:
    template = "services:\n{% for n in names %}\n  {{ n }}: {image: i}\n{% endfor %}\n"
    (tmp_path / "stack.yaml.j2").write_text(template)
    (tmp_path / "values.yaml").write_text("names: [a, b]\n")
    words = ("-f", "stack.yaml.j2", "--values", "values.yaml", "config")

    assert yaml.safe_load(bay(*words, "--rendered")[1]) == {
        "services": {"a": {"image": "i"}, "b": {"image": "i"}}
    }
    assert bay(*words, "--services")[1].split() == ["a", "b"]


def test_a_template_without_its_value_names_the_line(bay: Run, tmp_path: Path) -> None:
    (tmp_path / "stack.yaml.j2").write_text("services:\n  a: {image: '{{ image }}'}\n")

    status, _, errors = bay("-f", "stack.yaml.j2", "config")

    assert status == 1
    assert errors.startswith("bay: stack.yaml.j2:2:1: template: 'image' is undefined")


def test_what_has_no_effect_is_named_and_strictly_refused(bay: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  web:\n    image: i\n    isolation: process\n"
    )

    status, _, warned = bay("config", "-q")
    assert (status, warned.count("services.web.isolation")) == (0, 1)
    status, _, refused = bay("--strict", "config", "-q")
    assert status == 1
    assert "compose.yaml:4:5: services.web.isolation" in refused


def test_images_are_pinned_to_what_their_tags_stand_for(
    bay: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = "sha256:" + "a" * 64

    async def answer(reference: str) -> str:
        return digest

    monkeypatch.setattr("runtime.registry.pull.resolve_digest", answer)

    pinned = yaml.safe_load(bay("config", "--resolve-image-digests")[1])["services"]
    assert pinned["web"]["image"] == f"docker.io/library/web:1@{digest}"
    assert pinned["store"]["image"] == f"docker.io/library/store:latest@{digest}"
    locked = yaml.safe_load(bay("config", "--lock-image-digests")[1])["services"]
    assert set(locked["web"]) == {"image"}


def test_an_output_goes_to_a_file(bay: Run, tmp_path: Path) -> None:
    assert bay("config", "--hash", "*", "-o", "hashes")[1] == ""
    assert len((tmp_path / "hashes").read_text().splitlines()) == 2
