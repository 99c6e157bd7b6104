"""SOPS files in their four forms, whole and tampered with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml

from orchestrator.gitops.decrypt import is_encrypted, open_file, read_identities
from orchestrator.gitops.errors import DecryptionFailed
from tests.unit.gitops.sops_writer import SopsWriter

TREE: dict[str, Any] = {
    "database": {"password": 'hunter2: "é\n', "port": 5432, "ratio": 0.25, "on": True},
    "hosts": ["one", "two", {"name": "three"}],
    "empty": "",
    "none": None,
    "large": 1e21,
    "shown_unencrypted": "for all to see",
}


@pytest.fixture
def identity() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def writer(identity: pyrage.x25519.Identity) -> SopsWriter:
    return SopsWriter(identity.to_public())


def test_yaml_is_opened_whole(writer: SopsWriter, identity: pyrage.x25519.Identity) -> None:
    content = writer.yaml(TREE)
    assert b"hunter2" not in content and b"for all to see" in content
    assert is_encrypted("secrets.yaml", content)
    assert yaml.safe_load(open_file("secrets.yaml", content, [identity])) == TREE


def test_json_is_opened_whole(writer: SopsWriter, identity: pyrage.x25519.Identity) -> None:
    content = writer.json(TREE)
    assert is_encrypted("secrets.json", content)
    assert json.loads(open_file("secrets.json", content, [identity])) == TREE


def test_dotenv_is_opened_line_by_line(
    writer: SopsWriter, identity: pyrage.x25519.Identity
) -> None:
    content = writer.dotenv({"PASSWORD": "a=b#c", "KEY": "two\nlines", "PLAIN_unencrypted": "x"})
    assert is_encrypted("secrets.env", b"# a comment\n" + content)
    opened = open_file("secrets.env", b"# a comment\n" + content, [identity])
    assert opened == b"PASSWORD=a=b#c\nKEY=two\\nlines\nPLAIN_unencrypted=x\n"


def test_binary_is_given_as_it_was(writer: SopsWriter, identity: pyrage.x25519.Identity) -> None:
    content = writer.binary(b"-----BEGIN KEY-----\nabc\n")
    assert open_file("key.pem", content, [identity]) == b"-----BEGIN KEY-----\nabc\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("database.password", 'hunter2: "é\n'),
        ("database.port", "5432"),
        ("database.ratio", "0.25"),
        ("database.on", "True"),
        ("hosts[1]", "two"),
        ("hosts[2].name", "three"),
    ],
)
def test_one_value_can_be_taken(
    writer: SopsWriter, identity: pyrage.x25519.Identity, key: str, value: str
) -> None:
    assert open_file("s.yaml", writer.yaml(TREE), [identity], key).decode() == value


@pytest.mark.parametrize("key", ["database", "nowhere", "hosts[9]", "hosts.name", "database..x]"])
def test_a_value_that_is_not_there_is_named(
    writer: SopsWriter, identity: pyrage.x25519.Identity, key: str
) -> None:
    with pytest.raises(DecryptionFailed, match=re.escape(repr(key))):
        open_file("s.yaml", writer.yaml(TREE), [identity], key)


@pytest.mark.parametrize(
    "rules",
    [
        {"encrypted_suffix": "word"},
        {"encrypted_regex": "^password$"},
        {"unencrypted_suffix": "_plain"},
        {"encrypted_suffix": "word", "mac_only_encrypted": True},
    ],
    ids=lambda rules: "-".join(rules),
)
def test_rules_say_what_is_encrypted(
    identity: pyrage.x25519.Identity, rules: dict[str, Any]
) -> None:
    writer = SopsWriter(identity.to_public(), **rules)
    content = writer.yaml(TREE)
    assert b"hunter2" not in content
    assert yaml.safe_load(open_file("s.yaml", content, [identity])) == TREE


def test_any_one_of_several_recipients_can_open(identity: pyrage.x25519.Identity) -> None:
    other = pyrage.x25519.Identity.generate()
    writer = SopsWriter(other.to_public(), identity.to_public())
    assert open_file("s.yaml", writer.yaml({"a": "b"}), [identity]) == b"a: b\n"


def test_nobody_else_can_open(writer: SopsWriter) -> None:
    stranger = pyrage.x25519.Identity.generate()
    with pytest.raises(DecryptionFailed, match="no matching keys") as caught:
        open_file("s.yaml", writer.yaml(TREE), [stranger])
    assert caught.value.hint is not None


def _swap(document: dict[str, Any]) -> None:
    database = document["database"]
    database["password"], document["hosts"][0] = document["hosts"][0], database["password"]


def _reveal(document: dict[str, Any]) -> None:
    document["database"]["password"] = "chosen by somebody"


def _change_plain(document: dict[str, Any]) -> None:
    document["shown_unencrypted"] = "chosen by somebody"


def _drop(document: dict[str, Any]) -> None:
    del document["database"]["port"]


def _drop_mac(document: dict[str, Any]) -> None:
    del document["sops"]["mac"]


def _date(document: dict[str, Any]) -> None:
    document["sops"]["lastmodified"] = "2020-01-01T00:00:00Z"


def _cut(document: dict[str, Any]) -> None:
    text = document["database"]["password"]
    document["database"]["password"] = text.replace("data:", "data:AA")


def _reorder(document: dict[str, Any]) -> None:
    document["hosts"].reverse()


def _nest(document: dict[str, Any]) -> None:
    value: Any = "x"
    for _ in range(700):
        value = {"a": value}
    document["deep"] = value


def _second_rule(document: dict[str, Any]) -> None:
    document["sops"] |= {"encrypted_regex": "x", "unencrypted_regex": "x"}


def _odd_metadata(document: dict[str, Any]) -> None:
    document["sops"] |= {"age": 5}


def _odd_rule(document: dict[str, Any]) -> None:
    document["sops"] |= {"encrypted_suffix": 5}


def _odd_threshold(document: dict[str, Any]) -> None:
    document["sops"] |= {"shamir_threshold": [7]}


def _loosen(document: dict[str, Any]) -> None:
    document["sops"]["encrypted_suffix"] = "nothing"


@pytest.mark.parametrize(
    "change",
    [
        _swap,
        _reveal,
        _change_plain,
        _drop,
        _drop_mac,
        _date,
        _cut,
        _reorder,
        _loosen,
        _nest,
        _second_rule,
        _odd_metadata,
        _odd_rule,
        _odd_threshold,
    ],
)
def test_a_file_that_was_tampered_with_gives_nothing(
    writer: SopsWriter, identity: pyrage.x25519.Identity, change: Any
) -> None:
    document = json.loads(writer.json(TREE))
    change(document)
    with pytest.raises(DecryptionFailed) as caught:
        open_file("s.json", json.dumps(document).encode(), [identity])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"age": [], "kms": [{"arn": "x"}]}, "but to kms"),
        ({"age": []}, "not encrypted to an age recipient"),
        ({"key_groups": [{}, {}]}, "several key groups"),
        ({"encrypted_comment_regex": "x"}, "encrypted_comment_regex is not supported"),
        ({"age": [{"recipient": "x"}]}, "without a key"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    writer: SopsWriter, identity: pyrage.x25519.Identity, metadata: dict[str, Any], message: str
) -> None:
    document = json.loads(writer.json(TREE))
    document["sops"] |= metadata
    with pytest.raises(DecryptionFailed, match=message):
        open_file("s.json", json.dumps(document).encode(), [identity])


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("s.yaml", b"a: ENC[AES256_GCM,x\nsops: [1\nb: hunter2"),
        ("s.yaml", b"sops: {}\na: ENC[AES256_GCM,]\n---\nb: 1\n"),
        ("s.json", b'{"sops": 1, "a": "ENC[AES256_GCM,]"}'),
        ("s.env", b"A=ENC[AES256_GCM,]\nsops_mac=x\nhunter2\n"),
        ("s.env", b"A=ENC[AES256_GCM,]\nA=1\nsops_mac=x\n"),
    ],
)
def test_what_is_malformed_is_told_without_what_it_holds(
    path: str, content: bytes, identity: pyrage.x25519.Identity
) -> None:
    with pytest.raises(DecryptionFailed) as caught:
        open_file(path, content, [identity])
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_mentions_sops_is_not_one() -> None:
    assert not is_encrypted("a.yaml", b"sops: see ENC[...]\n")
    assert not is_encrypted("a.yaml", b"text: ENC[AES256_GCM,data:x]\n")
    assert not is_encrypted("a.yaml", b"about age-encryption.org/v1\n")


# Age files.


@pytest.mark.parametrize("armoured", [False, True])
def test_an_age_file_is_opened(identity: pyrage.x25519.Identity, armoured: bool) -> None:
    content = pyrage.encrypt(b"\0any\xffbytes", [identity.to_public()], armored=armoured)
    assert is_encrypted("key", content)
    assert open_file("key", content, [identity]) == b"\0any\xffbytes"


def test_an_age_file_that_was_changed_gives_nothing(identity: pyrage.x25519.Identity) -> None:
    content = pyrage.encrypt(b"hunter2", [identity.to_public()])
    with pytest.raises(DecryptionFailed, match=r"^decrypt db\.age: "):
        open_file("db.age", content[:-1] + bytes([content[-1] ^ 1]), [identity])
    with pytest.raises(DecryptionFailed, match="no part"):
        open_file("db.age", content, [identity], "a.b")


def test_identities_are_read_as_age_keygen_writes_them(
    tmp_path: Path, identity: pyrage.x25519.Identity
) -> None:
    other = pyrage.x25519.Identity.generate()
    file = tmp_path / "keys.txt"
    file.write_text(f"# created: today\n# public key: x\n{other}\n\n{identity}\n")
    content = pyrage.encrypt(b"x", [identity.to_public()])
    assert open_file("a", content, read_identities(file, "a")) == b"x"


@pytest.mark.parametrize(
    "content", [None, "", "# nothing\n", "age1public\n", "AGE-SECRET-KEY-1XXX\n", "\xff"]
)
def test_a_file_without_identities_is_named_and_not_quoted(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_text(content, encoding="latin-1")
    with pytest.raises(DecryptionFailed, match=re.escape(str(file))) as caught:
        read_identities(file, "a")
    assert "XXX" not in str(caught.value)
