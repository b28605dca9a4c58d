"""What messages look like: their JSON Schema, a fingerprint of it, and whether two fit. Pure.

What two ends of a topic say of their messages is compared as they would read it from each other:
a field that both have must be of one type, and what the reader cannot do without must be there.
More fields than the reader knows are no conflict, nor are names of classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2s
from typing import Any

import msgspec

Schema = dict[str, Any]

_PROSE = frozenset({"title", "description", "default", "examples"})
_DEFS = "#/$defs/"
MAX_DEPTH = 32  # of messages in messages that are compared
MAX_CONFLICTS = 8  # that are told of two schemas
MAX_SCHEMA_BYTES = 65_536  # of one that is told to others


@lru_cache(maxsize=1024)
def schema_of(kind: Any) -> Schema | None:
    """The JSON Schema (2020-12) of a message class; None where it has none, as for plain data."""
    if kind is None or kind is Any:
        return None
    try:
        if hasattr(kind, "model_json_schema"):  # a pydantic model knows its own
            schema: Schema = kind.model_json_schema()
        else:
            schema = msgspec.json.schema(kind, schema_hook=_schema_of_unknown)
        if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
            return None
    except (TypeError, ValueError, NotImplementedError, RecursionError):
        return None  # messages may hold what no schema can say
    return schema


def _schema_of_unknown(kind: type) -> Schema:
    """Anything may stand for a type that is the program's own."""
    return {"title": kind.__name__}


def fingerprint(schema: Schema | None) -> str:
    """Eight hex digits that are the same for schemas that say the same; empty for None."""
    if schema is None:
        return ""
    plain = json.dumps(_plain(schema, schema, ()), sort_keys=True, separators=(",", ":"))
    return blake2s(plain.encode(), digest_size=4).hexdigest()


def _plain(part: Any, root: Schema, inside: tuple[str, ...]) -> Any:
    """A schema without prose and without names of classes."""
    if isinstance(part, list):
        return [_plain(each, root, inside) for each in part]
    if not isinstance(part, dict):
        return part
    ref = part.get("$ref")
    if isinstance(ref, str):
        if ref in inside:
            return {"back": len(inside) - inside.index(ref)}
        return _plain(resolved(part, root), root, (*inside, ref))
    plain = {
        key: {name: _plain(each, root, inside) for name, each in value.items()}
        if key == "properties" and isinstance(value, dict)
        else sorted(value)
        if key == "required" and isinstance(value, list)
        else _plain(value, root, inside)
        for key, value in part.items()
        if key not in _PROSE and key != "$defs"
    }
    if not plain.get("required"):
        plain.pop("required", None)
    return plain


def resolved(part: Schema, root: Schema) -> Schema:
    """What a reference stands for; ``part`` itself if it is none, ``{}`` if there is no such."""
    for _ in range(MAX_DEPTH):
        ref = part.get("$ref")
        if not isinstance(ref, str):
            return part
        found = root.get("$defs", {}).get(ref.removeprefix(_DEFS), {})
        part = found if isinstance(found, dict) else {}
    return {}


def conflicts(writer: Schema | None, reader: Schema | None) -> list[str]:
    """Why a reader would not understand a writer, each with the field; empty if it would.

    Nothing is known of None, so nothing is in conflict with it.
    """
    if writer is None or reader is None:
        return []
    found = []
    for text in _conflicts(writer, writer, reader, reader, "", 0):
        found.append(text)
        if len(found) >= MAX_CONFLICTS:
            break
    return found


def _conflicts(
    written: Schema, of_writer: Schema, read: Schema, of_reader: Schema, where: str, depth: int
) -> Iterator[str]:
    written, read = resolved(written, of_writer), resolved(read, of_reader)
    ours, theirs = _types(read, of_reader), _types(written, of_writer)
    if depth > MAX_DEPTH or not ours or not theirs:
        return  # one of them may be anything
    if not any(_fits(each, ours) for each in theirs):
        name = where or "the message"
        yield f"{name} is sent as {_listed(theirs)} and read as {_listed(ours)}"
        return
    if "object" in ours and "object" in theirs:
        yield from _in_fields(written, of_writer, read, of_reader, where, depth)
    if "array" in ours and "array" in theirs:
        items, wanted = written.get("items"), read.get("items")
        if isinstance(items, dict) and isinstance(wanted, dict):
            inner = f"{where}[]"
            yield from _conflicts(items, of_writer, wanted, of_reader, inner, depth + 1)


def _in_fields(
    written: Schema, of_writer: Schema, read: Schema, of_reader: Schema, where: str, depth: int
) -> Iterator[str]:
    has, wants = _fields(written), _fields(read)
    if has is None or wants is None:
        return  # a dict of whatever there is
    required = read.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in has:
            yield f"{_inside(where, name)} is needed, and not sent"
    if has and wants and not has.keys() & wants.keys() and not required:
        yield f"{where or 'the message'} has no field that is read"
    for name, part in wants.items():
        other = has.get(name)
        if isinstance(other, dict) and isinstance(part, dict):
            inner = _inside(where, name)
            yield from _conflicts(other, of_writer, part, of_reader, inner, depth + 1)


def _fields(schema: Schema) -> dict[str, Any] | None:
    fields = schema.get("properties")
    return fields if isinstance(fields, dict) else None


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _types(schema: Schema, root: Schema) -> frozenset[str]:
    """The names of the JSON types that a value may have; empty: any, or not known."""
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(alternatives, list):
        of_each = [_types(resolved(each, root), root) for each in alternatives if each]
        return frozenset().union(*of_each) if all(of_each) else frozenset()
    if "enum" in schema and isinstance(schema["enum"], list):
        return frozenset(map(_type_of, schema["enum"]))
    if "const" in schema:
        return frozenset({_type_of(schema["const"])})
    kind = schema.get("type")
    if isinstance(kind, list):
        return frozenset(each for each in kind if isinstance(each, str))
    return frozenset({kind}) if isinstance(kind, str) else frozenset()


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _fits(written: str, read: frozenset[str]) -> bool:
    return written in read or (written == "integer" and "number" in read)


def _listed(types: frozenset[str]) -> str:
    return " or ".join(sorted(types))
