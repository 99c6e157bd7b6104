"""The process in which one template is rendered: `python -I -m` this, a request on standard input.

A template is a program that somebody else has written. This process has bounds on its time,
memory and output, no network, nobody's rights and nothing of the daemon's; all that comes back
is JSON, the text or what is wrong with the template.
"""

from __future__ import annotations

import codecs
import importlib
import json
import sys
from typing import Any

from orchestrator.engine import seclusion
from specs import templates
from specs.errors import SpecError
from specs.source import Source

MEMORY = 512 * 2**20
SECONDS = 10
OUTPUT = 128 * 2**20
_LONGEST = 2000

_LATE = (
    *("jinja2.constants", "jinja2.debug", "jinja2.ext", "jinja2.sandbox"),
    *("html.entities", "pprint", "textwrap", "unicodedata"),
)
_ENCODINGS = ("ascii", "idna", "latin-1", "punycode", "unicode-escape", "utf-8", "utf-16", "utf-32")


def main() -> None:
    request = json.load(sys.stdin)
    _prepare()
    seclusion.limit(memory=MEMORY, seconds=SECONDS, output=OUTPUT)
    seclusion.seclude()
    template = Source("template", request["text"])
    answer: dict[str, Any]
    try:
        answer = {"text": templates.render(template, request["values"], request["marked"])}
    except SpecError as exc:
        answer = {
            "faults": [
                {"message": issue.message[:_LONGEST], "line": issue.line, "hint": issue.hint}
                for issue in exc.issues
            ]
        }
    # Not piece by piece: what does not fit is to be found out before anything is written.
    sys.stdout.write(json.dumps(answer, ensure_ascii=False))


def _prepare() -> None:
    """Import what jinja2 and Python import only when it is used: an interpreter may lie where
    nobody can read it."""
    for name in _LATE:
        importlib.import_module(name)
    for name in _ENCODINGS:
        codecs.lookup(name)
    templates.render(Source("template", "{{ [1] | tojson }}"), {}, True)


if __name__ == "__main__":
    main()
