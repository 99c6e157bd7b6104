"""Where a build cache comes from and goes to: `cache_from` and `cache_to`.

Source: BuildKit README ("Export cache"): `type=local`, `type=registry`, `type=inline`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.errors import BuildError, ImageError
from runtime.images.reference import Reference

Kind = Literal["local", "registry", "inline"]
_FORMS = "type=local,{key}=DIRECTORY, or type=registry,ref=NAME"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlace:
    """One place. `place` is a directory or a reference ("" for inline); of `whole` false, only
    the steps of the result are kept, not those of other stages; a `lenient` export that fails
    is a warning."""

    kind: Kind
    place: str = ""
    whole: bool = True
    lenient: bool = False


def cache_source(text: str) -> CachePlace:
    """One `cache_from`; a text without `type=` is a reference. Raises BuildError."""
    found = _place(text, "src")
    if found.kind == "inline":
        raise _refused(text, "an inline cache is read from its image", "type=registry,ref=NAME")
    return found


def cache_target(text: str) -> CachePlace:
    """One `cache_to`. Raises BuildError."""
    return _place(text, "dest")


def _place(text: str, key: str) -> CachePlace:
    if "=" not in text:
        return CachePlace(kind="registry", place=_reference(text, text))
    fields = dict(
        (name.strip(), value.strip())
        for name, _, value in (word.partition("=") for word in text.split(","))
    )
    kind = fields.pop("type", "")
    mode = fields.pop("mode", "max")
    lenient = fields.pop("ignore-error", "false")
    if mode not in ("min", "max") or lenient not in ("true", "false"):
        raise _refused(text, "mode is min or max, ignore-error true or false", None)
    where = {"local": key, "registry": "ref", "inline": ""}.get(kind)
    if where is None:
        raise _refused(text, f"there is no type {kind!r}", f"it can be {_FORMS.format(key=key)}")
    place = fields.pop(where, "") if where else ""
    if where and not place:
        raise _refused(text, f"{where}= is missing", f"it can be {_FORMS.format(key=key)}")
    if fields:
        raise _refused(text, f"there is no option {min(fields)!r}", None)
    if kind == "registry":
        place = _reference(place, text)
    typed: Kind = "local" if kind == "local" else "registry" if kind == "registry" else "inline"
    return CachePlace(kind=typed, place=place, whole=mode == "max", lenient=lenient == "true")


def _reference(name: str, text: str) -> str:
    try:
        return Reference.parse(name).canonical
    except ImageError as exc:
        raise _refused(text, str(exc), exc.hint) from None


def _refused(text: str, reason: str, hint: str | None) -> BuildError:
    return BuildError(f"the build cache {text!r}: {reason}", hint=hint)
