"""What differs between a container's stored blueprint and today's, and what that takes.

Every field belongs to one class. IGNORED: it has no effect on a container that exists
(profiles, build instructions, extensions). IN_PLACE: a running container can take it over.
RECREATE: everything else, and so every field that this module does not know.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.planning.observed import Spec
from orchestrator.planning.rollout import EXTENSION


class FieldClass(StrEnum):
    IGNORED = "ignored"
    IN_PLACE = "in place"
    RECREATE = "recreate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A field that differs; `old` and `new` are plain JSON, None where the field is not set."""

    field: str
    old: Any
    new: Any
    kind: FieldClass

    def text(self) -> str:
        """`field: old → new`, without the value of anything that looks like a secret."""
        if self.sensitive:
            return f"{self.field}: changed"
        old, new = _shortened(_shown(self.old), _shown(self.new))
        return f"{self.field}: {old} → {new}"

    @property
    def sensitive(self) -> bool:
        head, _, name = self.field.partition(".")
        return head == "environment" and any(
            word in name.upper()
            for word in ("PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH")
        )

    def to_json(self) -> dict[str, Any]:
        values = {} if self.sensitive else {"old": self.old, "new": self.new}
        return {"field": self.field, "class": str(self.kind), **values}


_IGNORED = frozenset(
    {
        "attach",
        "build",
        "depends_on",
        "develop",
        "env_file",
        "extends",
        "extensions",
        "image",
        "label_file",
        "name",
        "profiles",
        "pull_policy",
        "pull_refresh_after",
        "scale",
        "deploy.mode",
        "deploy.replicas",
        "deploy.labels",
        "deploy.placement",
        "deploy.endpoint_mode",
        "deploy.update_config",
        "deploy.rollback_config",
    }
)

_IN_PLACE = frozenset(
    {
        "expose",
        "healthcheck",
        "labels",
        "ports",
        "post_start",
        "pre_stop",
        "restart",
        "stop_grace_period",
        "stop_signal",
        "deploy.restart_policy",
    }
)

# Limits of a control group, which can be set on a running container.
_LIMITS = frozenset(
    {
        "blkio_config",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpu_shares",
        "cpus",
        "cpuset",
        "mem_limit",
        "mem_reservation",
        "memswap_limit",
        "mem_swappiness",
        "pids_limit",
        "deploy.resources",
    }
)

# Maps that are compared key by key; everything else is one value.
_MAPS = frozenset(
    {
        "build",
        "deploy",
        "depends_on",
        "environment",
        "extensions",
        "extra_hosts",
        "healthcheck",
        "labels",
        "networks",
        "sysctls",
        "ulimits",
    }
)

# Being empty or 0 says something here: no command at all, not the image's; no grace; no swap.
_EMPTY_MATTERS = frozenset({"command", "entrypoint", "mem_swappiness", "stop_grace_period"})

# From this length on, texts are shown by where they differ, with some letters around that.
_LONG = 60
_CONTEXT = 12

# The drivers that are meant when none is named.
_DEFAULT_DRIVERS = {None, "", "local", "bridge", "default"}

# Maps in which an empty text is a value.
_TEXT_MAPS = frozenset({"environment", "labels"})


def service_drift(
    old: Spec, new: Spec, *, old_image: str | None, new_image: str | None
) -> tuple[Change, ...]:
    """Compare two blueprints; changes of an ignored class are not among the result.

    `old_image` is the image that the container runs; `new_image` the one that the reference
    stands for now, None where it is about to be pulled or built.
    """
    changes = list(_service_changes(old["service"], new["service"]))
    if _first_network(old["service"]) != _first_network(new["service"]):
        # The container was told to ask for names there, and its way out leads through it.
        changes = [
            dataclasses.replace(change, kind=FieldClass.RECREATE)
            if change.field.startswith("networks.")
            else change
            for change in changes
        ]
    for kind, prefix in (("networks", "networks"), ("volumes", "volumes")):
        before, after = old.get(kind) or {}, new.get(kind) or {}
        changes += [
            Change(
                field=f"{prefix}.{key}.name",
                old=before[key],
                new=after[key],
                kind=FieldClass.RECREATE,
            )
            for key in sorted(before.keys() & after.keys())
            if before[key] != after[key]
        ]
    changes += _content_changes(old.get("contents") or {}, new.get("contents") or {})
    if old_image != new_image:
        changes.append(_image_change(old, new, old_image, new_image))
    return tuple(change for change in changes if change.kind is not FieldClass.IGNORED)


def _first_network(service: Spec) -> str | None:
    """The key of the network that a container on several of them lives by."""
    networks: Mapping[str, Any] = service.get("networks") or {}

    def rank(key: str) -> tuple[int, str]:
        return (-int((networks[key] or {}).get("priority") or 0), key)

    return min(networks, key=rank, default=None)


def same_form(old: Spec, new: Spec) -> bool:
    """Whether two blueprints differ in nothing that a container could tell, as far as is known:
    what a mounted image holds, a blueprint may be older than."""
    before, after = old.get("contents") or {}, new.get("contents") or {}
    known = {key for key in before.keys() & after.keys() if None not in (before[key], after[key])}
    return not service_drift(
        {**old, "contents": {key: before[key] for key in known}},
        {**new, "contents": {key: after[key] for key in known}},
        old_image=None,
        new_image=None,
    )


