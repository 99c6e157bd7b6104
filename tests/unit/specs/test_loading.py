"""From files to a project: what is found, merged, completed and selected."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from specs.errors import SpecError
from specs.loader import LoadOptions, load_model, load_project
from tests.unit.specs.conftest import Load

WEB = "services:\n  web: {image: x}\n"


def test_a_service_is_completed_with_what_goes_without_saying(load: Load) -> None:
    project = load(
        """
services:
  web:
    build: .
    ports: ["8080:80"]
    volumes: [data:/d, ./src:/src:ro]
    command: python -m app
    depends_on: [db]
    environment: [A=1, B, C]
    secrets: [key]
    healthcheck: {test: curl x, interval: 1m30s}
    stop_grace_period: 2s
    mem_limit: 64m
  db: {image: pg}
volumes: {data: }
secrets: {key: {file: ./key}}
""",
        environ={"B": "b"},
    ).project
    web = project.services["web"]
    assert project.name == "pro"
    assert web.build is not None
    assert web.build.context == project.working_dir
    assert web.build.dockerfile == "Dockerfile"
    assert web.ports[0].model_dump(exclude={"extensions"}) == {
        "name": "",
        "mode": "ingress",
        "host_ip": None,
        "target": 80,
        "published": "8080",
        "protocol": "tcp",
        "app_protocol": "",
    }
    assert [(m.type, m.source, m.target, m.read_only) for m in web.volumes] == [
        ("volume", "data", "/d", False),
        ("bind", f"{project.working_dir}/src", "/src", True),
    ]
    assert web.command == ("python", "-m", "app")
    assert web.entrypoint is None
    assert web.depends_on["db"].condition == "service_started"
    assert web.environment == {"A": "1", "B": "b"}
    assert web.unset_environment == ("C",)
    assert web.secrets[0].target == "/run/secrets/key"
    assert web.healthcheck is not None
    assert web.healthcheck.test == ("CMD-SHELL", "curl x")
    assert web.healthcheck.interval == 90 * 10**9
    assert web.stop_grace_period == 2 * 10**9
    assert web.mem_limit == 64 * 2**20
    assert web.networks.keys() == {"default"}
    assert project.networks["default"].name == "pro_default"
    assert project.volumes["data"].name == "pro_data"


def test_links_shared_namespaces_and_volumes_from_are_dependencies(load: Load) -> None:
    services = load(
        "services:\n  a: {image: x, links: [b], network_mode: 'service:c', volumes_from: [d:ro]}\n"
        "  b: {image: x}\n  c: {image: x}\n  d: {image: x}\n"
    ).project.services
    assert {k: v.restart for k, v in services["a"].depends_on.items()} == {
        "b": True,
        "c": True,
        "d": False,
    }


def test_the_environment_wins_over_env_files_for_interpolation(load: Load) -> None:
    files = {"compose.yaml": "services:\n  web: {image: 'x:${T}-${U}'}\n", ".env": "T=1\nU=2\n"}
    assert load(files, environ={"T": "9"}).project.services["web"].image == "x:9-2"


def test_a_setting_of_a_named_env_file_that_the_environment_hides_is_told(load: Load) -> None:
    files = {
        "compose.yaml": "services:\n  web: {image: 'x:${TAG}'}\n",
        "old.env": "# the release before\nTAG=1\nSAME=s\n",
        ".env": "TAG=0\n",
    }
    environ = {"TAG": "2", "SAME": "s"}
    loaded = load(files, environ=environ, env_files=("old.env",))
    (issue,) = loaded.warnings
    assert loaded.project.services["web"].image == "x:2"
    assert issue.location == "old.env:2:1"
    assert "TAG is set otherwise in the environment" in issue.message
    assert load(files, environ=environ).warnings == ()


def test_env_files_of_a_service_give_way_to_its_own_variables(load: Load) -> None:
    files = {
        "compose.yaml": "services:\n  web:\n    image: x\n    env_file: [a.env, b.env]\n"
        "    environment: {C: own}\n",
        "a.env": "A=a\nB=a\nC=a\n",
        "b.env": "B=b\n",
    }
    assert load(files).project.services["web"].environment == {"A": "a", "B": "b", "C": "own"}


def test_an_override_file_is_laid_over(load: Load) -> None:
    files = {
        "compose.yaml": "services:\n  web: {image: x, cap_add: [A], command: a}\n",
        "compose.override.yaml": "services:\n  web: {cap_add: [B], command: b}\n",
    }
    loaded = load(files)
    web = loaded.project.services["web"]
    assert (web.cap_add, web.command) == (("A", "B"), ("b",))
    names = [Path(path).name for path in loaded.project.config_files]
    assert names == ["compose.yaml", "compose.override.yaml"]


def test_extends_and_include_keep_paths_relative_to_their_files(load: Load) -> None:
    files = {
        "compose.yaml": "include: [inc/o.yaml]\nservices:\n"
        "  web: {extends: {file: base/b.yaml, service: b}, hostname: h}\n",
        "base/b.yaml": "services:\n  b: {image: x, volumes: [./v:/v]}\n",
        "inc/o.yaml": "services:\n  o: {image: 'y:${T}', build: .}\n",
        "inc/.env": "T=inc\n",
    }
    project = load(files).project
    assert project.services["web"].volumes[0].source == f"{project.working_dir}/base/v"
    assert project.services["o"].image == "y:inc"
    build = project.services["o"].build
    assert build is not None and build.context == f"{project.working_dir}/inc"


def test_profiles_decide_which_services_are_enabled(load: Load) -> None:
    spec = (
        "services:\n  a: {image: x}\n  b: {image: x, profiles: [p], networks: [n]}\n"
        "networks: {n: }\n"
    )
    project = load(spec).project
    assert (set(project.services), set(project.disabled_services)) == ({"a"}, {"b"})
    assert set(project.networks) == {"default"}
    assert set(load(spec, profiles=("p",)).project.services) == {"a", "b"}
    assert set(load(spec, services=("b",)).project.services) == {"a", "b"}
    assert set(load(spec, environ={"COMPOSE_PROFILES": "p"}).project.services) == {"a", "b"}


def test_the_spec_is_found_in_a_directory_above(load: Load, tmp_path: Path) -> None:
    load(WEB)
    inner = tmp_path / "pro/one/two"
    inner.mkdir(parents=True)
    project = load_project(LoadOptions(environ={}, cwd=inner)).project
    assert project.working_dir == str(tmp_path / "pro")


def test_compose_file_names_the_files(load: Load) -> None:
    files = {"a.yaml": WEB, "b.yaml": "services:\n  web: {hostname: h}\n"}
    project = load(files, environ={"COMPOSE_FILE": "a.yaml:b.yaml"}).project
    assert project.services["web"].hostname == "h"


@pytest.mark.parametrize(
    ("spec", "environ", "options", "name"),
    [
        (WEB, {}, {}, "pro"),
        ("name: from-file\n" + WEB, {}, {}, "from-file"),
        ("name: n-${X:-y}\n" + WEB, {}, {}, "n-y"),
        ("name: from-file\n" + WEB, {"COMPOSE_PROJECT_NAME": "variable"}, {}, "variable"),
        (WEB, {"COMPOSE_PROJECT_NAME": "variable"}, {"project_name": "option"}, "option"),
    ],
)
def test_where_the_name_comes_from(
    load: Load, spec: str, environ: dict[str, str], options: dict[str, str], name: str
) -> None:
    assert load(spec, environ=environ, **options).project.name == name


def test_a_name_that_cannot_be_one_is_refused_with_one_that_can(load: Load) -> None:
    with pytest.raises(SpecError, match="invalid project name") as caught:
        load(WEB, project_name="My Name")
    assert caught.value.hint == "use 'myname'"


def test_a_spec_may_come_from_standard_input(tmp_path: Path) -> None:
    options = LoadOptions(files=("-",), stdin=WEB, environ={}, cwd=tmp_path)
    assert set(load_project(options).project.services) == {"web"}


def test_no_spec_at_all_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no spec found") as caught:
        load_project(LoadOptions(environ={"COMPOSE_FILE": ""}, cwd=tmp_path))
    assert caught.value.hint is not None and "compose.yaml" in caught.value.hint


def test_inputs_tell_whether_a_load_would_give_the_same(load: Load) -> None:
    files = {"compose.yaml": "services:\n  web: {image: '${T:-x}', env_file: e}\n", "e": "A\n"}
    inputs = load(files, environ={"T": "t", "OTHER": "o"}).inputs
    by_name = {Path(path).name: digest for path, digest in inputs.files.items()}
    assert by_name["compose.yaml"] == hashlib.sha256(files["compose.yaml"].encode()).hexdigest()
    assert by_name["e"] == hashlib.sha256(b"A\n").hexdigest()
    assert by_name[".env"] is None
    assert by_name["compose.override.yaml"] is None
    assert inputs.variables["T"] == hashlib.sha256(b"t").hexdigest()
    assert inputs.variables["A"] is None
    assert "OTHER" not in inputs.variables


def test_configs_and_secrets_have_digests_of_their_content(load: Load) -> None:
    files = {
        "compose.yaml": "services:\n  a: {image: x, configs: [c, f], secrets: [s, m]}\n"
        "configs: {c: {content: hello}, f: {file: ./f}}\n"
        "secrets: {s: {environment: S}, m: {file: ./missing}}\n",
        "f": "file",
    }
    project = load(files, environ={"S": "hidden"}).project
    expected = "sha256:" + hashlib.sha256(b"hello").hexdigest()
    assert project.configs["c"].digest == expected
    assert project.configs["f"].digest == "sha256:" + hashlib.sha256(b"file").hexdigest()
    assert project.secrets["s"].digest == "sha256:" + hashlib.sha256(b"hidden").hexdigest()
    assert project.secrets["m"].digest is None
    assert "hidden" not in repr(project)


def test_a_model_keeps_its_variables_and_its_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  a: {image: '${I}', build: ./sub}\n")
    options = LoadOptions(environ={}, cwd=tmp_path, interpolate=False, resolve_paths=False)
    service = load_model(options)["services"]["a"]
    assert service["image"] == "${I}"
    assert service["build"]["context"] == "./sub"


def test_what_nothing_acts_on_is_listed_once_with_its_place(load: Load) -> None:
    found = load("services:\n  a: {image: x, isolation: hyperv}\n  b: {image: x}\n").unsupported
    assert [(issue.path, issue.line) for issue in found] == [("services.a.isolation", 2)]


def test_what_no_service_uses_is_left_out_unless_asked_for(load: Load) -> None:
    text = WEB + "networks: {spare: }\nvolumes: {shelf: }\n"
    assert set(load(text).project.networks) == {"default"}
    everything = load(text, all_resources=True).project
    assert set(everything.networks) == {"default", "spare"}
    assert set(everything.volumes) == {"shelf"}


def test_what_is_implied_can_be_left_out(load: Load) -> None:
    assert not load(WEB, normalise=False).project.networks
