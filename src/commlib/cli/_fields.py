"""The fields of messages, out of their JSON Schema, as people who write Python read them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from commlib._schemas import Schema, resolved

MAX_DEPTH = 4  # of fields in fields that are listed
MAX_DEFAULT = 40  # characters of a default that are shown

_NAMES = {
    "integer": "int",
    "number": "float",
    "string": "str",
    "boolean": "bool",
    "null": "None",
    "array": "list",
    "object": "dict",
}
_FORMATS = {"date-time": "datetime", "date": "date", "time": "time", "uuid": "UUID"}


class Field(Struct, frozen=True, omit_defaults=True):
    """A field: ``name`` has those that it lies in before it, ``pose.x`` or ``poses[].x``."""

    name: str
    type: str
    required: bool = False
    default: Any | UnsetType = UNSET

    @property
    def default_text(self) -> str:
        """What stands for it when nobody gives it."""
        if self.required:
            return "required"
        if self.default is UNSET:
            return "-"
        text = msgspec.json.encode(self.default).decode()
        return text if len(text) <= MAX_DEFAULT else f"{text[: MAX_DEFAULT - 1]}…"


def fields_of(schema: Schema | None) -> list[Field]:
    """The fields of a message, those of messages in it after the field they lie in.

    None where nothing is known, and for what has no fields, such as a list of numbers.
    """
    return list(_fields(schema, schema, "", 0)) if schema is not None else []


def _fields(part: Schema, root: Schema, where: str, depth: int) -> Iterator[Field]:
    part = resolved(part, root)
    properties = part.get("properties")
    if depth > MAX_DEPTH or not isinstance(properties, dict):
        return
    needed = part.get("required")
    required = set(needed) if isinstance(needed, list) else set()
    for name, field in properties.items():
        if not isinstance(field, dict):
            continue
        place = f"{where}{name}"
        default = field.get("default", UNSET)
        yield Field(place, type_name(field, root), name in required, default)
        inner, suffix = _inner(field, root)
        yield from _fields(inner, root, f"{place}{suffix}.", depth + 1)


def _inner(field: Schema, root: Schema) -> tuple[Schema, str]:
    """The message that a field holds, alone, perhaps, or in a list."""
    field = resolved(field, root)
    for alternative in _alternatives(field):
        inner = resolved(alternative, root)
        if "properties" in inner:
            return inner, ""
        items = inner.get("items")
        if isinstance(items, dict):
            return items, "[]"
    return field, ""


def type_name(part: Schema, root: Schema, depth: int = 0) -> str:
    """A type as Python spells it: ``int``, ``list[Pose]``, ``str | None``, ``Any``."""
    if depth > MAX_DEPTH:
        return "Any"
    part = resolved(part, root)
    values = part.get("enum", [part["const"]] if "const" in part else None)
    if isinstance(values, list):
        return " | ".join(msgspec.json.encode(value).decode() for value in values)
    several = _alternatives(part)
    if several != [part]:
        names = dict.fromkeys(type_name(each, root, depth + 1) for each in several)
        return " | ".join(names) if names and "Any" not in names else "Any"
    kind = part.get("type")
    if isinstance(kind, list):
        return " | ".join(_NAMES.get(str(each), str(each)) for each in kind)
    if kind == "object":
        return _object_name(part, root, depth)
    items = part.get("items")
    if kind == "array" and isinstance(items, dict) and items:
        return f"list[{type_name(items, root, depth + 1)}]"
    if kind == "string":
        return _text_name(part)
    return _NAMES.get(str(kind), "Any")


def _object_name(part: Schema, root: Schema, depth: int) -> str:
    title, values = part.get("title"), part.get("additionalProperties")
    if "properties" in part:
        return title if isinstance(title, str) else "dict"
    if isinstance(values, dict) and values:
        return f"dict[str, {type_name(values, root, depth + 1)}]"
    return "dict"


def _text_name(part: Schema) -> str:
    return "bytes" if "contentEncoding" in part else _FORMATS.get(str(part.get("format")), "str")


def _alternatives(part: Schema) -> list[Schema]:
    found = part.get("anyOf") or part.get("oneOf")
    if not isinstance(found, list):
        return [part]
    return [each for each in found if isinstance(each, dict)]
