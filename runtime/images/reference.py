"""Image references: `[domain/]path[:tag][@digest]`.

Source: distribution/reference regexp.go and normalize.go. The familiar form leaves the
default domain, its `library/` and nothing else away.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Self

from runtime.errors import ImageError
from runtime.oci.digest import is_digest

DEFAULT_DOMAIN = "docker.io"
OFFICIAL = "library"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*|\[(?:[a-fA-F0-9:]+)\])"
_DOMAIN = re.compile(rf"{_HOST}(?::[0-9]+)?\Z")
_SEGMENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A parsed reference; `tag` and `digest` are None where the text has none."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse and normalise; raises ImageError that names what is wrong with the text."""
        if not text:
            raise ImageError("an image reference must not be empty")
        if _IDENTIFIER.match(text):
            raise _invalid(text, "64 hexadecimal digits are an image ID, not a name")
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise _invalid(text, "what follows @ is not a digest")
        name, tag = rest, None
        colon = rest.rfind(":")
        if colon > rest.rfind("/"):
            name, tag = rest[:colon], rest[colon + 1 :]
            if not _TAG.match(tag):
                raise _invalid(text, f"{tag!r} is not a tag")
        domain, path = _split(name)
        if not _DOMAIN.match(domain):
            raise _invalid(text, f"{domain!r} is not a registry")
        if not _PATH.match(path):
            hint = "repository names are lower case" if path != path.lower() else None
            raise _invalid(text, f"{path!r} is not a repository name", hint)
        if len(domain) + 1 + len(path) > MAX_NAME:
            raise _invalid(text, f"the name is longer than {MAX_NAME} characters")
        return cls(domain=domain, path=path, tag=tag, digest=digest or None)

    @property
    def name(self) -> str:
        """Domain and path: `docker.io/library/debian`."""
        return f"{self.domain}/{self.path}"

    @property
    def canonical(self) -> str:
        """The full text, with the default tag where neither tag nor digest is given."""
        tag = self.tag or (None if self.digest else DEFAULT_TAG)
        return self.name + (f":{tag}" if tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def tagged(self) -> Self:
        """The same name with a tag (`latest` where none is given) and without digest."""
        return dataclasses.replace(self, tag=self.tag or DEFAULT_TAG, digest=None)

    def familiar(self) -> str:
        """The text that people write: `debian:bookworm`."""
        name = self.name
        if self.domain == DEFAULT_DOMAIN:
            name = self.path.removeprefix(f"{OFFICIAL}/")
        tag = self.tag or (None if self.digest else DEFAULT_TAG)
        return name + (f":{tag}" if tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.familiar()


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = slash and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    if not is_domain:
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index." + DEFAULT_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"{OFFICIAL}/{path}"
    return domain, path


def _invalid(text: str, reason: str, hint: str | None = None) -> ImageError:
    return ImageError(f"invalid image reference {text[:300]!r}: {reason}", hint=hint)
