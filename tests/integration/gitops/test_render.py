"""Commits rendered to projects: what they may read, and what a plan learns from them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyrage
import pytest

from orchestrator.gitops.checkout import Checkout
from orchestrator.gitops.errors import (
    DecryptionFailed,
    GitOpsError,
    LfsPointer,
    RenderFailed,
    SubmodulesUnsupported,
)
from orchestrator.gitops.render import render
from orchestrator.gitops.vault import Vault
from orchestrator.planning.blueprint import blueprints
from orchestrator.planning.drift import service_drift
from specs.loader import LoadedProject
from tests.integration.gitops.repository import Repository, needs_git, taken
from tests.unit.gitops.sops_writer import SopsWriter

pytestmark = needs_git

WEB = "services:\n  web:\n    image: example\n"


class Bench:
    """A repository, and what its commits render to."""

    def __init__(self, tmp_path: Path, vault: Path) -> None:
        self.tmp_path = tmp_path
        self.repository = Repository(tmp_path / "repository")
        self.root = tmp_path / "root"
        self.vault = Vault(vault)
        self.checkout: Checkout | None = None

    def render(
        self,
        files: Mapping[str, str | bytes | None] | None = None,
        environ: Mapping[str, str] | None = None,
        **source: Any,
    ) -> list[LoadedProject]:
        self.repository.commit(files)
        mirror = self.repository.mirror(self.tmp_path / "mirror", **source)
        self.checkout = asyncio.run(taken(mirror, self.root))
        return render(mirror.source, self.checkout, environ or {}, self.vault)

    def one(self, files: Mapping[str, str | bytes | None], **source: Any) -> dict[str, Any]:
        """The canonical form of the only project."""
        (loaded,) = self.render(files, **source)
        return loaded.project.canonical()

    def refusal(self, files: Mapping[str, str | bytes | None], **source: Any) -> str:
        with pytest.raises(RenderFailed) as caught:
            self.render(files, **source)
        assert str(self.root) not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on a file system that is kept in memory."""
    place = Path("/dev/shm") / f"bay-test-{os.getpid()}"
    place.mkdir(mode=0o700)
    yield place / "vault"
    if place.exists():
        for entry in sorted(place.rglob("*"), reverse=True):
            entry.rmdir() if entry.is_dir() else entry.unlink()
        place.rmdir()


@pytest.fixture
def bench(tmp_path: Path, memory: Path) -> Bench:
    return Bench(tmp_path, memory)


def changes(old: Mapping[str, Any], new: Mapping[str, Any], service: str = "web") -> list[str]:
    """What a plan would say of a service between two projects."""
    one, two = (blueprints(project, {})[service] for project in (old, new))
    found = service_drift(one, two, old_image="sha256:1", new_image="sha256:1")
    return [change.text() for change in found]


def test_a_project_is_named_by_its_spec_the_source_or_the_directory(bench: Bench) -> None:
    assert bench.one({"compose.yaml": WEB})["name"] == "shop"
    assert bench.one({"compose.yaml": "name: store\n" + WEB})["name"] == "store"
    assert bench.one({"apps/one/compose.yaml": WEB}, paths=["apps/one"])["name"] == "one"


def test_several_stacks_come_from_paths_and_patterns(bench: Bench) -> None:
    files = {
        "apps/one/compose.yaml": WEB,
        "apps/two/compose.yml": WEB,
        "apps/notes/README": "no stack",
        "extra.yaml": "name: extra\n" + WEB,
    }
    projects = bench.render(files, paths=["apps/*", "extra.yaml"])
    assert [loaded.project.name for loaded in projects] == ["one", "two", "extra"]
    with pytest.raises(RenderFailed, match=r"nothing in \w+ matches none/\*"):
        bench.render(paths=["none/*"])
    with pytest.raises(RenderFailed, match=r"extra\.yaml and more\.yaml are both project extra"):
        bench.render({"more.yaml": "name: extra\n" + WEB}, paths=["extra.yaml", "more.yaml"])
    with pytest.raises(RenderFailed, match="notes has no stack"):
        bench.render(paths=["apps/notes"])
    with pytest.raises(RenderFailed, match="gone is not in"):
        bench.render(paths=["gone"])


