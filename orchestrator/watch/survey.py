"""All files that a rule is about, for a first sync and for containers that are new."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from orchestrator.engine.sync import Put
from orchestrator.watch.rules import Rule


def survey(rule: Rule, left_out: Collection[str]) -> Iterator[Put]:
    """What the host has below the rule's path, parents first; `left_out` are paths that are no
    part of it, such as the Dockerfile and the spec files.

    What cannot be read is left out; whoever watches the directory has said so.
    """
    pending = [rule.path]
    while pending:
        path = pending.pop()
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode) and (path == rule.path or rule.may_hold(path)):
                pending += sorted((f"{path}/{name}" for name in os.listdir(path)), reverse=True)
        except OSError:
            continue
        known = stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)
        if known and path not in left_out and rule.covers(path):
            yield Put(source=Path(path), target=rule.destination(path))