def needs_recreate(changes: Iterable[Change]) -> bool:
    return any(change.kind is FieldClass.RECREATE for change in changes)


def resource_drift(old: Spec, new: Spec) -> tuple[Change, ...]:
    """Compare the canonical specs of a network or volume; labels alone can change in place."""
    return tuple(
        Change(
            field=field,
            old=before,
            new=after,
            kind=FieldClass.IN_PLACE if field.startswith("labels") else FieldClass.RECREATE,
        )
        for field, before, after in _differences(old, new, frozenset({"labels", "driver_opts"}))
        if field not in ("name", "external", "extensions")
        and not (field == "driver" and {before, after} <= _DEFAULT_DRIVERS)
    )


def field_class(field: str, old: Any = None, new: Any = None) -> FieldClass:
    """The class of a service's field, by its path (`deploy.replicas`, `environment.DEBUG`);
    a limit's depends on its values, too."""
    if _listed(field, _LIMITS):
        path = tuple(field.split("."))
        return FieldClass.IN_PLACE if _settable(path, old, new) else FieldClass.RECREATE
    if field.startswith("networks.") and (old is None) != (new is None):
        return FieldClass.IN_PLACE
    if field == f"extensions.{EXTENSION}":
        return FieldClass.IN_PLACE
    if _listed(field, _IGNORED):
        return FieldClass.IGNORED
    return FieldClass.IN_PLACE if _listed(field, _IN_PLACE) else FieldClass.RECREATE


def _listed(field: str, table: frozenset[str]) -> bool:
    head, _, rest = field.partition(".")
    return head in table or f"{head}.{rest.partition('.')[0]}" in table


def _settable(path: tuple[str, ...], old: Any, new: Any) -> bool:
    """Whether only limits differ that can be set, or lifted, while the container runs: not
    devices that are reserved."""
    if isinstance(old, Mapping) or isinstance(new, Mapping):
        before, after = old or {}, new or {}
        return all(
            _settable((*path, key), before.get(key), after.get(key))
            for key in before.keys() | after.keys()
        )
    if isinstance(old, list | tuple) or isinstance(new, list | tuple):
        return path[0] == "blkio_config" or bool(old == new)
    # A container whose CPUs nobody has named is in no group that could name them.
    return path[-1] != "cpuset" or old is not None or new is None


def _service_changes(old: Spec, new: Spec) -> Iterator[Change]:
    for field, before, after in _differences(old, new, _MAPS):
        yield Change(field=field, old=before, new=after, kind=field_class(field, before, after))


def _content_changes(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> list[Change]:
    # A source that is new or gone shows as a change of the service's own list already.
    return [
        Change(
            field=f"{key} content",
            old=_short(old[key]),
            new=_short(after) if after is not None else "not there yet",
            kind=FieldClass.RECREATE,
        )
        for key in sorted(old.keys() & new.keys())
        if old[key] != (after := new[key]) and (after is not None or key.startswith("image "))
    ]


def _image_change(old: Spec, new: Spec, old_image: str | None, new_image: str | None) -> Change:
    before, after = old["service"].get("image"), new["service"].get("image")
    if before != after:
        return Change(field="image", old=before, new=after, kind=FieldClass.RECREATE)
    return Change(
        field="image id",
        old=_short(old_image),
        new=_short(new_image) if new_image else "not there yet",
        kind=FieldClass.RECREATE,
    )


def _differences(old: Spec, new: Spec, maps: frozenset[str]) -> Iterator[tuple[str, Any, Any]]:
    for field in sorted(old.keys() | new.keys()):
        before, after = _meaning(field, old.get(field)), _meaning(field, new.get(field))
        if before == after:
            continue
        if field not in maps:
            yield field, before, after
            continue
        before, after = before or {}, after or {}
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                yield f"{field}.{key}", before.get(key), after.get(key)


def _meaning(field: str, value: Any) -> Any:
    """A value without what says nothing, so that a default that a later version of the
    canonical form spells out is no difference."""
    if field in _EMPTY_MATTERS:
        return list(value) if isinstance(value, list | tuple) else value
    if field in _TEXT_MAPS:
        return dict(value) if value else None
    if isinstance(value, Mapping):
        kept = {key: _meaning("", item) for key, item in value.items()}
        if field == "networks":
            # A network without any setting is meant all the same.
            return {key: item or {} for key, item in kept.items()} or None
        return {key: item for key, item in kept.items() if item is not None} or None
    if isinstance(value, list | tuple):
        return [_meaning("", item) for item in value] or None
    return None if value in (False, 0, "") else value


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) and value else json.dumps(value, sort_keys=True)


def _shortened(old: str, new: str) -> tuple[str, str]:
    """Leave out what two long texts have in common at both ends, but for a few letters."""
    if max(len(old), len(new)) <= _LONG:
        return old, new
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    start = max(0, head - _CONTEXT)

    def cut(text: str) -> str:
        end = min(len(text), len(text) - tail + _CONTEXT)
        shown = text[start:end]
        shown = shown if len(shown) <= 2 * _LONG else shown[: 2 * _LONG] + "…"
        return ("…" if start else "") + shown + ("…" if end < len(text) else "")

    return cut(old), cut(new)


def _common(one: str, other: str) -> int:
    """How many letters two texts have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _short(digest: str | None) -> str | None:
    return digest.removeprefix("sha256:")[:12] if digest else None