def test_a_stack_is_not_looked_for_above_its_directory(bench: Bench) -> None:
    with pytest.raises(RenderFailed, match="app has no stack"):
        bench.render({"compose.yaml": WEB, "app/x": ""}, paths=["app"])


def test_override_files_templates_and_values_are_taken(bench: Bench) -> None:
    outside = bench.tmp_path / "host-values.yaml"
    outside.write_text("tag: of-the-host\n")
    files = {
        "compose.yaml.j2": "services:\n  web:\n    image: example:{{ tag }}\n",
        "compose.override.yaml": "services:\n  web:\n    restart: always\n",
        "values.yaml": "tag: of-the-repository\n",
    }
    web = bench.one(files, valuesFiles=["values.yaml"])["services"]["web"]
    assert web["image"] == "example:of-the-repository"
    assert web["restart"] == "always"
    web = bench.one({}, valuesFiles=["values.yaml", str(outside)])["services"]["web"]
    assert web["image"] == "example:of-the-host"


def test_interpolation_sees_what_the_source_names_and_nothing_else(bench: Bench) -> None:
    text = WEB + '    environment: ["A=$A", "B=$B", "C=$C", D, E, "HOME=$HOME"]\n'
    environ = {"B": "daemon's", "C": "hunter2", "D": "hunter2", "E": "daemon's", "HOME": "/root"}
    (loaded,) = bench.render(
        {"compose.yaml": text}, environ, environment={"A": "given", "B": None, "E": None}
    )
    web = loaded.project.canonical()["services"]["web"]
    assert web["environment"] == {
        "A": "given", "B": "daemon's", "C": "", "E": "daemon's", "HOME": ""
    }  # fmt: skip
    assert "hunter2" not in json.dumps(loaded.project.canonical())
    assert dict(loaded.environment).get("C") is None


def test_what_a_person_sees_and_a_container_binds_is_the_stable_tree(bench: Bench) -> None:
    text = WEB + "    volumes: [./conf:/conf, ./data:/data, /srv/x:/x]\n"
    project = bench.one({"app/compose.yaml": text, "app/conf/a": "1"}, paths=["app"])
    tree = bench.root / "tree"
    assert project["working_dir"] == str(tree / "app")
    assert project["config_files"] == [str(tree / "app/compose.yaml")]
    sources = [mount["source"] for mount in project["services"]["web"]["volumes"]]
    assert sources == [str(tree / "app/conf"), str(tree / "app/data"), "/srv/x"]


def test_a_commit_changes_only_services_whose_content_it_changes(bench: Bench) -> None:
    text = WEB + "    volumes: [./conf:/conf, ./data:/data]\n  other:\n    image: example\n"
    text += "    volumes: [./one:/one]\n"
    one = bench.one({"compose.yaml": text, "conf/a": "1", "one": "1", "note": "1"})
    two = bench.one({"note": "2"})
    assert changes(one, two) == changes(one, two, "other") == []
    three = bench.one({"conf/a": "2"})
    assert [change.split(":")[0] for change in changes(two, three)] == ["bind /conf content"]
    assert changes(two, three, "other") == []
    four = bench.one({"data/seed": "1"})
    assert [change.split(":")[0] for change in changes(three, four)] == ["bind /data content"]
    five = bench.one({"conf/a": "1", "data/seed": None})
    assert changes(one, five) == []


def test_a_bound_link_counts_as_what_it_leads_to(bench: Bench) -> None:
    (bench.repository.path / "current").symlink_to("releases/1")
    text = WEB + "    volumes: [./current:/app]\n"
    one = bench.one({"compose.yaml": text, "releases/1/a": "1", "releases/2/a": "2"})
    mount = one["services"]["web"]["volumes"][0]
    assert mount["source"] == str(bench.root / "tree/releases/1")
    (bench.repository.path / "current").unlink()
    (bench.repository.path / "current").symlink_to("releases/2")
    two = bench.one({})
    assert any("bind /app content" in change for change in changes(one, two))


