"""Reading requests: the instance, bodies and queries."""

from __future__ import annotations

import json
import re
from typing import TypeVar

from orchestrator.serving.messages import Request
from orchestrator.supervisor.bodies import Body
from orchestrator.supervisor.errors import BadRequest
from orchestrator.supervisor.instance import Instance

B = TypeVar("B", bound=Body)

_SURROGATE = re.compile(rb"\\ud[89a-f]", re.IGNORECASE)


def instance_of(request: Request) -> Instance:
    instance: Instance = request.context
    return instance


async def read_body(request: Request, model: type[B]) -> B:
    """Parse the request's JSON; raises BadRequest and pydantic's ValidationError."""
    raw = await request.read()
    if not raw:
        return model()
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise BadRequest("the request's body is not JSON") from exc
    if _SURROGATE.search(raw) and not _is_text(document):
        raise BadRequest("the request's body holds half a character, which is no text")
    return model.model_validate(document)


def _is_text(document: object) -> bool:
    """Whether all texts in it can be written down: JSON can name halves of characters."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def flag(request: Request, name: str) -> bool:
    return request.query.get(name, "") not in ("", "0", "false", "False")
