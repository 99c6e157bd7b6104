"""Typed scalars and small collections of the models: what a Compose value is read into.

Every reader takes the notations of a Compose file and its own result, so that a model's dump
validates to the same model.
"""

# pydantic copies a field's default for every instance

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from specs import shellwords, units
from specs.casts import to_boolean, to_integer, to_number
from specs.golang import format_value


def read_text(value: Any) -> Any:
    """A string; whole numbers are taken as their digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def read_integer(value: Any) -> Any:
    """A whole number, also when written as a string or as a float without a fraction."""
    if isinstance(value, str):
        return to_integer(value)
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not a boolean")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"{format_value(value)} is not a whole number")
        return int(value)
    return value


def read_unsigned(value: Any) -> Any:
    """A whole number that is not negative."""
    number = read_integer(value)
    if isinstance(number, int) and number < 0:
        raise ValueError(f"{number} is negative")
    return number


def read_number(value: Any) -> Any:
    """A number, also when written as a string."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")
    return to_number(value) if isinstance(value, str) else value


def read_flag(value: Any) -> Any:
    """A boolean, also when written as a string."""
    return to_boolean(value) if isinstance(value, str) else value


def read_duration(value: Any) -> Any:
    """Nanoseconds, from `1m30s`."""
    return units.parse_duration(value) if isinstance(value, str) else value


def read_size(value: Any) -> Any:
    """Bytes, from `512m` or a number of bytes."""
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"{format_value(value)} is not a whole number of bytes")
        return int(value)
    if value == "-1":
        return -1  # no limit
    return units.parse_size(value) if isinstance(value, str) else value


def read_texts(value: Any) -> Any:
    """A list of strings; one string is a list of one."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple):
        return tuple(format_value(item) if not isinstance(item, str) else item for item in value)
    return value


def read_command(value: Any) -> Any:
    """Words of a command; a string is split as a shell would, without expansion."""
    if isinstance(value, str):
        return shellwords.split(value)
    return value


def read_map(value: Any) -> Any:
    """`key: value` from a mapping or from `key=value` strings; no value is an empty one."""
    if isinstance(value, dict):
        return {
            key: item if type(item) is str else "" if item is None else format_value(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        entries = {}
        for item in value:
            key, _, text = str(item).partition("=")
            entries[key] = text
        return entries
    return value


def read_optional_map(value: Any) -> Any:
    """As `read_map`, but a key without a value keeps None."""
    if isinstance(value, dict):
        return {
            key: item if type(item) is str or item is None else format_value(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        entries: dict[str, str | None] = {}
        for item in value:
            key, separator, text = str(item).partition("=")
            entries[key] = text if separator else None
        return entries
    return value


def read_hosts(value: Any) -> Any:
    """Addresses by host name, from `{host: [address]}` or `host=address` / `host:address`."""
    hosts: dict[str, list[str]] = {}
    if isinstance(value, dict):
        for host, addresses in value.items():
            listed = [addresses] if isinstance(addresses, str) else addresses
            hosts.setdefault(host, []).extend(part for item in listed for part in item.split(","))
    elif isinstance(value, list | tuple):
        for item in value:
            separator = "=" if "=" in item else ":"
            host, found, addresses = item.partition(separator)
            if not found:
                raise ValueError(f"{item!r} has no address, write it as host=address")
            hosts.setdefault(host, []).extend(addresses.split(","))
    else:
        return value
    for host in hosts:
        if not host or ":" in host or "=" in host:
            raise ValueError(f"{host!r} is not a host name")
    return {
        host: tuple(
            address[1:-1] if len(address) > 2 and address[0] + address[-1] == "[]" else address
            for address in addresses
        )
        for host, addresses in hosts.items()
    }


class Size:
    """Marks a field as a number of bytes, which Compose prints as a string of digits."""


class Duration:
    """Marks a field as nanoseconds, which Compose prints as `1m30s`."""


class Single:
    """Marks a field as a number that Compose keeps in 32 bits of floating point."""


def read_nullable_text(value: Any) -> Any:
    """A string; null is an empty one."""
    return "" if value is None else value


NullableText = Annotated[str, BeforeValidator(read_nullable_text)]
Text = Annotated[str, BeforeValidator(read_text)]
Integer = Annotated[int, BeforeValidator(read_integer)]
Unsigned = Annotated[int, BeforeValidator(read_unsigned)]
Flag = Annotated[bool, BeforeValidator(read_flag)]
Number = Annotated[float, BeforeValidator(read_number), Single]
Bytes = Annotated[int, BeforeValidator(read_size), Size]
Nanoseconds = Annotated[int, BeforeValidator(read_duration), Duration]
Texts = Annotated[tuple[str, ...], BeforeValidator(read_texts)]
Command = Annotated[tuple[str, ...], BeforeValidator(read_command)]
TextMap = Annotated[dict[str, str], BeforeValidator(read_map)]
OptionalTextMap = Annotated[dict[str, str | None], BeforeValidator(read_optional_map)]
Hosts = Annotated[dict[str, tuple[str, ...]], BeforeValidator(read_hosts)]


class Model(BaseModel):
    """A frozen part of a project. `extensions` holds the `x-*` keys that stood in it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, protected_namespaces=()
    )

    extensions: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather_extensions(cls, data: Any) -> Any:
        if type(data) is dict and any(key.startswith("x-") for key in data):
            known = {key: value for key, value in data.items() if not key.startswith("x-")}
            free = {key: value for key, value in data.items() if key.startswith("x-")}
            return {**known, "extensions": {**known.get("extensions", {}), **free}}
        return data
