"""What messages look like: their JSON Schema, a fingerprint of it, and whether two fit. Pure.

What two ends of a topic say of their messages is compared as they would read it from each other:
a field that both have must be of one type, and what the reader cannot do without must be there.
More fields than the reader knows are no conflict, nor are names of classes. What a reader may take
after all is none either: it is told of nothing rather than of what is not so.

Schemas come from strangers as well. So nothing here is sure of their shape, and comparing two of
them has an end, however they refer to each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any
from zlib import crc32

import msgspec

from commlib._arrays import NDArray

Schema = dict[str, Any]

PLIABLE = "read by functions of its own"
"""The ``$comment`` of a schema that does not say all that is read."""

_PROSE = frozenset({"title", "description", "default", "examples", "discriminator"})
_RAW = (bytes, bytearray, memoryview, NDArray)  # which travel as they are, and not as JSON
_DEFS = "#/$defs/"
MAX_DEPTH = 32  # of messages in messages that are compared
MAX_PARTS = 1000  # of two messages that are compared
MAX_CONFLICTS = 8  # that are told of two schemas
MAX_SCHEMA_BYTES = 65_536  # of one that is told to others


# ---- of a class ----


def schema_of(kind: Any) -> Schema | None:
    """The JSON Schema (2020-12) of a message class; None where it has none, as for plain data."""
    return marked_schema(kind)[1]


def marked_schema(kind: Any) -> tuple[str, Schema | None]:
    """The fingerprint of a message class and its schema, made once; as ``schema_of``."""
    try:
        return _marked_schema(kind)
    except TypeError:  # a type with something in it that cannot be a key
        return "", None


@lru_cache(maxsize=1024)
def _marked_schema(kind: Any) -> tuple[str, Schema | None]:
    if kind is None or kind is Any or kind in _RAW:
        return "", None
    try:
        is_model = hasattr(kind, "model_json_schema")  # a pydantic model knows its own
        schema = _schema_of_model(kind) if is_model else _schema_of_type(kind)
        if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
            return "", None
        return fingerprint(schema), schema
    except Exception:  # messages may hold what no schema can say, and models have their own ways
        return "", None


def _schema_of_type(kind: Any) -> Schema:
    return msgspec.json.schema(kind, schema_hook=_schema_of_unknown)


def _schema_of_unknown(kind: type) -> Schema:
    """Anything may stand for a type that is the program's own."""
    return {"title": getattr(kind, "__name__", "")}


def _schema_of_model(model: Any) -> Schema:
    """That of a pydantic model, with a note if it has validators of its own, or aliases."""
    schema: Schema = model.model_json_schema(by_alias=False)  # as its fields are sent
    has_functions = "'function-" in str(model.__pydantic_core_schema__)
    if has_functions or schema != model.model_json_schema():
        return {**schema, "$comment": PLIABLE}
    return schema


# ---- a fingerprint ----


def fingerprint(schema: Schema | None) -> str:
    """Eight hex digits that are the same for schemas that say the same; empty for None."""
    if schema is None:
        return ""
    # It tells what is unlike, not what somebody has forged: hashlib would be half a megabyte.
    return f"{crc32(msgspec.json.encode(_plain(schema, schema, {}))):08x}"


def _plain(part: Any, root: Schema, seen: dict[str, int]) -> Any:
    """A schema without prose and without names of classes; each class is in it once."""
    if isinstance(part, list):
        return [_plain(each, root, seen) for each in part]
    if not isinstance(part, dict):
        return part
    ref = part.get("$ref")
    if isinstance(ref, str):
        if ref in seen:
            return {"again": seen[ref]}
        seen[ref] = len(seen)
        return _plain(resolved(part, root), root, seen)
    plain: Schema = {}
    for key in sorted(part.keys() - _PROSE - {"$defs"}):
        value = part[key]
        if key == "properties" and isinstance(value, dict):
            plain[key] = {name: _plain(value[name], root, seen) for name in sorted(value)}
        elif key == "required" and isinstance(value, list):
            if value:  # none is as good as no such key
                plain[key] = sorted(map(str, value))
        else:
            plain[key] = _plain(value, root, seen)
    return plain


def resolved(part: Schema, root: Schema) -> Schema:
    """What a reference stands for; ``part`` itself if it is none, ``{}`` if there is no such."""
    for _ in range(MAX_DEPTH):
        ref = part.get("$ref")
        if not isinstance(ref, str):
            return part
        known = root.get("$defs")
        found = known.get(ref.removeprefix(_DEFS)) if isinstance(known, dict) else None
        part = found if isinstance(found, dict) else {}
    return {}


# ---- whether two fit ----


def conflicts(writer: Schema | None, reader: Schema | None) -> list[str]:
    """Why a reader would not understand a writer, each with the field; empty if it would.

    Nothing is known of None, so nothing is in conflict with it.
    """
    if writer is None or reader is None or PLIABLE in (_note(writer), _note(reader)):
        return []
    return list(islice(_Comparison(writer, reader).of(writer, reader, "", 0), MAX_CONFLICTS))


