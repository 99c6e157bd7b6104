"""Files and variables as a load sees them: read once, remembered, and digested.

This is where the package touches the file system. What was consulted comes back as `Inputs`, so
that a caller can tell later, without this package, whether a load would give the same.
"""

from __future__ import annotations

import errno
import hashlib
import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specs import discovery, dotenv, locations, templates
from specs.errors import SpecError, SpecIssue
from specs.parsing import parse
from specs.source import Document, Node, Source, issue

_SIZE_LIMIT = 16 * 2**20
_FILE_LIMIT = 1000


class Allowance:
    """How many bytes of text several loads may read together: YAML takes some hundred times its
    size in memory."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size

    def take(self, size: int, file: str) -> None:
        """Raises SpecError."""
        self._left -= size
        if self._left < 0:
            message = f"the files that make up the stacks have more than {self._size:,} bytes"
            raise SpecError([SpecIssue(message=message, file=file)])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What to load, and what of it.

    `files`, `project_directory`, `env_files` and `value_files` may be relative to `cwd`; `-` in
    `files` is `stdin`. `environ` is the whole of the environment: no other variable is seen.
    `services` also enables the profiles of the services that it names.
    `normalise` adds what a project implies (the default network, names); with `all_resources`
    networks, volumes and other resources stay that no service uses.
    `default_name` is used in place of the directory's name. With `confined_to`, nothing outside of
    these directories and files is read, links followed, and no relative path may leave the first.
    `render` makes the text of templates. `allowance` bounds all text that is read.
    """

    files: tuple[str, ...] = ()
    project_directory: str | None = None
    project_name: str | None = None
    profiles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    environ: Mapping[str, str]
    cwd: Path
    stdin: str | None = None
    value_files: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    interpolate: bool = True
    resolve_paths: bool = True
    resolve_environment: bool = True
    check_consistency: bool = True
    normalise: bool = True
    all_resources: bool = False
    default_name: str = ""
    confined_to: tuple[str, ...] = ()
    render: templates.Render = templates.render
    allowance: Allowance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a load depended on, each as the sha256 in hex of its content, None if absent."""

    files: Mapping[str, str | None]
    variables: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One source of variables: where it is, its values, and the lines that set them."""

    origin: str
    values: Mapping[str, str] = field(repr=False)
    lines: Mapping[str, int]


