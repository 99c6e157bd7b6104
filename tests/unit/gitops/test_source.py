"""A GitSource's file: what it may say, and how mistakes are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.gitops import addresses
from orchestrator.gitops.source import SECOND, GitSource, load_source
from specs.errors import SpecError

HEAD = "apiVersion: bayplan/v1\nkind: GitSource\nmetadata: {name: shop}\nspec:\n"


def load(tmp_path: Path, spec: str, head: str = HEAD) -> GitSource:
    file = tmp_path / "source.yaml"
    file.write_text(head + spec)
    return load_source(file)


def refusal(tmp_path: Path, spec: str, head: str = HEAD) -> str:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, spec, head)
    return "\n".join(issue.describe(hint=True) for issue in caught.value.issues)


EVERYTHING = """
  url: ssh://git@git.example.org/team/shop.git
  ref: {semver: ">=1.2 <2"}
  forcePush: refuse
  paths: [stacks/*, extra.yaml]
  valuesFiles: [values.yaml, /etc/bayplan/values.yaml]
  profiles: [metrics]
  environment: {REGION: eu, HOSTNAME: }
  hostPaths: [/etc/bayplan/secrets]
  interval: 5m
  timeout: 30s
  retry: {limit: 3, backoff: 1s, maxBackoff: 1m}
  credentials: {sshKeyFile: key, knownHostsFile: hosts, username: ann, passwordFile: pass}
  verify: {mode: TagAndHEAD, allowedSignersFile: signers}
  decryption: {identityFile: age.key}
  prune: false
  allowEmpty: true
  healthGate: {enabled: true, timeout: 2m}
  dependsOn: [base]
  suspend: true
  dryRun: true
  webhook: {secretFile: hook, provider: gitlab}
  notify:
    - {type: slack, urlFile: slack, events: [failed]}
    - {type: webhook, url: "https://ops.example.org/hook", secretFile: sign}
    - {type: command, command: [/usr/local/bin/tell, "$x"], timeout: 5s}
  limits: {size: 100m, files: 5000}
  keep: 3
"""


def test_everything_that_can_be_said_survives_being_stored(tmp_path: Path) -> None:
    source = load(tmp_path, EVERYTHING)
    assert source.interval == 300 * SECOND
    assert source.limits.size == 100 * 2**20
    assert source.environment == {"REGION": "eu", "HOSTNAME": None}
    assert source.notify[2].command == ("/usr/local/bin/tell", "$x")
    stored = source.canonical()
    assert GitSource.from_canonical(stored) == source
    assert GitSource.from_canonical(stored).digest() == source.digest()
    assert set(stored["spec"]) == set(GitSource.model_json_schema()["properties"]) - {"name"}


def test_little_has_to_be_said(tmp_path: Path) -> None:
    source = load(tmp_path, "  url: https://git.example.org/shop.git\n")
    assert source.paths == (".",)
    assert str(source.ref) == "the default branch"
    assert (source.prune, source.allow_empty, source.suspend) == (True, False, False)
    assert source.canonical()["spec"] == {"url": "https://git.example.org/shop.git"}


def test_paths_of_this_host_are_relative_to_the_file(tmp_path: Path) -> None:
    source = load(tmp_path, EVERYTHING)
    assert source.credentials.ssh_key_file == str(tmp_path / "key")
    assert source.credentials.password_file == str(tmp_path / "pass")
    assert source.verify is not None and source.decryption is not None
    assert source.verify.allowed_signers_file == str(tmp_path / "signers")
    assert source.decryption.identity_file == str(tmp_path / "age.key")
    assert source.notify[0].url_file == str(tmp_path / "slack")
    assert load(tmp_path, "  url: ../repo\n").url == str(tmp_path.parent / "repo")


def test_unknown_keys_are_refused_where_they_stand_with_a_guess(tmp_path: Path) -> None:
    told = refusal(
        tmp_path,
        "  url: /repo\n  path: [a]\n  allow_empty: true\n  credentials: {sshKey: x}\n",
    )
    assert 'source.yaml:6:3: path: unknown key "path" (did you mean "paths"?)' in told
    assert 'unknown key "allow_empty" (did you mean "allowEmpty"?)' in told
    assert 'credentials.sshKey: unknown key "sshKey" (did you mean "sshKeyFile"?)' in told


def test_a_key_of_the_source_beside_the_spec_is_told_where_it_belongs(tmp_path: Path) -> None:
    told = refusal(tmp_path, "  url: /repo\ninterval: 1m\n")
    assert 'unknown key "interval" (it belongs below spec:)' in told


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("kind: GitSource\nmetadata: {name: a}\nspec:\n", "apiVersion: must be bayplan/v1"),
        (HEAD.replace("GitSource", "Stack"), "kind: must be GitSource"),
        (HEAD.replace("metadata: {name: shop}\n", ""), "metadata: needs a name"),
        (HEAD.replace("shop", "Shop/1"), "'Shop/1' is not a name"),
        ("- a\n#", "a GitSource is a mapping"),
    ],
)
def test_another_document_is_refused(tmp_path: Path, head: str, message: str) -> None:
    assert message in refusal(tmp_path, "  url: /repo\n", head)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("  interval: 1m\n", '"url" is missing'),
        ("  url: /r\n  ref: {branch: a, tag: b}\n", "branch and tag exclude each other"),
        ("  url: /r\n  ref: {branch: --upload-pack=x}\n", "is not the name of a branch"),
        ("  url: /r\n  ref: {branch: a..b}\n", "is not the name of a branch"),
        ("  url: /r\n  ref: {commit: abc}\n", "is not a commit's full name"),
        ("  url: /r\n  ref: {semver: newest}\n", "is not a version range"),
        ("  url: /r\n  paths: [../x]\n", "leads out of the repository"),
        ("  url: /r\n  paths: [/etc]\n", "paths are relative to the repository"),
        ("  url: /r\n  paths: []\n", "at least 1 item"),
        ("  url: /r\n  interval: 1ms\n", "greater than or equal to"),
        ("  url: /r\n  interval: soon\n", "is not a duration"),
        ("  url: /r\n  dependsOn: [shop]\n", "depends on itself"),
        ("  url: /r\n  verify: {}\n", "needs an allowedSignersFile"),
        ("  url: /r\n  verify: {mode: Tag, allowedSignersFile: x}\n", "needs a ref with a tag"),
        ("  url: /r\n  notify: [{type: slack, url: https://hooks/x}]\n", "is a secret"),
        ("  url: /r\n  notify: [{type: command, command: tell}]\n", "not the absolute path"),
        ("  url: /r\n  notify: [{type: webhook}]\n", "takes a url or a urlFile"),
        ("  url: /r\n  notify: [{type: mail, url: x}]\n", "notify[0].type: must be"),
        ("  url: /r\n  prune: sometimes\n", "prune"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, spec: str, message: str) -> None:
    told = refusal(tmp_path, spec)
    assert message in told
    assert "source.yaml:" in told


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yaml: no such file"):
        load_source(tmp_path / "nowhere.yaml")


def test_a_changed_source_has_another_digest(tmp_path: Path) -> None:
    one = load(tmp_path, "  url: /r\n")
    assert one.digest() == load(tmp_path, "  url: /r\n  prune: true\n").digest()
    assert one.digest() != load(tmp_path, "  url: /r\n  prune: false\n").digest()


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("https://git.example.org/a/b.git", "https"),
        ("http://localhost:3000/a.git", "http"),
        ("http://[::1]/a.git", "http"),
        ("ssh://git@git.example.org:2222/a.git", "ssh"),
        ("git@git.example.org:a/b.git", "ssh"),
        ("host:a.git", "ssh"),
        ("file:///srv/a.git", "file"),
        ("/srv/a.git", "file"),
        ("/srv/my repository", "file"),
    ],
)
def test_git_gets_the_one_protocol_that_an_address_needs(url: str, protocol: str) -> None:
    assert addresses.protocol(url) == protocol


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-u/x",
        "--upload-pack=touch x",
        "ext::sh -c touch% x",
        "fd::17/x",
        "git://git.example.org/a",
        "http://git.example.org/a",
        "http://127.0.0.1.example.org/a",
        "https://ann:pass@git.example.org/a",
        "https://token@git.example.org/a",
        "ssh://-oProxyCommand=x/a",
        "ssh://-x@host/a",
        "ssh://git:pass@host/a",
        "-oProxyCommand=x:a",
        "git@-x:a",
        "host:-a",
        "https://",
        "https://host:port/a",
        "file://host/a",
        "a b:c",
        "https://host/a\nb",
    ],
)
def test_dangerous_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        addresses.check_git(url)


def test_a_password_in_an_address_is_not_repeated(tmp_path: Path) -> None:
    told = refusal(tmp_path, "  url: https://ann:hunter2@git.example.org/a\n")
    assert "use credentials" in told.splitlines()[0]
    assert "hunter2" not in told.splitlines()[0]


def test_the_documentation_knows_every_key_and_its_example_is_good(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/gitops.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    file = tmp_path / "shop.yaml"
    file.write_text(example)
    assert load_source(file).name == "shop"
    documented = set(re.findall(r"^\| `(\w+)` \|", text.partition("## What a stack may")[0], re.M))
    assert documented == set(GitSource.model_json_schema()["properties"]) - {"name"}
