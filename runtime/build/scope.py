"""Variables during a stage: ARG and ENV, and which of them a command sees.

Source: BuildKit reference.md ("ARG", "Scope", "Predefined ARGs", "Automatic platform ARGs").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runtime.build.words import Expanded, expand
from runtime.oci.descriptor import Platform

PREDEFINED = frozenset(
    name
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (proxy, proxy.lower())
)
"""Build arguments that every command sees undeclared; they are not part of cache or history."""


def platform_args(build: Platform, target: Platform | None = None) -> dict[str, str]:
    """The automatic platform ARGs; without `target` the image is for where it is built."""
    args: dict[str, str] = {}
    for side, platform in (("BUILD", build), ("TARGET", target or build)):
        args[f"{side}PLATFORM"] = str(platform)
        args[f"{side}OS"] = platform.os
        args[f"{side}ARCH"] = platform.architecture
        args[f"{side}VARIANT"] = platform.variant
    return args


class Scope:
    """The variables of one stage.

    `given` are the build arguments, `outer` the values from before the first FROM, `inherited`
    those of the stage that this one builds on.
    """

    def __init__(
        self,
        *,
        env: Iterable[str],
        given: Mapping[str, str],
        outer: Mapping[str, str | None],
        inherited: Mapping[str, str],
        escape: str,
    ) -> None:
        self.env: dict[str, str] = {}
        for item in env:
            name, _, value = item.partition("=")
            self.env[name] = value
        self.args: dict[str, str] = dict(inherited)
        self._given = given
        self._outer = outer
        self._escape = escape
        self.consumed: set[str] = set()
        self._unset: set[str] = set()

    def expand(self, text: str) -> str:
        """Expand a text with the variables of the moment; raises WordError."""
        return self.expanded(text).text

    def expanded(self, text: str) -> Expanded:
        found = expand(text, self.variables, escape=self._escape)
        self._unset |= found.unset
        return found

    def take_unset(self) -> tuple[str, ...]:
        """The names that were expanded since the last call without being set."""
        names = tuple(sorted(self._unset))
        self._unset.clear()
        return names

    def document(self, text: str) -> str:
        """Expand variables in a here-document: quotes are ordinary text there."""
        return expand(
            text, self.variables, escape=self._escape, quotes=False, raw_escapes=False
        ).text

    @property
    def variables(self) -> dict[str, str]:
        """ENV hides ARG."""
        return {**self.args, **self.env}

    def declare(self, name: str, default: str | None) -> None:
        """ARG: the value that was given, else the default, else the outer one."""
        self.consumed.add(name)
        if name in self._given:
            self.args[name] = self._given[name]
        elif default is not None:
            self.args[name] = self.expand(default)
        elif (outer := self._outer.get(name)) is not None:
            self.args[name] = outer

    def command_env(self) -> dict[str, str]:
        """What a command sees of declared variables."""
        return self.variables

    def undeclared_env(self) -> dict[str, str]:
        """Predefined arguments that were given but not declared."""
        return {
            name: value
            for name, value in self._given.items()
            if name in PREDEFINED and name not in self.args and name not in self.env
        }