def test_an_image_that_is_built_is_named_by_what_it_is_built_from(bench: Bench) -> None:
    text = "services:\n  web: {build: app}\n  job: {build: {context: app, args: {A: 1}}}\n"
    text += "  worker: {image: 'own:1', build: app}\n  same: {image: 'own:1'}\n"
    files = {"compose.yaml": text, "app/Dockerfile": "FROM scratch\n", "app/x": "1", "note": "1"}

    def images(project: Mapping[str, Any]) -> dict[str, str]:
        return {name: service["image"] for name, service in project["services"].items()}

    one = images(bench.one(files))
    assert one["web"].startswith("shop-web:git-")
    assert one["job"].rpartition("-")[2] != one["web"].rpartition("-")[2]
    assert one["same"] == one["worker"]
    assert one["worker"].startswith("own:1-git-")
    assert images(bench.one({"note": "2"})) == one
    two = images(bench.one({"app/x": "2"}))
    assert all(two[name] != one[name] for name in one)
    (bench.repository.path / "app/x").chmod(0o755)
    assert images(bench.one({"app/x": "1"})) != one
    (bench.repository.path / "app/x").chmod(0o644)
    assert images(bench.one({"app/x": "1"})) == one


def test_the_build_context_is_the_commit_s_own(bench: Bench) -> None:
    text = "services:\n  web: {build: app}\n"
    project = bench.one({"compose.yaml": text, "app/Dockerfile": "FROM scratch\n"})
    assert bench.checkout is not None
    context = project["services"]["web"]["build"]["context"]
    assert context == str(bench.checkout.path / "app")


# What leads out.


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("PASSWORD=hunter2\n")
    return place


SERVICE_PATHS = {
    "env_file": "    env_file: {path}\n",
    "label_file": "    label_file: {path}\n",
    "bind": "    volumes: ['{path}:/x']\n",
    "long bind": "    volumes: [{{type: bind, source: '{path}', target: /x}}]\n",
    "context": "    build: {{context: '{path}'}}\n",
    "dockerfile": "    build: {{context: ., dockerfile: '{path}'}}\n",
    "additional context": "    build: {{context: ., additional_contexts: {{x: '{path}'}}}}\n",
    "layout": "    build: {{context: ., additional_contexts: {{x: 'oci-layout://{path}:1'}}}}\n",
    "extends": "    extends: {{file: '{path}', service: web}}\n",
    "watch": "    develop: {{watch: [{{path: '{path}', action: restart}}]}}\n",
    "config": "configs: {{x: {{file: '{path}'}}}}\n",
    "secret": "secrets: {{x: {{file: '{path}'}}}}\n",
    "include": "include: ['{path}']\n",
    "include env": "include: [{{path: in.yaml, env_file: '{path}'}}]\n",
    "volume": "volumes: {{x: {{driver: local, driver_opts: {{o: bind, device: '{path}'}}}}}}\n",
}


@pytest.mark.parametrize("kind", SERVICE_PATHS)
@pytest.mark.parametrize("way", ["climbing", "link", "link above"])
def test_no_path_of_a_stack_leads_out_of_the_repository(
    bench: Bench, outside: Path, kind: str, way: str
) -> None:
    path = "../" * 20 + str(outside / "secret").lstrip("/")
    if way == "link":
        (bench.repository.path / "link").symlink_to(outside / "secret")
        path = "./link"
    elif way == "link above":
        (bench.repository.path / "link").symlink_to(outside)
        path = "./link/secret"
    uses = "    configs: [x]\n" if kind == "config" else ""
    uses = "    secrets: [x]\n" if kind == "secret" else uses
    uses = "    volumes: ['x:/x']\n" if kind == "volume" else uses
    text = WEB + uses + SERVICE_PATHS[kind].format(path=path)
    told = bench.refusal({"compose.yaml": text, "in.yaml": WEB.replace("web", "in")})
    assert "leads out of the repository" in told
    assert "hunter2" not in told
    assert "compose.yaml:" in told or kind == "include env"


