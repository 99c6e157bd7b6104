"""BuildKit's own parser cases: same tree, same refusals."""

from __future__ import annotations

import pytest

from runtime.build.parser import Node, parse
from runtime.errors import BuildError
from tests.conformance.dockerfile.corpus import CORPUS, cases, needs_corpus

pytestmark = needs_corpus

_GO_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def quoted(text: str) -> str:
    """Go's %q."""
    pieces = []
    for char in text:
        if char in _GO_ESCAPES:
            pieces.append(_GO_ESCAPES[char])
        elif char < " " or char == "\x7f":
            pieces.append(f"\\x{ord(char):02x}")
        else:
            pieces.append(char)
    return '"' + "".join(pieces) + '"'


def dump(node: Node) -> str:
    parts = [node.name]
    if node.flags:
        parts.append("[" + " ".join(map(quoted, node.flags)) + "]")
    if node.inner is not None:
        parts.append(f"({dump(node.inner)})")
    parts += map(quoted, node.args)
    return " ".join(parts)


@pytest.mark.parametrize("case", cases("testfiles"))
def test_the_tree_equals_the_recorded_one(case: str) -> None:
    directory = CORPUS / "testfiles" / case
    parsed = parse((directory / "Dockerfile").read_text(encoding="utf-8"))
    expected = (directory / "result").read_text(encoding="utf-8").strip()
    assert "\n".join(f"({dump(node)})" for node in parsed.nodes) == expected


@pytest.mark.parametrize("case", cases("testfiles-negative"))
def test_a_damaged_dockerfile_is_refused(case: str) -> None:
    text = (CORPUS / "testfiles-negative" / case / "Dockerfile").read_text(encoding="utf-8")
    with pytest.raises(BuildError):
        parse(text)
