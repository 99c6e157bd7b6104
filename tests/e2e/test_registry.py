"""Logging in and out, pushing and pulling, at a registry of one's own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_BUSYBOX = Path("/bin/busybox")
_INLINE = 'FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox", "echo", "here"]\n'


@contextlib.contextmanager
def serving(bay: Bay, storage: Path, *options: str) -> Iterator[str]:
    """A registry that runs; gives its address."""
    where = ("--storage", str(storage), "--listen", "127.0.0.1:0")
    with bay.started("registry", "serve", *where, *options) as registry:
        assert registry.stdout is not None
        yield registry.stdout.readline().split()[-1]


@pytest.fixture(scope="module")
def closed(bay: Bay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that lets in alice alone."""
    place = tmp_path_factory.mktemp("closed")
    digest = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (place / "htpasswd").write_text(f"alice:{digest}\n")
    with serving(bay, place / "storage", "--htpasswd", str(place / "htpasswd")) as address:
        yield address


@pytest.fixture
def built(bay: Bay, tmp_path: Path) -> Path:
    """A directory to write a stack into whose image can be built from one file."""
    if not _BUSYBOX.exists():
        pytest.skip(f"{_BUSYBOX} is not installed (Debian: busybox-static)")
    shutil.copy(_BUSYBOX, tmp_path / "busybox")
    return tmp_path


def write(directory: Path, image: str) -> None:
    build = {"context": ".", "dockerfile_inline": _INLINE}
    stack = {"services": {"web": {"image": image, "build": build}}}
    (directory / "compose.yaml").write_text(json.dumps(stack))


def test_who_is_logged_in_may_push_and_pull_and_nobody_else(
    bay: Bay, closed: str, built: Path
) -> None:
    image = f"{closed}/web:1"
    mine = {"DOCKER_CONFIG": str(built / "docker")}
    write(built, image)
    bay.ok("build", "-q", cwd=built)

    refused = bay("push", cwd=built, env=mine)
    assert refused.status == 1 and "bay login" in refused.err + refused.out, str(refused)
    login = ("login", "-u", "alice", "--password-stdin", closed)
    wrong = bay(*login, stdin="guessed\n", env=mine)
    assert wrong.status == 1 and "check the user name and the password" in wrong.err
    assert not (built / "docker" / "config.json").exists()

    done = bay(*login, stdin="secret\n", env=mine)
    assert done.status == 0 and "succeeded" in done.err, str(done)
    kept = built / "docker" / "config.json"
    assert closed in json.loads(kept.read_text())["auths"]
    assert kept.stat().st_mode & 0o077 == 0
    bay.ok("push", cwd=built, env=mine)
    bay.ok("image", "rm", image)
    bay.ok("pull", "web", "--policy", "always", cwd=built, env=mine)

    bay.ok("logout", closed, env=mine)
    assert json.loads(kept.read_text()).get("auths", {}) == {}
    assert bay("push", cwd=built, env=mine).status == 1
    bay.ok("image", "rm", image)


def test_up_shows_how_a_pull_goes_unless_it_is_to_be_quiet(bay: Bay, built: Path) -> None:
    with serving(bay, built / "storage") as address:
        image = f"{address}/web:1"
        write(built, image)
        bay.ok("build", "-q", "--push", cwd=built)
        (built / "compose.yaml").write_text(f"services:\n  web: {{image: '{image}'}}\n")

        for options, shown in (((), True), (("--quiet-pull",), False)):
            bay.ok("image", "rm", image)
            done = bay("up", "-d", "-y", *options, cwd=built)
            assert done.status == 0, str(done)
            progress = [line for line in done.err.splitlines() if "Pulling:" in line]
            assert bool(progress) is shown, done.err
            assert all(f"Image {image}" in line and " / " in line for line in progress)
            bay.ok("down", "-t", "0", "--rmi", "all" if shown else "local", cwd=built)
            if shown:
                bay.ok("image", "pull", image)
        bay.ok("image", "rm", image)


def test_the_platform_that_is_asked_for_is_pulled_or_nothing(bay: Bay, built: Path) -> None:
    with serving(bay, built / "storage") as address:
        image = f"{address}/web:1"
        write(built, image)
        bay.ok("build", "-q", "--push", cwd=built)
        bay.ok("image", "rm", image)
        elsewhere = {"DOCKER_DEFAULT_PLATFORM": "linux/s390x"}
        for options, environ in (((), elsewhere), (("--platform", "linux/s390x"), {})):
            done = bay("image", "pull", *options, image, env=environ)
            assert done.status == 1 and "linux/s390x" in done.err, str(done)
        bay.ok("image", "pull", "--platform", f"linux/{machine()}", image, env=elsewhere)
        bay.ok("image", "rm", image)


