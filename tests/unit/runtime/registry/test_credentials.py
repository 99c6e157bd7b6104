"""Docker's config.json and credential helpers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from runtime.registry.credentials import (
    config_path,
    erase_credentials,
    find_credentials,
    store_credentials,
)
from runtime.registry.endpoints import Credentials, RegistryConfig
from runtime.registry.errors import HelperError

ALICE = Credentials(username="alice", password="s:e:c")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def configured(directory: Path, document: Any, **environ: str) -> RegistryConfig:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(document))
    return RegistryConfig(docker_config=directory, environ=environ)


def find(domain: str, config: RegistryConfig) -> Credentials | None:
    return asyncio.run(find_credentials(domain, config))


def helper(directory: Path, name: str, script: str) -> None:
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


KEEPER = """
store="${0%/*}/kept"
case "$1" in
get) read server || true
     if [ -f "$store" ] && grep -qF "\\"ServerURL\\": \\"$server\\"" "$store"; then cat "$store"
     else echo "credentials not found in native keychain"; exit 1; fi ;;
store) cat > "$store" ;;
erase) rm -f "$store" ;;
esac
"""


def test_the_directory_is_taken_from_the_environment_then_from_the_home() -> None:
    given = RegistryConfig(environ={"DOCKER_CONFIG": "/a", "HOME": "/b"})
    assert config_path(given) == Path("/a/config.json")
    assert config_path(RegistryConfig(environ={"HOME": "/b"})) == Path("/b/.docker/config.json")


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        ("registry.test:5000", "registry.test:5000"),
        ("https://registry.test:5000", "registry.test:5000"),
        ("https://registry.test:5000/v2/", "registry.test:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_entries_are_found_by_host_in_the_spellings_in_use(
    tmp_path: Path, key: str, domain: str
) -> None:
    config = configured(tmp_path, {"auths": {key: {"auth": encoded("alice:s:e:c")}}})
    assert find(domain, config) == ALICE
    assert find("elsewhere.test", config) is None


def test_tokens_and_plain_fields_are_taken(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        {
            "auths": {
                "a.test": {"auth": encoded("u:"), "identitytoken": "idt"},
                "b.test": {"username": "u", "password": "p"},
                "c.test": {"registrytoken": "rt"},
                "d.test": {},
            }
        },
    )
    assert find("a.test", config) == Credentials(username="u", identity_token="idt")
    assert find("b.test", config) == Credentials(username="u", password="p")
    assert find("c.test", config) == Credentials(registry_token="rt")
    assert find("d.test", config) is None


def test_given_credentials_come_first(tmp_path: Path) -> None:
    config = RegistryConfig(docker_config=tmp_path, credentials={"a.test": ALICE})
    assert find("a.test", config) == ALICE


@pytest.mark.parametrize("content", ["{", "[]", '{"auths": [1]}'])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(HelperError, match=r"config\.json"):
        find("a.test", RegistryConfig(docker_config=tmp_path))


def test_storing_keeps_what_others_wrote_and_shows_it_to_nobody(tmp_path: Path) -> None:
    config = configured(tmp_path, {"psFormat": "x", "auths": {"other.test": {"auth": "eA=="}}})
    (tmp_path / "config.json").chmod(0o644)
    place = asyncio.run(store_credentials("registry.test", ALICE, config))
    assert place == str(tmp_path / "config.json")
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["psFormat"] == "x"
    assert document["auths"]["other.test"] == {"auth": "eA=="}
    assert document["auths"]["registry.test"] == {"auth": encoded("alice:s:e:c")}
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o600
    assert find("registry.test", config) == ALICE
    assert [entry.name for entry in os.scandir(tmp_path)] == ["config.json"]


def test_a_file_that_is_a_link_stays_one(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").symlink_to(real)
    config = RegistryConfig(docker_config=tmp_path / "docker")
    asyncio.run(store_credentials("registry.test", ALICE, config))
    assert (tmp_path / "docker" / "config.json").is_symlink()
    assert "registry.test" in json.loads(real.read_text())["auths"]


def test_concurrent_logins_lose_nothing(tmp_path: Path) -> None:
    config = RegistryConfig(docker_config=tmp_path / "docker")
    threads = [
        threading.Thread(
            target=lambda n=n: asyncio.run(store_credentials(f"r{n}.test", ALICE, config))
        )
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    document = json.loads((tmp_path / "docker" / "config.json").read_text())
    assert set(document["auths"]) == {f"r{n}.test" for n in range(12)}


def test_logging_out_takes_every_spelling_of_the_server_away(tmp_path: Path) -> None:
    entries = {"a.test": {}, "https://a.test": {}, "b.test": {"auth": "eA=="}}
    config = configured(tmp_path, {"auths": entries, "HttpHeaders": {"X": "y"}})
    assert asyncio.run(erase_credentials("a.test", config)) is True
    assert asyncio.run(erase_credentials("a.test", config)) is False
    document = json.loads((tmp_path / "config.json").read_text())
    assert document == {"auths": {"b.test": {"auth": "eA=="}}, "HttpHeaders": {"X": "y"}}


def test_a_helper_keeps_and_gives_and_forgets(tmp_path: Path) -> None:
    helper(tmp_path, "box", KEEPER)
    path = f"{tmp_path}:/usr/bin:/bin"
    config = configured(tmp_path / "docker", {"credsStore": "box"}, PATH=path)
    assert find("a.test", config) is None
    assert asyncio.run(store_credentials("a.test", ALICE, config)) == "the credential helper box"
    document = json.loads((tmp_path / "docker" / "config.json").read_text())
    assert document["auths"] == {"a.test": {}}, "the password must not be in the file"
    assert find("a.test", config) == ALICE
    assert find("b.test", config) is None
    assert asyncio.run(erase_credentials("a.test", config)) is True
    assert find("a.test", config) is None


def test_a_helper_for_one_registry_comes_before_the_store(tmp_path: Path) -> None:
    helper(tmp_path, "one", 'echo \'{"Username":"<token>","Secret":"tt"}\'')
    helper(tmp_path, "all", 'echo \'{"Username":"u","Secret":"p"}\'')
    config = configured(
        tmp_path / "docker",
        {"credsStore": "all", "credHelpers": {"a.test": "one"}},
        PATH=f"{tmp_path}:/usr/bin:/bin",
    )
    assert find("a.test", config) == Credentials(identity_token="tt")
    assert find("b.test", config) == Credentials(username="u", password="p")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "not installed"),
        ("../../evil", "not the name"),
        ("bad", "broken"),
        ("odd", "answer"),
    ],
)
def test_a_helper_that_cannot_be_used_is_named(tmp_path: Path, name: str, message: str) -> None:
    helper(tmp_path, "bad", "echo it is broken; exit 1")
    helper(tmp_path, "odd", "echo nonsense")
    config = configured(tmp_path / "docker", {"credsStore": name}, PATH=f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(HelperError, match=message):
        find("a.test", config)


def test_credentials_do_not_show_in_logs() -> None:
    assert "s:e:c" not in repr(ALICE)
