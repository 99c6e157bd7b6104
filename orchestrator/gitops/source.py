"""A GitSource: which repository, which commit of it, and how its stacks come to run here.

The file has Flux's shape (`apiVersion`, `kind`, `metadata.name`, `spec`) and Flux's and Argo's
words. Unknown keys are refused. Everything secret stands in a file that the source only names,
so that the source itself can be shown and stored.
"""

from __future__ import annotations

import hashlib
import os.path
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from orchestrator.gitops import addresses, semver
from specs import binding
from specs.errors import SpecError, SpecIssue
from specs.parsing import parse
from specs.reader import Files, LoadOptions
from specs.schema import suggest
from specs.source import Node, issue
from specs.source import Path as NodePath
from specs.values import Bytes, Flag, Nanoseconds, OptionalTextMap, Text, Texts, Unsigned

API_VERSION = "bayplan/v1"
KIND = "GitSource"
SECOND = 10**9

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# git-check-ref-format(1), narrowed to what can stand on a command line without a thought.
_REF = re.compile(r"(?!-)(?!/)(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)|/\.|/$|\.$))[\w./+@=#%-]+")


class Part(BaseModel):
    """A frozen part of a source; its keys are written in camel case."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, alias_generator=to_camel
    )


class Ref(Part):
    """What to follow: one of these, or the repository's default branch."""

    branch: str = ""
    tag: str = ""
    commit: str = ""
    semver: str = ""

    @model_validator(mode="after")
    def _one_of_them(self) -> Ref:
        given = [key for key in ("branch", "tag", "commit", "semver") if getattr(self, key)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        for key in ("branch", "tag"):
            text = getattr(self, key)
            if text and not _REF.fullmatch(text):
                raise ValueError(f"{text!r} is not the name of a {key}")
        if self.commit and not _COMMIT.fullmatch(self.commit):
            raise ValueError(f"{self.commit!r} is not a commit's full name (40 or 64 hex digits)")
        if self.semver:
            semver.check_range(self.semver)
        return self

    def __str__(self) -> str:
        for key in ("branch", "tag", "commit", "semver"):
            if text := getattr(self, key):
                return f"{key} {text}"
        return "the default branch"


class Credentials(Part):
    """How to prove who asks; every value is a path."""

    ssh_key_file: str = ""
    known_hosts_file: str = ""
    username: Text = ""
    password_file: str = ""
    ca_file: str = ""


class Verify(Part):
    """Which signatures a commit needs: on the commit, on the tag that was followed, or both."""

    mode: Literal["HEAD", "Tag", "TagAndHEAD"] = "HEAD"
    allowed_signers_file: str = ""
    gpg_keyring_file: str = ""

    @model_validator(mode="after")
    def _by_something(self) -> Verify:
        if not (self.allowed_signers_file or self.gpg_keyring_file):
            raise ValueError("needs an allowedSignersFile or a gpgKeyringFile")
        return self


class Decryption(Part):
    """Where the age identities are that open the repository's encrypted files."""

    identity_file: str


class HealthGate(Part):
    """Whether a revision counts as applied only when its services are healthy, and by when."""

    enabled: Flag = True
    timeout: Nanoseconds = Field(default=300 * SECOND, gt=0)


class Retry(Part):
    """How transport errors are tried again: `limit` times, `backoff` doubled up to the maximum."""

    limit: Unsigned = 5
    backoff: Nanoseconds = Field(default=2 * SECOND, gt=0)
    max_backoff: Nanoseconds = Field(default=300 * SECOND, gt=0)


class Webhook(Part):
    """Deliveries are accepted when they prove that they know the secret."""

    secret_file: str
    provider: Literal["auto", "github", "gitlab", "gitea"] = "auto"


class Limits(Part):
    """`size` bytes of objects and of a checkout, `files` in a checkout, `text` bytes of all specs,
    env files and values together, with what templates render."""

    size: Bytes = Field(default=2**30, gt=0)
    files: Unsigned = Field(default=100_000, gt=0)
    text: Bytes = Field(default=2 * 2**20, gt=0)


EventKind = Literal["applied", "failed", "rolled-back", "drift", "suspended", "resumed", "planned"]


class Notify(Part):
    """Who is told: an address that gets JSON, Slack's form, or a command of this host.

    Addresses that hold a secret, as Slack's do, stand in `url_file`.
    """

    type: Literal["webhook", "slack", "command"]
    url: str = ""
    url_file: str = ""
    secret_file: str = ""
    command: Texts = ()
    events: tuple[EventKind, ...] = ("applied", "failed", "rolled-back", "planned")
    timeout: Nanoseconds = Field(default=10 * SECOND, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> Notify:
        if self.type == "command":
            if not self.command or self.url or self.url_file or self.secret_file:
                raise ValueError("type: command takes a command, and no address")
            if not self.command[0].startswith("/"):
                raise ValueError(f"{self.command[0]!r} is not the absolute path of a program")
            return self
        if self.command or bool(self.url) == bool(self.url_file):
            raise ValueError(f"type: {self.type} takes a url or a urlFile")
        if self.type == "slack" and self.url:
            raise ValueError("a Slack address is a secret: put it in a file and name urlFile")
        if self.secret_file and self.type != "webhook":
            raise ValueError("only type: webhook is signed with a secretFile")
        if self.url:
            addresses.check_http(self.url)
        return self


class GitSource(Part):
    """One source. Durations are nanoseconds, sizes bytes; every path of this host is absolute.

    `paths` are stack files or directories in the repository, each one project. `values_files`
    are in the repository unless absolute. `environment` is all that interpolation sees; a name
    without a value is taken from the daemon's environment. `host_paths` are directories of this
    host from which the stacks may read files. `keep` counts the checkouts kept for going back.
    """

    name: str
    url: str
    ref: Ref = Field(default_factory=Ref)
    force_push: Literal["follow", "refuse"] = "follow"
    paths: Annotated[Texts, Field(min_length=1)] = (".",)
    values_files: Texts = ()
    profiles: Texts = ()
    environment: OptionalTextMap = {}
    host_paths: Texts = ()
    interval: Nanoseconds = Field(default=60 * SECOND, ge=SECOND)
    timeout: Nanoseconds = Field(default=60 * SECOND, gt=0)
    retry: Retry = Field(default_factory=Retry)
    credentials: Credentials = Field(default_factory=Credentials)
    verify: Verify | None = None
    decryption: Decryption | None = None
    prune: Flag = True
    allow_empty: Flag = False
    health_gate: HealthGate = Field(default_factory=HealthGate)
    depends_on: Texts = ()
    suspend: Flag = False
    dry_run: Flag = False
    webhook: Webhook | None = None
    notify: tuple[Notify, ...] = ()
    limits: Limits = Field(default_factory=Limits)
    keep: Unsigned = Field(default=10, gt=0, le=20)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name: lower-case letters, digits, - . _")
        return name

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return addresses.check_git(url)

    @field_validator("paths", "values_files")
    @classmethod
    def _check_inside(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        cleaned = tuple(os.path.normpath(path) for path in paths)
        for path, given in zip(cleaned, paths, strict=True):
            if not given or path.split("/")[0] == "..":
                raise ValueError(f"{given!r} leads out of the repository")
        return cleaned

    @model_validator(mode="after")
    def _fits_together(self) -> GitSource:
        if any(path.startswith("/") for path in self.paths):
            raise ValueError("paths are relative to the repository")
        if self.name in self.depends_on:
            raise ValueError("depends on itself")
        verify = self.verify
        if verify is not None and verify.mode != "HEAD" and not (self.ref.tag or self.ref.semver):
            raise ValueError(f"verify mode {verify.mode} needs a ref with a tag or semver")
        return self

    def canonical(self) -> dict[str, Any]:
        """The source as plain JSON that `from_canonical` takes; it holds no secret."""
        body = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        name = body.pop("name")
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": body}

    @classmethod
    def from_canonical(cls, document: Mapping[str, Any]) -> GitSource:
        """The source that `canonical()` made `document` of. Raises SpecError."""
        try:
            return cls.model_validate({**document["spec"], "name": document["metadata"]["name"]})
        except (ValidationError, KeyError, TypeError) as exc:
            message = "this is not a source as it is stored"
            raise SpecError([SpecIssue(message=message)]) from exc

    def digest(self) -> str:
        """What identifies this form of the source: a change makes a failed revision worth a try."""
        from specs.canonical import digest

        return digest(self.canonical())


def load_source(path: Path) -> GitSource:
    """Read a source's file; relative paths in it are relative to the file.

    Raises SpecError with everything that is wrong, each with its place.
    """
    files = Files(LoadOptions(environ={}, cwd=Path.cwd()))
    text = files.source(str(path.absolute()))
    if text is None:
        raise SpecError([SpecIssue(message="no such file", file=str(path))])
    documents = [document for document in parse(text) if document.root is not None]
    if len(documents) != 1 or documents[0].root is None:
        message = "a source's file holds one document" if documents else "the file is empty"
        raise SpecError([SpecIssue(message=message, file=text.name)])
    root = documents[0].root
    body = _body(root)
    _make_absolute(body, path.absolute().parent)
    try:
        return GitSource.model_validate(body.plain())
    except ValidationError as exc:
        raise SpecError(binding.validation_issues(exc, body, known=_known_keys)) from exc


_ENVELOPE = ("apiVersion", "kind", "metadata", "spec")


def _body(root: Node) -> Node:
    """The source's own keys, of a document of the right kind."""
    if type(root.value) is not dict:
        raise SpecError([issue(f"a {KIND} is a mapping", node=root)])
    found = []
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        node = root.value.get(key)
        if node is None or node.value != wanted:
            found.append(issue(f"must be {wanted}", node=node or root, path=(key,)))
    for key, node in root.value.items():
        if key not in _ENVELOPE:
            own = key in _keys_of(GitSource)
            hint = "it belongs below spec:" if own else suggest(key, _ENVELOPE)
            found.append(
                issue(f'unknown key "{key}"', mark=node.key_mark, node=node, path=(key,), hint=hint)
            )
    spec, metadata = root.value.get("spec"), root.value.get("metadata")
    name = None
    if metadata is None or type(metadata.value) is not dict or "name" not in metadata.value:
        found.append(issue("needs a name", node=metadata or root, path=("metadata",)))
    else:
        name = metadata.value["name"]
        for key, node in metadata.value.items():
            if key != "name":
                path = ("metadata", key)
                found.append(issue(f'unknown key "{key}"', mark=node.key_mark, path=path))
    if spec is None or type(spec.value) is not dict:
        found.append(issue("must be a mapping", node=spec or root, path=("spec",)))
    if found:
        raise SpecError(found)
    assert spec is not None and name is not None, "what is missing has been reported"
    if "name" in spec.value:
        node = spec.value["name"]
        message = "the name stands in metadata"
        raise SpecError([issue(message, mark=node.key_mark, path=("spec", "name"))])
    body: Node = spec.at({**spec.value, "name": name})
    return body


_FILES = (
    ("credentials", "sshKeyFile"),
    ("credentials", "knownHostsFile"),
    ("credentials", "passwordFile"),
    ("credentials", "caFile"),
    ("verify", "allowedSignersFile"),
    ("verify", "gpgKeyringFile"),
    ("decryption", "identityFile"),
    ("webhook", "secretFile"),
)


def _make_absolute(body: Node, directory: Path) -> None:
    def fix(owner: Node | None, key: str) -> None:
        node = owner.value.get(key) if owner is not None and type(owner.value) is dict else None
        if node is not None and type(node.value) is str and node.value:
            node.value = os.path.normpath(directory / node.value)

    for part, key in _FILES:
        fix(body.value.get(part), key)
    notify = body.value.get("notify")
    for entry in notify.value if notify is not None and type(notify.value) is list else ():
        fix(entry, "urlFile")
        fix(entry, "secretFile")
    url = body.value.get("url")
    if url is not None and type(url.value) is str and url.value.startswith((".", "/")):
        url.value = os.path.normpath(directory / url.value)
    host = body.value.get("hostPaths")
    for entry in host.value if host is not None and type(host.value) is list else ():
        if type(entry.value) is str:
            entry.value = os.path.normpath(directory / entry.value)


def _keys_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


_PARTS: Mapping[str, type[Part]] = {
    "ref": Ref,
    "credentials": Credentials,
    "verify": Verify,
    "decryption": Decryption,
    "healthGate": HealthGate,
    "retry": Retry,
    "webhook": Webhook,
    "limits": Limits,
    "notify": Notify,
}


def _known_keys(path: NodePath) -> list[str]:
    """The keys that could stand where the last step of `path` is unknown."""
    return _keys_of(_PARTS.get(str(path[0]), GitSource) if len(path) > 1 else GitSource)


def identifier(source: GitSource) -> str:
    """A short word for the source's repository, which changes when its mirror is of no use."""
    return hashlib.sha256(source.url.encode()).hexdigest()[:12]