class Files:
    """Reads files and variables, and remembers what was asked for."""

    def __init__(self, options: LoadOptions) -> None:
        self.options = options
        self.digests: dict[str, str | None] = {}
        self.names: set[str] = set()
        self.sources: dict[str, Source] = {}
        self.parsed: dict[str, list[Document]] = {}
        self.layers: list[Layer] = []
        self.values: Mapping[str, Any] | None = None

    def absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.options.cwd, path))

    def shown(self, path: str) -> str:
        """`path` as a person reads it best: relative when it lies below their directory."""
        prefix = str(self.options.cwd).rstrip("/") + "/"
        return path[len(prefix) :] if len(prefix) > 1 and path.startswith(prefix) else path

    def allows(self, path: str) -> bool:
        """Whether `path` may be read: where a load is confined, it must not lead elsewhere."""
        places = self.options.confined_to
        return not places or locations.is_within(os.path.realpath(path), places)

    def is_file(self, path: str) -> bool:
        if os.path.exists(path) and not os.path.isdir(path):
            return True
        self.digests.setdefault(path, None)
        return False

    def load(self, path: str) -> bytes | None:
        """A file's bytes, None if there is none. Raises OSError."""
        if not self.allows(path):
            raise OSError(errno.EACCES, "it leads out of the repository", path)
        try:
            with open(path, "rb") as file:
                content = file.read(_SIZE_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            self.digests[path] = None
            return None
        if len(content) > _SIZE_LIMIT:
            raise OSError(27, "larger than 16 MiB", path)
        self.digests[path] = hashlib.sha256(content).hexdigest()
        return content

    def source(
        self, path: str, *, asked_at: Node | None = None, attribute: tuple[str | int, ...] = ()
    ) -> Source | None:
        """A text file, None if there is none. Raises SpecError, which tells who asked for it."""
        try:
            content = self.load(path)
            if content is None:
                return None
            self._count(len(content), path)
            return Source(self.shown(path), content.decode("utf-8"))
        except UnicodeDecodeError as exc:
            line = exc.object.count(b"\n", 0, exc.start) + 1
            message = f"byte {exc.object[exc.start]:#04x} is not UTF-8"
            raise SpecError(
                [SpecIssue(message=message, file=self.shown(path), line=line, column=1)]
            ) from exc
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            why = (reason or str(exc)).lower()
            found = SpecIssue(message=f"cannot read the file: {why}", file=self.shown(path))
            if asked_at is not None:
                message = f"cannot read {self.shown(path)}: {why}"
                found = issue(message, node=asked_at, path=attribute)
            raise SpecError([found]) from exc

    def _count(self, size: int, path: str) -> None:
        if self.options.allowance is not None:
            self.options.allowance.take(size, self.shown(path))

    def read_optional(
        self, path: str, *, asked_at: Node, attribute: tuple[str | int, ...]
    ) -> Source | None:
        return self.source(self.absolute(path), asked_at=asked_at, attribute=attribute)

    def read(
        self, path: str, *, asked_at: Node | None = None, attribute: tuple[str | int, ...] = ()
    ) -> Source:
        if path in self.sources:
            return self.sources[path]
        if len(self.sources) >= _FILE_LIMIT:
            raise SpecError([issue(f"more than {_FILE_LIMIT} files", node=asked_at)])
        if path == discovery.STDIN:
            text = self.options.stdin or ""
            self.digests[path] = hashlib.sha256(text.encode()).hexdigest()
            source: Source | None = Source("<stdin>", text)
        else:
            if asked_at is not None and not self.allows(path):
                message = f"{self.shown(path)} leads out of the repository"
                raise SpecError([issue(message, node=asked_at, path=attribute)])
            source = self.source(path, asked_at=asked_at, attribute=attribute)
        if source is None:
            message = f"file {path} not found" if asked_at is not None else "no such file"
            found = issue(message, node=asked_at, path=attribute)
            if asked_at is None:
                found = SpecIssue(message=message, file=self.shown(path))
            raise SpecError([found])
        source.text = source.text.removeprefix("\ufeff")
        if templates.is_template(path):
            source = templates.RenderedSource(source, self.template_values(), self.options.render)
            self._count(len(source.text), path)
        self.sources[path] = source
        return source

    def peek(self, path: str) -> list[Document]:
        """The documents of a file, kept for the one caller that will change them."""
        if path not in self.parsed:
            self.parsed[path] = parse(self.read(path))
        return self.parsed[path]

    def documents(self, path: str) -> list[Document]:
        documents = self.peek(path)
        del self.parsed[path]
        return documents

    def template_values(self) -> Mapping[str, Any]:
        """The values for templates: files in order, then single settings."""
        if self.values is None:
            values: dict[str, Any] = {}
            for name in self.options.value_files:
                source = self.read(self.absolute(name))
                for document in parse(source):
                    plain = document.root.plain() if document.root is not None else {}
                    if not isinstance(plain, dict):
                        raise SpecError([issue("values must be a mapping", node=document.root)])
                    values = templates.overlay(values, plain)
            settings = templates.parse_settings(self.options.settings)
            self.values = templates.overlay(values, settings)
        return self.values

    def environment_of(
        self, directory: str, env_files: list[str] | None, environment: Mapping[str, str]
    ) -> Mapping[str, str]:
        """`environment` completed by env files; what it already has stays."""
        if env_files is None:
            default = os.path.join(directory, ".env")
            env_files = [default] if self.is_file(default) else []

        def lookup(name: str) -> str | None:
            self.note(name)
            return environment.get(name)

        values: dict[str, str] = {}
        for path in env_files:
            source = self.source(path)
            if source is None:
                raise SpecError([SpecIssue(message="env file not found", file=self.shown(path))])
            values, lines = dotenv.parse_with_lines(source, lookup, values)
            own = {name: values[name] for name in lines if name in values}
            self.layers.append(Layer(origin=path, values=own, lines=lines))
        for name in values:
            self.note(name)
        return {**values, **environment}

    def real_path(self, path: str) -> str:
        """`path` with its symbolic links followed, as far as it exists."""
        return os.path.realpath(path)

    def note(self, name: str) -> None:
        self.names.add(name)

    def inputs(self) -> Inputs:
        variables: dict[str, str | None] = {}
        for name in sorted(self.names):
            value = self.options.environ.get(name)
            variables[name] = (
                hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
                if value is not None
                else None
            )
        return Inputs(files=dict(sorted(self.digests.items())), variables=variables)
