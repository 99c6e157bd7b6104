"""Which files of a tree count: patterns as in .dockerignore, and what editors leave behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.engine.build_files import IgnoreRules
from orchestrator.engine.sync import TEMPORARY

_BY_DEFAULT = (
    "**/.git",
    "**/.hg",
    "**/.svn",
    "**/.idea",
    "**/*___jb_old___",
    "**/*___jb_tmp___",
    "**/.#*",
    "**/#*#",
    "**/*~",
    "**/4913",
    "**/.*.sw?",
    "**/.goutputstream-*",
    "**/.~lock.*",
    "**/.nfs*",
    "**/.DS_Store",
    "**/__pycache__",
    f"**/{TEMPORARY}*",
)
"""Repositories, editors' temporary files as Compose leaves them out, what Python writes when a
program starts (a restart would cause the next one), and our own."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """Rules for paths below `base`; what is not below it, and `base` itself, they do not match."""

    base: str
    rules: IgnoreRules

    def match(self, path: str) -> bool:
        relative = below(self.base, path)
        return bool(relative) and self.rules.ignores(str(relative))

    def may_hold_unmatched(self, directory: str) -> bool:
        """Whether something below a directory that they match may be excepted."""
        relative = below(self.base, directory)
        return bool(relative) and self.rules.may_hold_kept(str(relative))


def below(base: str, path: str) -> str | None:
    """`path` as seen from `base`: "" for the same, None where it does not lie below."""
    if path == base:
        return ""
    prefix = base.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def patterns(base: str, written: Iterable[str]) -> Patterns:
    """Raises ValueError for a damaged pattern."""
    return Patterns(base, IgnoreRules(written))


def by_default(base: str) -> Patterns:
    return Patterns(base, _DEFAULT_RULES)


_DEFAULT_RULES = IgnoreRules(_BY_DEFAULT)