def machine() -> str:
    """This machine as OCI names it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


# Alice may do everything below team/, everybody may pull team/public.
TOKEN_SERVICE = r"""
import base64, hashlib, hmac, http.server, json, sys, time, urllib.parse

kind, path = sys.argv[1:]

def text(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=")

def sign(signed):
    if kind == "secret":
        return hmac.new(open(path, "rb").read(), signed, hashlib.sha256).digest()
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    key = load_pem_private_key(open(path, "rb").read(), None)
    halves = decode_dss_signature(key.sign(signed, ECDSA(SHA256())))
    return b"".join(half.to_bytes(32, "big") for half in halves)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        given = self.headers.get("Authorization", "")
        known = given == "Basic " + base64.b64encode(b"alice:secret").decode()
        if given and not known:
            self.send_error(401)
            return
        access = []
        for scope in query.get("scope", ()):
            what, name, actions = scope.split(":")
            allowed = {"pull"} if name == "team/public" else set()
            if known and name.startswith("team/"):
                allowed = {"pull", "push", "delete"}
            granted = sorted(allowed & set(actions.split(",")))
            access.append({"type": what, "name": name, "actions": granted})
        claims = {"iss": "us", "aud": query["service"][0], "exp": time.time() + 300,
                  "access": access}
        header = {"alg": "HS256" if kind == "secret" else "ES256"}
        signed = b".".join(text(json.dumps(part).encode()) for part in (header, claims))
        token = (signed + b"." + text(sign(signed))).decode()
        body = json.dumps({"token": token}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(params=["secret", "certs"])
def guarded(bay: Bay, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a registry that takes the tokens of a service."""
    if request.param == "secret":
        place = private = tmp_path / "secret"
        place.write_text("a secret of both")
    else:
        place, private = tmp_path / "certificate", tmp_path / "key"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        files = ("-keyout", str(private), "-out", str(place), "-subj", "/CN=tokens")
        subprocess.run(
            [needed("openssl"), "req", "-x509", *curve, *files], check=True, capture_output=True
        )
    command = [sys.executable, "-I", "-c", TOKEN_SERVICE, request.param, str(private)]
    with subprocess.Popen(bay.host.inside(*command), stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            realm = f"http://127.0.0.1:{service.stdout.readline().strip()}/token"
            options = ("--token-realm", realm, "--token-service", "here", "--token-issuer", "us")
            key = (f"--token-{request.param}", str(place))
            with serving(bay, tmp_path / "storage", *options, *key) as address:
                yield address
        finally:
            service.kill()


def needed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def beside(bay: Bay, *command: str) -> subprocess.CompletedProcess[str]:
    """Run somebody else's program where the instance is."""
    return subprocess.run(
        bay.host.inside(needed(command[0]), *command[1:]),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def taken(bay: Bay, image: str, layout: Path) -> None:
    """Have skopeo copy an image into a layout."""
    plain = ("--src-tls-verify=false", f"docker://{image}", f"oci:{layout}:x")
    copied = beside(bay, "skopeo", "--insecure-policy", "copy", *plain)
    assert copied.returncode == 0, copied.stderr


def test_a_token_service_says_who_may_do_what(bay: Bay, guarded: str, built: Path) -> None:
    image = f"{guarded}/team/public:1"
    mine, nobody = ({"DOCKER_CONFIG": str(built / name)} for name in ("mine", "nobody"))
    write(built, image)
    bay.ok("build", "-q", cwd=built)
    refused = bay("push", cwd=built, env=nobody)
    assert refused.status == 1 and "bay login" in refused.err + refused.out, str(refused)
    login = ("login", "-u", "alice", "--password-stdin", guarded)
    assert bay(*login, stdin="guessed\n", env=mine).status == 1
    bay.ok(*login, stdin="secret\n", env=mine)
    bay.ok("push", cwd=built, env=mine)
    for name in (f"{guarded}/team/own:1", f"{guarded}/other:1"):
        bay.ok("image", "tag", image, name)
    bay.ok("image", "push", f"{guarded}/team/own:1", env=mine)
    assert bay("image", "push", f"{guarded}/other:1", env=mine).status == 1

    bay.ok("image", "rm", image)
    bay.ok("image", "pull", image, env=nobody)
    assert bay("image", "pull", f"{guarded}/team/own:1", env=nobody).status == 1
    bay.ok("image", "pull", f"{guarded}/team/own:1", env=mine)

    look = ("skopeo", "inspect", "--tls-verify=false")
    own = f"docker://{guarded}/team/own:1"
    assert beside(bay, *look, "--no-creds", own).returncode != 0
    assert beside(bay, *look, "--creds", "alice:guessed", own).returncode != 0
    found = beside(bay, *look, "--creds", "alice:secret", own)
    assert found.returncode == 0, found.stderr
    copied = beside(
        bay, "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false",
        "--dest-tls-verify=false", "--src-no-creds", "--dest-creds", "alice:secret",
        f"docker://{image}", f"docker://{guarded}/team/copy:1",
    )  # fmt: skip
    assert copied.returncode == 0, copied.stderr
    with tempfile.TemporaryDirectory(prefix="podman.", dir="/tmp") as short:
        podman = (
            "podman", f"--root={built}/podman", f"--runroot={short}/run", f"--tmpdir={short}/tmp",
            "--storage-driver=vfs", "pull", "--tls-verify=false",
        )  # fmt: skip
        pulled = beside(bay, *podman, "--creds", "alice:secret", f"{guarded}/team/copy:1")
        assert pulled.returncode == 0, pulled.stderr
        assert beside(bay, *podman, f"{guarded}/team/own:1").returncode != 0
    listed = json.loads(bay.ok("image", "inspect", image))
    assert pulled.stdout.strip() in listed[0]["id"]
    for name in (image, f"{guarded}/team/own:1", f"{guarded}/other:1"):
        bay("image", "rm", name)


def test_options_for_tokens_that_do_not_fit_are_refused(bay: Bay, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    storage = ("--storage", str(tmp_path / "storage"), "--listen", "127.0.0.1:0")
    named = ("--token-realm", "http://x", "--token-service", "s", "--token-issuer", "i")
    empty = str(tmp_path / "empty")
    for options, message in (
        (named[:4], "--token-issuer is missing"),
        (named, "by --token-certs or by --token-secret"),
        ((*named, "--token-secret", empty, "--token-certs", empty), "by --token-certs or by"),
        ((*named, "--token-secret", empty), "tokens cannot be checked"),
        ((*named, "--token-certs", empty), "the certificates for tokens from"),
        ((*named, "--token-secret", str(tmp_path / "absent")), "no such file"),
        (("--tls-cert", empty), "go together"),
        (("--keep-tags", "0"), "a number of 1 or more"),
        (("--keep-tags-for", "soon"), "'soon' is not a duration"),
        (("--keep-untagged-for", "0s"), "more than nothing"),
        (("--listen", "nonsense"), "nonsense"),
    ):
        done = bay("registry", "serve", *storage, *options)
        assert done.status == 1 and message in done.err.lower(), str(done)
        assert "Traceback" not in done.err


def test_a_cache_serves_what_it_has_while_its_registry_is_away(
    bay: Bay, built: Path, tmp_path: Path
) -> None:
    write(built, "cached:1")
    bay.ok("build", "-q", cwd=built)
    source, cache = tmp_path / "source", tmp_path / "cache"
    with serving(bay, source) as remote:
        bay.ok("image", "tag", "cached:1", f"{remote}/app:1")
        bay.ok("image", "push", f"{remote}/app:1")
        with serving(bay, cache, "--proxy", f"http://{remote}") as address:
            image = f"{address}/app:1"
            bay.ok("image", "rm", f"{remote}/app:1")
            bay.ok("image", "rm", "cached:1")
            bay.ok("image", "pull", image)
            taken(bay, image, tmp_path / "taken")  # all of it, whatever our store has already
            refused = bay("image", "push", image)
            assert refused.status == 1 and "takes none" in refused.err + refused.out, str(refused)
    # Only the cache is there now, started anew.
    options = ("--proxy", f"http://{remote}")
    with serving(bay, cache, *options) as address:
        bay.ok("image", "rm", image)
        again = f"{address}/app:1"
        done = bay("image", "pull", again)
        assert done.status == 0, str(done)
        taken(bay, again, tmp_path / "again")
        bay.ok("image", "rm", again)
    for storage in (source, cache):
        assert bay.ok("registry", "check", "--storage", str(storage)) == "no fault found\n"
    blob = max(source.glob("blobs/sha256/*/*"), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"x")
    done = bay("registry", "check", "--storage", str(source))
    assert done.status == 1 and f"blob sha256:{blob.name} is damaged" in done.out
    absent = bay("registry", "check", "--storage", str(tmp_path / "absent"))
    assert absent.status == 1 and not (tmp_path / "absent").exists()