def test_a_spec_dotenv_override_or_values_file_that_is_a_link_out_is_refused(
    bench: Bench, outside: Path
) -> None:
    bench.repository.commit({"ok/compose.yaml": WEB})
    cases: list[tuple[str, dict[str, Any]]] = [
        ("a/compose.yaml", {}),
        ("b/.env", {}),
        ("c/compose.override.yaml", {}),
        ("d/values.yaml", {"valuesFiles": ["d/values.yaml"]}),
    ]
    for name, source in cases:
        directory = name.partition("/")[0]
        (bench.repository.path / directory).mkdir()
        (bench.repository.path / name).symlink_to(outside / "secret")
        files = {} if name.startswith("a") else {f"{directory}/compose.yaml": WEB}
        if source:
            files = {f"{directory}/compose.yaml.j2": WEB}
        told = bench.refusal(files, paths=[directory], **source)
        assert "leads out of the repository" in told
        assert name in told
        assert "hunter2" not in told


def test_files_of_the_host_are_read_only_where_the_source_allows(
    bench: Bench, outside: Path
) -> None:
    text = WEB + f"    env_file: {outside}/secret\n"
    told = bench.refusal({"compose.yaml": text})
    assert f"{outside}/secret leads out of the repository" in told
    web = bench.one({}, hostPaths=[str(outside)])["services"]["web"]
    assert web["environment"] == {"PASSWORD": "hunter2"}


def test_links_within_the_repository_are_followed(bench: Bench) -> None:
    (bench.repository.path / "app").mkdir()
    (bench.repository.path / "app/.env").symlink_to("../shared.env")
    files = {"shared.env": "TAG=7\n", "app/compose.yaml": WEB.replace("example", "example:$TAG")}
    assert bench.one(files, paths=["app"])["services"]["web"]["image"] == "example:7"


def test_stacks_that_would_fill_the_memory_are_refused_before_they_are_read(bench: Bench) -> None:
    large = WEB + "x-a: [" + "1," * 2**18 + "]\n"
    files: dict[str, str | bytes | None] = {f"{n}/compose.yaml": large for n in range(5)}
    assert "more than 2,097,152 bytes" in bench.refusal(files, paths=["*"])


def test_what_nobody_thought_of_is_a_failure_of_the_commit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(_: object) -> None:
        raise ValueError("embedded null byte")

    monkeypatch.setattr("orchestrator.gitops.render.load_project", surprise)
    assert ". cannot be read: ValueError: embedded null byte" in bench.refusal(
        {"compose.yaml": WEB}
    )


def test_what_a_template_renders_counts_as_what_is_read(bench: Bench) -> None:
    template = "services: {web: {image: '{{ 'x' * 10000 }}'}}\n"
    with pytest.raises(RenderFailed, match=r"more than 10,000 bytes") as caught:
        bench.render({"compose.yaml.j2": template}, limits={"text": 10_000})
    assert caught.value.hint == "raise limits.text if this is meant"


def test_broken_specs_are_told_by_their_place_in_the_repository(bench: Bench) -> None:
    told = bench.refusal({"app/compose.yaml": WEB + "    imagee: x\n"}, paths=["app"])
    assert told.startswith("app/compose.yaml:4:5: services.web: ")
    told = bench.refusal({"app/compose.yaml": WEB + "    env_file: nowhere.env\n"}, paths=["app"])
    assert "env file app/nowhere.env not found" in told


