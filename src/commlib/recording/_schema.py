"""JSON Schemas as viewers of MCAP files understand them. Pure.

The registry asks for one of ``type: object``; viewers resolve no references, and know no unions.
So references are replaced by what they stand for, ``X | None`` by ``X``, and a field that has
several types is left out: it is shown all the same, only not announced.
"""

from __future__ import annotations

from typing import Any

from commlib._schemas import Schema, resolved

MAX_DEPTH = 16  # of messages in messages
_TYPES = ("boolean", "integer", "number", "string", "object", "array")
_KEPT = ("title", "description", "contentEncoding", "enum")

OBJECT: Schema = {"type": "object"}
VALUE: Schema = {"type": "object", "title": "commlib.Value", "properties": {}}
DATA: Schema = {
    "type": "object",
    "title": "commlib.Bytes",
    "properties": {"data": {"type": "string", "contentEncoding": "base64"}},
}


def viewable(schema: Schema | None) -> Schema:
    """The schema of an object, without references and unions; any object where it is none."""
    if schema is None:
        return OBJECT
    plain = _plain(schema, schema, 0)
    return plain if plain is not None and plain.get("type") == "object" else OBJECT


def _plain(part: Any, root: Schema, depth: int) -> Schema | None:
    """None: viewers do not understand it."""
    if not isinstance(part, dict) or depth > MAX_DEPTH:
        return None
    part = resolved(part, root)
    kind, choices = part.get("type"), part.get("anyOf")
    if isinstance(choices, list):
        real = [each for each in choices if each != {"type": "null"}]
        return _plain(real[0], root, depth + 1) if len(real) == 1 else None
    if isinstance(kind, list):
        real = [each for each in kind if each != "null"]
        kind = real[0] if len(real) == 1 else None
    if kind not in _TYPES:
        return None
    plain: Schema = {"type": kind, **{key: part[key] for key in _KEPT if key in part}}
    if kind == "object":
        fields = part.get("properties")
        known = {
            name: field
            for name, each in (fields.items() if isinstance(fields, dict) else ())
            if (field := _plain(each, root, depth + 1)) is not None
        }
        plain["properties"] = known
    if kind == "array":
        items = _plain(part.get("items"), root, depth + 1)
        if items is None:
            return None
        plain["items"] = items
    return plain
