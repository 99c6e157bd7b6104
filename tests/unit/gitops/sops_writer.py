"""Encrypts as SOPS does, written from its documentation and independent of what decrypts."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import pyrage
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LAST_MODIFIED = "2026-01-02T03:04:05Z"
ONLY_ENCRYPTED = bytes(
    [
        0x8A, 0x3F, 0xD2, 0xAD, 0x54, 0xCE, 0x66, 0x52, 0x7B, 0x10, 0x34, 0xF3, 0xD1, 0x47, 0xBE,
        0x0B, 0x0B, 0x97, 0x5B, 0x3B, 0xF4, 0x4F, 0x72, 0xC6, 0xFD, 0xAD, 0xEC, 0x81, 0x76, 0xF2,
        0x7D, 0x69,
    ]
)  # fmt: skip


class SopsWriter:
    """Encrypts trees to `recipients`; `rules` are the metadata that say which values."""

    def __init__(self, *recipients: pyrage.x25519.Recipient, **rules: Any) -> None:
        self.recipients = recipients
        self.rules = rules
        self.key = os.urandom(32)

    def yaml(self, tree: Mapping[str, Any]) -> bytes:
        return yaml.safe_dump(self.document(tree), sort_keys=False).encode()

    def json(self, tree: Mapping[str, Any]) -> bytes:
        return json.dumps(self.document(tree), indent="\t").encode()

    def binary(self, content: bytes) -> bytes:
        return self.json({"data": content.decode()})

    def dotenv(self, tree: Mapping[str, str]) -> bytes:
        document = self.document(tree)
        metadata = document.pop("sops")
        lines = [f"{key}={value}" for key, value in document.items()]
        for number, item in enumerate(metadata.pop("age")):
            lines += [f"sops_age__list_{number}__map_{key}={item[key]}" for key in item]
        lines += [f"sops_{key}={value}" for key, value in metadata.items()]
        return "".join(line.replace("\n", "\\n") + "\n" for line in lines).encode()

    def document(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        only = bool(self.rules.get("mac_only_encrypted"))
        sum_ = hashlib.sha512(ONLY_ENCRYPTED if only else b"")
        body = {key: self._walk(value, [key], sum_, only) for key, value in tree.items()}
        armoured = [
            {
                "recipient": str(recipient),
                "enc": pyrage.encrypt(self.key, [recipient], armored=True).decode(),
            }
            for recipient in self.recipients
        ]
        metadata = {
            "age": armoured,
            "lastmodified": LAST_MODIFIED,
            "mac": self.encrypt(sum_.hexdigest().upper(), LAST_MODIFIED),
            **self.rules,
            "version": "3.9.4",
        }
        return {**body, "sops": metadata}

    def _walk(self, value: Any, path: list[str], sum_: Any, only: bool) -> Any:
        if isinstance(value, dict):
            return {key: self._walk(item, [*path, key], sum_, only) for key, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item, path, sum_, only) for item in value]
        if value is None:
            return None
        chosen = self._chosen(path)
        if chosen or not only:
            sum_.update(plain(value).encode())
        return self.encrypt(value, ":".join(path) + ":") if chosen else value

    def _chosen(self, path: list[str]) -> bool:
        rules: Mapping[str, Callable[[str], bool]] = {
            "encrypted_suffix": lambda text: any(step.endswith(text) for step in path),
            "unencrypted_suffix": lambda text: not any(step.endswith(text) for step in path),
            "encrypted_regex": lambda text: any(step == text.strip("^$") for step in path),
        }
        for name, rule in rules.items():
            if name in self.rules:
                return rule(self.rules[name])
        return not any(step.endswith("_unencrypted") for step in path)

    def encrypt(self, value: Any, additional: str) -> str:
        if value == "":
            return ""
        nonce = os.urandom(32)
        sealed = AESGCM(self.key).encrypt(nonce, plain(value).encode(), additional.encode())
        parts = (sealed[:-16], nonce, sealed[-16:])
        data, iv, tag = (base64.b64encode(part).decode() for part in parts)
        kind = {bool: "bool", int: "int", float: "float", str: "str"}[type(value)]
        return f"ENC[AES256_GCM,data:{data},iv:{iv},tag:{tag},type:{kind}]"


def plain(value: Any) -> str:
    """A value as it is hashed and encrypted."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