# Submodules and LFS.

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.mark.parametrize(
    "use",
    [
        "    volumes: ['./data:/data']\n",
        "    volumes: ['./data/model:/model']\n",
        "    volumes: ['.:/all']\n",
        "    build: data\n",
        "    env_file: data/model\n",
        "    secrets: [s]\nsecrets: {s: {file: data/model}}\n",
    ],
)
def test_an_lfs_pointer_that_a_stack_uses_is_refused(bench: Bench, use: str) -> None:
    with pytest.raises(LfsPointer, match="data/model, of which the repository holds a Git LFS"):
        bench.render({"compose.yaml": WEB + use, "data/model": POINTER})
    assert bench.one({"compose.yaml": WEB})["name"] == "shop"


@pytest.mark.parametrize("name", ["compose.yaml", "in.yaml"])
def test_a_spec_that_is_an_lfs_pointer_is_told_as_one(bench: Bench, name: str) -> None:
    files = {"compose.yaml": WEB + "include: [in.yaml]\n", name: POINTER}
    with pytest.raises(LfsPointer, match=name):
        bench.render(files)


@pytest.mark.parametrize(
    "use",
    [
        "    build: lib\n",
        "    volumes: ['./lib/x:/x']\n",
        "    env_file: lib/x\n",
        "include: [lib/compose.yaml]\n",
    ],
)
def test_a_submodule_that_a_stack_uses_is_refused(bench: Bench, use: str) -> None:
    commit = bench.repository.commit({"compose.yaml": WEB + use})
    bench.repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib")
    (bench.repository.path / "lib").mkdir()
    bench.repository.git("commit", "--quiet", "--message", "a submodule")
    with pytest.raises(SubmodulesUnsupported, match="lib, which is a submodule"):
        bench.render()
    with pytest.raises(SubmodulesUnsupported):
        bench.render(paths=["lib/stack"])


# Secrets.


@pytest.fixture
def identity() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def key(tmp_path: Path, identity: pyrage.x25519.Identity) -> dict[str, str]:
    file = tmp_path / "age.key"
    file.write_text(f"{identity}\n")
    return {"identityFile": str(file)}


USES_SECRET = WEB + "    secrets: [db]\nsecrets: {db: {file: %s}}\n"


def test_an_encrypted_secret_is_in_memory_alone(
    bench: Bench, identity: pyrage.x25519.Identity, key: dict[str, str]
) -> None:
    content = pyrage.encrypt(b"hunter2", [identity.to_public()])
    files: dict[str, str | bytes] = {"compose.yaml": USES_SECRET % "db.age", "db.age": content}
    secret = bench.one(files, decryption=key)["secrets"]["db"]
    assert Path(secret["file"]).read_bytes() == b"hunter2"
    assert Path(secret["file"]).parent == bench.vault.directory
    assert Path(secret["file"]).stat().st_mode & 0o777 == 0o600
    assert secret["digest"] == "sha256:" + hashlib.sha256(b"hunter2").hexdigest()
    for place in bench.tmp_path.rglob("*"):
        assert not place.is_file() or b"hunter2" not in place.read_bytes()


def test_encrypting_again_changes_no_service(
    bench: Bench, identity: pyrage.x25519.Identity, key: dict[str, str]
) -> None:
    def sealed(content: bytes) -> bytes:
        return bytes(pyrage.encrypt(content, [identity.to_public()]))

    one = bench.one(
        {"compose.yaml": USES_SECRET % "db.age", "db.age": sealed(b"1")}, decryption=key
    )
    two = bench.one({"db.age": sealed(b"1")}, decryption=key)
    assert one["secrets"]["db"]["file"] != two["secrets"]["db"]["file"]
    assert changes(one, two) == []
    three = bench.one({"db.age": sealed(b"2")}, decryption=key)
    (change,) = changes(two, three)
    assert change.startswith("secrets.db content")
    bench.vault.sweep([three["secrets"]["db"]["file"]])
    assert os.listdir(bench.vault.directory) == [Path(three["secrets"]["db"]["file"]).name]
    bench.vault.close()
    assert not bench.vault.directory.exists()