_UNKNOWN: frozenset[str] = frozenset()
_NUMBERS = frozenset({"integer", "number"})
_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def _note(schema: Schema) -> Any:
    return schema.get("$comment")


@dataclass(slots=True)
class _Comparison:
    """Of two schemas, part by part; the same two parts are compared once."""

    writer: Schema
    reader: Schema
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _types_of: dict[int, frozenset[str]] = field(default_factory=dict)

    def of(self, written: Any, read: Any, where: str, depth: int) -> Iterator[str]:
        """The conflicts of two parts, ``where`` in the message."""
        if not isinstance(written, dict) or not isinstance(read, dict) or depth > MAX_DEPTH:
            return
        written, read = _only(written, self.writer), _only(read, self.reader)
        pair = id(written), id(read)
        if pair in self._seen or len(self._seen) >= MAX_PARTS:
            return
        self._seen.add(pair)
        sent, taken = self._types(written, self.writer, 0), self._types(read, self.reader, 0)
        if not sent or not taken:
            return  # one of them may be anything
        if not any(_fits(each, taken) for each in sent):
            what = where or "the message"
            yield f"{what} is sent as {_listed(sent)} and read as {_listed(taken)}"
            return
        if sent == taken == {"object"}:
            yield from self._in_fields(written, read, where, depth)
        elif sent == taken == {"array"}:
            yield from self.of(written.get("items"), read.get("items"), f"{where}[]", depth + 1)

    def _in_fields(self, written: Schema, read: Schema, where: str, depth: int) -> Iterator[str]:
        has, wants = written.get("properties"), read.get("properties")
        if not isinstance(has, dict) or not isinstance(wants, dict):
            return  # a dict of whatever there is
        if not written.get("additionalProperties"):  # else there may be more than those
            for name in _required(read):
                if name not in has and not _is_tag(wants.get(name)):
                    yield f"{_inside(where, name)} is needed, and not sent"
        if read.get("additionalProperties") is False:
            for name in _required(written):
                if name not in wants and not _is_tag(has.get(name)):
                    yield f"{_inside(where, name)} is sent, and the reader allows no such field"
        if not where and self._are_strangers(written, read):
            yield "no field that is sent is read"
        for name, part in wants.items():
            yield from self.of(has.get(name), part, _inside(where, name), depth + 1)

    def _are_strangers(self, written: Schema, read: Schema) -> bool:
        """Whether they have fields and none of them in common, and nobody has told that yet."""
        has, wants = written["properties"], read["properties"]
        is_open = written.get("additionalProperties") or read.get("additionalProperties")
        all_else = bool(has and wants) and not is_open and not _required(read)
        return all_else and not has.keys() & wants.keys()

    def _types(self, schema: Any, root: Schema, depth: int) -> frozenset[str]:
        """The names of the JSON types that a value may have; empty: any, or not known."""
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return _UNKNOWN
        schema = resolved(schema, root)
        if id(schema) not in self._types_of:
            if len(self._types_of) >= MAX_PARTS:
                return _UNKNOWN
            self._types_of[id(schema)] = _UNKNOWN  # while it is looked at: it may be part of itself
            self._types_of[id(schema)] = self._types_in(schema, root, depth)
        return self._types_of[id(schema)]

    def _types_in(self, schema: Schema, root: Schema, depth: int) -> frozenset[str]:
        if (alternatives := _alternatives(schema)) is not None:
            of_each = [self._types(each, root, depth + 1) for each in alternatives[:MAX_PARTS]]
            return _UNKNOWN.union(*of_each) if all(of_each) else _UNKNOWN
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list):
            names = [_NAMES.get(type(value), "") for value in values]
            return frozenset(names) if all(names) else _UNKNOWN
        kind = schema.get("type")
        if not isinstance(kind, str) or "contentEncoding" in schema:
            return _UNKNOWN  # bytes are taken from much
        # Times and decimal numbers are texts that numbers are read as, and the other way round.
        return _NUMBERS | {kind} if kind == "string" and "format" in schema else frozenset({kind})


def _only(part: Schema, root: Schema) -> Schema:
    """What a part stands for; if it is that or null, without the null."""
    part = resolved(part, root)
    alternatives = _alternatives(part)
    if alternatives is not None:
        some = [each for each in alternatives if each != {"type": "null"}]
        if len(some) == 1 and isinstance(some[0], dict):
            return resolved(some[0], root)
    return part


def _alternatives(schema: Schema) -> list[Any] | None:
    for key in ("anyOf", "oneOf"):
        if isinstance(found := schema.get(key), list):
            return found
    return None


def _required(schema: Schema) -> list[str]:
    names = schema.get("required")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _is_tag(part: Any) -> bool:
    """Whether a field can have one value only: it names the class, and may be left out."""
    if not isinstance(part, dict):
        return False
    values = part.get("enum")
    return "const" in part or (isinstance(values, list) and len(values) == 1)


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _fits(sent: str, taken: frozenset[str]) -> bool:
    if sent == "null":  # which is NaN, where a number is read
        return True
    return sent in taken or (sent == "integer" and "number" in taken)


def _listed(types: frozenset[str]) -> str:
    return " or ".join(sorted(types))
