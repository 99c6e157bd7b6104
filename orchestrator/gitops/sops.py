"""SOPS files: every value encrypted on its own, in YAML, JSON, dotenv or binary form.

The data key is encrypted to age recipients; each value is AES-256-GCM with its path as the
additional data; a MAC over all values, in their order, is checked before anything is given out.
Source: the SOPS project's README ("Important information on types", "MAC", "File format") and
its aes, stores and tree packages. Files of other key services, of several key groups and with
rules on comments are refused, as what they say cannot be checked here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from orchestrator.gitops.errors import DecryptionFailed

_VALUE = re.compile(r"ENC\[AES256_GCM,data:([^,]*),iv:([^,]+),tag:([^,]+),type:(\w+)\]")
_PREFIX = "sops_"
# So that a MAC over encrypted values alone never equals one over all.
_ONLY_ENCRYPTED = bytes.fromhex("8a3fd2ad54ce66527b1034f3d147be0b0b975b3bf44f72c6fdadec8176f27d69")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_FOREIGN = ("kms", "gcp_kms", "azure_kv", "hc_vault", "pgp", "hckms")

Opener = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """A SOPS file: its values, its metadata, and its form (yaml, json, dotenv, binary)."""

    tree: Any
    metadata: Mapping[str, Any]
    form: str


def is_sops(path: str, content: bytes) -> bool:
    """Whether `content` has SOPS' metadata."""
    if b"ENC[AES256_GCM," not in content:
        return False
    if path.endswith((".env", ".dotenv")) or b"\nsops_mac=" in content:
        return b"sops_mac=" in content
    return re.search(rb"(?m)^\s*[\"']?sops[\"']?\s*:", content) is not None


def decrypt(path: str, content: bytes, open_key: Opener, key: str = "") -> bytes:
    """The plain file, or the one value at `key`. `open_key` opens an age file.

    Raises DecryptionFailed; nothing is given out of a file whose MAC is wrong.
    """
    document = _read(path, content)
    metadata = document.metadata
    _check_metadata(path, metadata)
    data_key = _data_key(path, metadata, open_key)
    opened = _Opened(path, metadata, data_key)
    try:
        plain = opened.walk(document.tree, ())
    except RecursionError as exc:
        raise DecryptionFailed(path, "it is nested too deeply") from exc
    opened.check_mac()
    if key:
        return _text(_part(path, plain, key)).encode()
    return _emit(path, document, plain)