def test_one_value_of_a_sops_file_becomes_a_secret(
    bench: Bench, identity: pyrage.x25519.Identity, key: dict[str, str]
) -> None:
    content = SopsWriter(identity.to_public()).yaml({"db": {"password": "hunter2"}, "x": 1})
    text = WEB + "    secrets: [db, all]\nsecrets:\n"
    text += "  db: {file: s.sops.yaml, x-bayplan: {key: db.password}}\n  all: {file: s.sops.yaml}\n"
    secrets = bench.one({"compose.yaml": text, "s.sops.yaml": content}, decryption=key)["secrets"]
    assert Path(secrets["db"]["file"]).read_text() == "hunter2"
    assert Path(secrets["all"]["file"]).read_text() == "db:\n  password: hunter2\nx: 1\n"


@pytest.mark.parametrize(
    "use",
    [
        "    env_file: s.env\n",
        "    label_file: s.env\n",
        "    configs: [c]\nconfigs: {c: {file: s.env}}\n",
        "include: [{path: in.yaml, env_file: s.env}]\n",
    ],
)
def test_an_encrypted_file_is_refused_where_its_content_would_be_stored(
    bench: Bench, identity: pyrage.x25519.Identity, key: dict[str, str], use: str
) -> None:
    content = SopsWriter(identity.to_public()).dotenv({"A": "hunter2"})
    files: dict[str, str | bytes] = {"s.env": content, "in.yaml": "services: {}\n"}
    files["compose.yaml"] = WEB + use
    with pytest.raises(DecryptionFailed, match=r"s\.env: an encrypted file can only be a secret's"):
        bench.render(files, decryption=key)


@pytest.mark.parametrize("armour", [False, True])
def test_an_env_file_that_age_has_encrypted_is_refused_as_one(
    bench: Bench, identity: pyrage.x25519.Identity, key: dict[str, str], armour: bool
) -> None:
    content = pyrage.encrypt(b"A=hunter2\n", [identity.to_public()], armored=armour)
    files: dict[str, str | bytes] = {"compose.yaml": WEB + "    env_file: s.env\n"}
    with pytest.raises(DecryptionFailed, match=r"s\.env: an encrypted file") as caught:
        bench.render({**files, "s.env": content}, decryption=key)
    assert caught.value.hint is not None and "secrets: {NAME: {file: s.env}}" in caught.value.hint


def test_what_cannot_be_opened_is_named(bench: Bench, tmp_path: Path, key: dict[str, str]) -> None:
    stranger = pyrage.x25519.Identity.generate()
    content = pyrage.encrypt(b"hunter2", [stranger.to_public()])
    files: dict[str, str | bytes] = {"compose.yaml": USES_SECRET % "db.age", "db.age": content}
    with pytest.raises(DecryptionFailed, match=r"decrypt db\.age: no matching keys"):
        bench.render(files, decryption=key)
    with pytest.raises(DecryptionFailed, match=r"decrypt db\.age: the source has no key"):
        bench.render()
    with pytest.raises(DecryptionFailed, match="cannot read the identities"):
        bench.render(decryption={"identityFile": str(tmp_path / "nowhere")})


def test_a_plain_secret_stays_where_it_is(bench: Bench) -> None:
    secret = bench.one({"compose.yaml": USES_SECRET % "db.txt", "db.txt": "1"})["secrets"]["db"]
    assert bench.checkout is not None
    assert secret["file"] == str(bench.checkout.path / "db.txt")


def test_a_vault_that_is_not_in_memory_is_refused(
    tmp_path: Path,
    bench: Bench,
    identity: pyrage.x25519.Identity,
    key: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from runtime.linux import mounts

    def cannot(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(mounts, "attach", cannot)
    bench.vault = Vault(tmp_path / "disk/vault")
    content = pyrage.encrypt(b"hunter2", [identity.to_public()])
    with pytest.raises(GitOpsError, match="is not in memory"):
        bench.render({"compose.yaml": USES_SECRET % "db.age", "db.age": content}, decryption=key)
    for place in tmp_path.rglob("*"):
        assert not place.is_file() or b"hunter2" not in place.read_bytes()
