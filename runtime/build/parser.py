"""The Dockerfile language: text to a list of instructions, nothing interpreted yet.

Source: BuildKit frontend/dockerfile/docs/reference.md; where the reference is silent,
BuildKit's parser test cases decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.build.grammars import GRAMMARS, Fault, flags_of, partition
from runtime.build.grammars import INSTRUCTIONS as INSTRUCTIONS
from runtime.build.words import WordError, expand
from runtime.errors import BuildError

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z")
# Docker's own front ends, whatever their version: their language is the one read here.
_SYNTAX = re.compile(
    r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?"
    r"(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?\s*\Z"
)
_DIRECTIVES = frozenset({"escape", "syntax", "check"})
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)\Z")
_WITH_HEREDOC = frozenset({"add", "copy", "run"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """A document in the Dockerfile; `expand` false where its name was quoted, `chomp` where
    leading tabs are dropped (`<<-`). `content` is already chomped."""

    name: str
    content: str
    expand: bool
    chomp: bool
    fd: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One instruction.

    `name` is lower case; `args` the arguments as the instruction's own grammar divides them
    (for ENV and LABEL: name, value, separator, again and again); `json` marks the exec form;
    `inner` is what ONBUILD keeps. Lines count from 1.
    """

    name: str
    args: tuple[str, ...]
    line: int
    end_line: int
    original: str
    flags: tuple[str, ...] = ()
    json: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    inner: Node | None = None
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseWarning:
    """Something that is allowed but probably not meant; `rule` is BuildKit's name for it."""

    rule: str
    message: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A parsed Dockerfile; `directives` are the parser directives at its top."""

    name: str
    nodes: tuple[Node, ...]
    escape: str
    directives: dict[str, str]
    warnings: tuple[ParseWarning, ...]


def parse(text: str, *, name: str = "Dockerfile") -> Dockerfile:
    """Parse a Dockerfile's text; raises BuildError with the line at fault."""
    return _Parser(text, name).run()


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
        if self._lines[-1] == "":
            self._lines.pop()
        self._number = 0
        self._escape = "\\"
        self._directives: dict[str, str] = {}
        self._warnings: list[ParseWarning] = []

    def run(self) -> Dockerfile:
        self._read_directives()
        nodes: list[Node] = []
        comments: list[str] = []
        while self._number < len(self._lines):
            start = self._number + 1
            first = self._lines[self._number].lstrip()
            self._number += 1
            if first.startswith("#"):
                comment = first[1:].strip()
                comments = [*comments, comment] if comment else []
                continue
            line, complete = self._continued(first)
            if complete and not line.strip():
                continue
            if not complete:
                line += self._continuation(start)
            try:
                nodes.append(self._instruction(line, start, tuple(comments)))
            except (Fault, WordError) as exc:
                raise BuildError(str(exc), dockerfile=self._name, line=start) from None
            comments = []
        if not nodes:
            raise BuildError("the Dockerfile has no instructions", dockerfile=self._name)
        return Dockerfile(
            name=self._name,
            nodes=tuple(nodes),
            escape=self._escape,
            directives=self._directives,
            warnings=tuple(self._warnings),
        )

    def _read_directives(self) -> None:
        """Directives stand before everything else; the first other line ends them."""
        for line in self._lines:
            match = _DIRECTIVE.match(line.lstrip())
            key = match[1].lower() if match else ""
            if match is None or key not in _DIRECTIVES:
                return
            self._number += 1
            if key in self._directives:
                raise BuildError(
                    f"the parser directive {key} stands twice",
                    dockerfile=self._name,
                    line=self._number,
                )
            self._directives[key] = match[2]
            if key == "escape":
                if match[2] not in ("\\", "`"):
                    raise BuildError(
                        f"the escape character must be \\ or `, not {match[2]!r}",
                        dockerfile=self._name,
                        line=self._number,
                    )
                self._escape = match[2]
            elif key == "syntax" and not _SYNTAX.match(match[2]):
                raise BuildError(
                    f"the syntax {match[2]!r} is not known: this is a builder of Dockerfiles",
                    dockerfile=self._name,
                    line=self._number,
                    hint="leave the line out, or write: # syntax=docker/dockerfile:1",
                )

    def _continued(self, line: str) -> tuple[str, bool]:
        """A line without its continuation character, and whether the instruction ends here."""
        stripped = line.rstrip(" \t")
        if stripped.endswith(self._escape) and not stripped.endswith(2 * self._escape):
            return stripped[:-1], False
        return line, True

    def _continuation(self, start: int) -> str:
        pieces: list[str] = []
        complete = empty = False
        while not complete and self._number < len(self._lines):
            line = self._lines[self._number]
            self._number += 1
            if line.lstrip().startswith("#"):
                continue
            if not line.strip():
                empty = True
                continue
            piece, complete = self._continued(line)
            pieces.append(piece)
        if empty:
            self._warnings.append(
                ParseWarning(
                    rule="NoEmptyContinuation",
                    message="empty lines inside an instruction will become an error",
                    line=start,
                )
            )
        return "".join(pieces)

    def _instruction(self, line: str, start: int, comments: tuple[str, ...]) -> Node:
        node = self._node(line, start, comments)
        heredocs = self._heredocs(node, line)
        return Node(
            name=node.name,
            args=node.args,
            line=start,
            end_line=self._number,
            original=line.strip(),
            flags=node.flags,
            json=node.json,
            heredocs=heredocs,
            inner=node.inner
            and Node(
                name=node.inner.name,
                args=node.inner.args,
                line=start,
                end_line=self._number,
                original=node.inner.original,
                flags=node.inner.flags,
                json=node.inner.json,
                heredocs=heredocs,
            ),
            comments=comments,
        )

    def _node(self, line: str, start: int, comments: tuple[str, ...]) -> Node:
        word, _, rest = partition(line.strip())
        flags, rest = flags_of(rest)
        rest = rest.strip()
        name = word.lower()
        inner = None
        args: tuple[str, ...] = ()
        is_json = False
        if name == "onbuild":
            inner = self._node(rest, start, ()) if rest else None
        elif name in GRAMMARS:
            args, is_json = GRAMMARS[name](rest, self._escape)
        return Node(
            name=name,
            args=args,
            line=start,
            end_line=start,
            original=line.strip(),
            flags=flags,
            json=is_json,
            inner=inner,
            comments=comments,
        )

    def _heredocs(self, node: Node, line: str) -> tuple[Heredoc, ...]:
        bearer = node.inner if node.name == "onbuild" else node
        if bearer is None or bearer.name not in _WITH_HEREDOC or bearer.json or "<<" not in line:
            return ()
        try:
            words = expand(line, {}, escape=self._escape, raw_quotes=True, raw_escapes=True).words
        except WordError:
            return ()  # quotes that the shell will judge
        found = [opened for word in words if (opened := heredoc_of(word, self._escape))]
        return tuple(self._read_heredoc(opened) for opened in found)

    def _read_heredoc(self, opened: Heredoc) -> Heredoc:
        content: list[str] = []
        while self._number < len(self._lines):
            line = self._lines[self._number]
            self._number += 1
            if opened.chomp:
                line = line.lstrip("\t")
            if line == opened.name:
                return Heredoc(
                    name=opened.name,
                    content="".join(f"{text}\n" for text in content),
                    expand=opened.expand,
                    chomp=opened.chomp,
                    fd=opened.fd,
                )
            content.append(line)
        raise Fault(f"the here-document {opened.name!r} has no end")


def heredoc_of(word: str, escape: str = "\\") -> Heredoc | None:
    """The here-document, still empty, that a word such as `<<-"EOF"` opens."""
    match = _HEREDOC.match(word)
    if match is None or not match[3]:
        return None
    try:
        plain = expand(match[3], {}, escape=escape, keep_unset=True).words
        raw = expand(
            match[3], {}, escape=escape, raw_quotes=True, raw_escapes=True, keep_unset=True
        ).words
    except WordError:
        return None
    if len(plain) != 1:
        return None
    return Heredoc(
        name=plain[0], content="", expand=plain == raw, chomp=bool(match[2]), fd=match[1]
    )