class _Opened:
    """Goes through a tree, opens its values and adds up their MAC."""

    def __init__(self, path: str, metadata: Mapping[str, Any], key: bytes) -> None:
        self.path = path
        self.metadata = metadata
        self.key = key
        self.only_encrypted = _flag(metadata.get("mac_only_encrypted"))
        self.sum = hashlib.sha512(_ONLY_ENCRYPTED if self.only_encrypted else b"")

    def walk(self, value: Any, steps: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return {key: self.walk(child, (*steps, key)) for key, child in value.items()}
        if isinstance(value, list):
            return [self.walk(child, steps) for child in value]
        if value is None:
            return None
        encrypted = self._is_encrypted(steps)
        if encrypted:
            if not isinstance(value, str):
                raise self.fail(f"{'.'.join(steps)} is not encrypted, and should be")
            value = self.open(value, ":".join(steps) + ":")
        if encrypted or not self.only_encrypted:
            self.sum.update(_bytes(value))
        return value

    def _is_encrypted(self, steps: tuple[str, ...]) -> bool:
        get = self.metadata.get
        if suffix := get("encrypted_suffix"):
            return any(step.endswith(suffix) for step in steps)
        if pattern := get("encrypted_regex"):
            return any(self._matches(pattern, step) for step in steps)
        if pattern := get("unencrypted_regex"):
            return not any(self._matches(pattern, step) for step in steps)
        suffix = get("unencrypted_suffix") or "_unencrypted"
        return not any(step.endswith(suffix) for step in steps)

    def _matches(self, pattern: str, step: str) -> bool:
        try:
            return re.search(pattern, step) is not None
        except re.error as exc:
            raise self.fail(f"its metadata has a pattern that is none: {pattern!r}") from exc

    def open(self, text: str, additional: str) -> Any:
        """The value in an `ENC[…]` text."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if text == "":
            return ""
        match = _VALUE.fullmatch(text)
        if match is None:
            raise self.fail(f"{additional.rstrip(':')} is not encrypted, and should be")
        try:
            data, nonce, tag = (base64.b64decode(match[n], validate=True) for n in (1, 2, 3))
            plain = AESGCM(self.key).decrypt(nonce, data + tag, additional.encode())
        except (InvalidTag, binascii.Error, ValueError) as exc:
            raise self.fail(f"{additional.rstrip(':')} was changed, or moved") from exc
        return self._typed(plain, match[4])

    def _typed(self, plain: bytes, kind: str) -> Any:
        try:
            if kind == "bytes":
                return plain
            text = plain.decode()
            if kind in ("str", "comment"):
                return text
            if kind in ("int", "int64"):
                return int(text)
            if kind == "float":
                return float(text)
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
        except (ValueError, KeyError) as exc:
            raise self.fail(f"a value is not of its type, {kind}") from exc
        raise self.fail(f"a value is of an unknown type, {kind}")

    def check_mac(self) -> None:
        """Raises DecryptionFailed unless the values are all, and only, those of the MAC."""
        metadata = self.metadata
        mac, when = metadata.get("mac"), metadata.get("lastmodified")
        if not isinstance(mac, str) or not isinstance(when, str) or not mac:
            raise self.fail("it has no MAC")
        try:
            wanted = self.open(mac, when)
        except DecryptionFailed as exc:
            raise self.fail("its MAC cannot be opened: the file was changed") from exc
        if not hmac.compare_digest(str(wanted).upper(), self.sum.hexdigest().upper()):
            raise self.fail("its MAC does not match: the file was changed after it was encrypted")

    def fail(self, message: str) -> DecryptionFailed:
        return DecryptionFailed(self.path, message)


def _check_metadata(path: str, metadata: Mapping[str, Any]) -> None:
    rules = ("encrypted_suffix", "encrypted_regex", "unencrypted_suffix", "unencrypted_regex")
    given = [metadata[rule] for rule in rules if metadata.get(rule)]
    if len(given) > 1 or not all(isinstance(rule, str) for rule in given):
        raise DecryptionFailed(path, "its metadata has rules that exclude each other")
    if metadata.get("key_groups") or str(metadata.get("shamir_threshold") or 0) not in ("0", "1"):
        raise DecryptionFailed(path, "it needs several key groups, and age keys alone are known")
    for rule in ("unencrypted_comment_regex", "encrypted_comment_regex"):
        if metadata.get(rule):
            raise DecryptionFailed(path, f"its {rule} is not supported")
    if not isinstance(metadata.get("age") or [], list):
        raise DecryptionFailed(path, "its metadata is not SOPS'")
    if not metadata.get("age"):
        others = [name for name in _FOREIGN if metadata.get(name)]
        with_others = f" but to {', '.join(others)}" if others else ""
        raise DecryptionFailed(path, f"it is not encrypted to an age recipient{with_others}")


def _data_key(path: str, metadata: Mapping[str, Any], open_key: Opener) -> bytes:
    failure: DecryptionFailed | None = None
    for recipient in metadata["age"]:
        text = recipient.get("enc") if isinstance(recipient, dict) else None
        if not isinstance(text, str):
            raise DecryptionFailed(path, "its metadata names an age recipient without a key")
        try:
            key = open_key(text.encode())
        except DecryptionFailed as exc:
            failure = exc
            continue
        if len(key) != 32:
            raise DecryptionFailed(path, "its data key is not of 32 bytes")
        return key
    raise failure or DecryptionFailed(path, "it is not encrypted to an age recipient")


# Reading and writing the forms.


def _read(path: str, content: bytes) -> _Document:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise DecryptionFailed(path, "it is not text") from exc
    if path.endswith((".env", ".dotenv")) or re.search(r"(?m)^sops_mac=", text):
        return _read_dotenv(path, text)
    stripped = text.lstrip()
    try:
        tree = json.loads(text) if stripped.startswith("{") else _read_yaml(path, text)
    except (ValueError, RecursionError) as exc:
        raise DecryptionFailed(path, "it is neither JSON, YAML nor dotenv") from exc
    if not isinstance(tree, dict) or not isinstance(tree.get("sops"), dict):
        raise DecryptionFailed(path, "it has no SOPS metadata")
    metadata = tree.pop("sops")
    form = "json" if stripped.startswith("{") else "yaml"
    if form == "json" and set(tree) == {"data"} and not path.endswith(".json"):
        form = "binary"
    return _Document(tree=tree, metadata=metadata, form=form)


def _read_yaml(path: str, text: str) -> Any:
    from specs.errors import SpecError
    from specs.parsing import parse
    from specs.source import Source

    try:
        documents = [document.root for document in parse(Source(path, text)) if document.root]
    except SpecError as exc:
        # A message about YAML shows the line, and here a line may be a secret's.
        line = exc.issues[0].line
        raise DecryptionFailed(path, f"it is not YAML (line {line})") from None
    if len(documents) != 1:
        raise DecryptionFailed(path, f"it holds {len(documents)} documents, and one is supported")
    return documents[0].plain()


def _read_dotenv(path: str, text: str) -> _Document:
    tree: dict[str, Any] = {}
    flat: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator:
            raise DecryptionFailed(path, f"line {number} is not of the form KEY=value")
        value = value.replace("\\n", "\n")
        if name.startswith(_PREFIX):
            flat[name.removeprefix(_PREFIX)] = value
        elif name in tree:
            raise DecryptionFailed(path, f"line {number} sets {name} again")
        else:
            tree[name] = value
    return _Document(tree=tree, metadata=_unflatten(flat), form="dotenv")


def _unflatten(flat: Mapping[str, str]) -> dict[str, Any]:
    """`age__list_0__map_enc` as `{"age": [{"enc": …}]}`."""
    metadata: dict[str, Any] = {}
    lists: dict[str, dict[int, dict[str, Any]]] = {}
    for name, value in flat.items():
        match = re.fullmatch(r"(\w+?)__list_(\d+)__map_(\w+)", name)
        if match is None:
            metadata[name] = value
        else:
            lists.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = value
    for name, items in lists.items():
        metadata[name] = [items[index] for index in sorted(items)]
    return metadata


def _emit(path: str, document: _Document, plain: Any) -> bytes:
    if document.form == "binary":
        return _bytes(plain["data"])
    if document.form == "dotenv":
        lines = (f"{name}={_text(value)}".replace("\n", "\\n") for name, value in plain.items())
        return "".join(f"{line}\n" for line in lines).encode()
    if document.form == "json":
        return (json.dumps(plain, indent="\t", ensure_ascii=False, default=_text) + "\n").encode()
    import yaml

    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=10**6).encode()


def _part(path: str, plain: Any, key: str) -> Any:
    value = plain
    for step in _steps(path, key):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError) as exc:
            raise DecryptionFailed(path, f"it has no {key!r}") from exc
    if isinstance(value, dict | list):
        raise DecryptionFailed(path, f"{key!r} is not a single value")
    return value


def _steps(path: str, key: str) -> Iterator[str | int]:
    if "".join(match[0] for match in _STEP.finditer(key)) != key.replace(".", ""):
        raise DecryptionFailed(path, f"{key!r} is not a key such as database.password")
    for match in _STEP.finditer(key):
        yield match[1] if match[1] is not None else int(match[2])


def _flag(value: Any) -> bool:
    return value is True or str(value).lower() == "true"


def _text(value: Any) -> str:
    return _bytes(value).decode("utf-8", "surrogateescape")


def _bytes(value: Any) -> bytes:
    """A value as SOPS hashes it: Go's notation of numbers, Python's of booleans."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"True" if value else b"False"
    if isinstance(value, float):
        text = format(Decimal(repr(value)), "f")
        return (text.rstrip("0").rstrip(".") if "." in text else text).encode()
    return str(value).encode("utf-8", "surrogateescape") if value is not None else b""
