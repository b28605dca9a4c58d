"""JSON Schemas as viewers of MCAP files understand them. Pure.

The registry asks for one of ``type: object``; viewers resolve no references, and know no unions.
So references are replaced by what they stand for, ``X | None`` by ``X``, and a field that has
several types is left out: it is shown all the same, only not announced.
"""

from __future__ import annotations

from typing import Any

from commlib._schemas import Schema, resolved

MAX_DEPTH = 16  # of messages in messages
MAX_PARTS = 1000  # of one schema: strangers tell of them, and each reference may double it
PART_CHARACTERS = 100  # of titles, descriptions and choices, which count as one more part
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
    plain = _Simplifier(schema).of(schema, 0)
    return plain if plain is not None and plain.get("type") == "object" else OBJECT


class _Simplifier:
    """Makes one schema plain, as long as it stays small."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._parts = 0

    def of(self, part: Any, depth: int) -> Schema | None:
        """None: viewers do not understand it, or it is too much."""
        self._parts += 1
        if not isinstance(part, dict) or depth > MAX_DEPTH or self._parts > MAX_PARTS:
            return None
        part = resolved(part, self._root)
        choices = part.get("anyOf")
        if isinstance(choices, list):
            real = [each for each in choices if each != {"type": "null"}]
            return self.of(real[0], depth + 1) if len(real) == 1 else None
        kind = _only_type(part.get("type"))
        if kind not in _TYPES:
            return None
        kept = {key: part[key] for key in _KEPT if key in part}
        self._parts += sum(len(str(value)) for value in kept.values()) // PART_CHARACTERS
        plain: Schema = {"type": kind, **kept}
        if kind == "object":
            plain["properties"] = self._fields(part.get("properties"), depth)
        if kind == "array":
            items = self.of(part.get("items"), depth + 1)
            if items is None:
                return None
            plain["items"] = items
        return plain

    def _fields(self, fields: Any, depth: int) -> Schema:
        known = fields.items() if isinstance(fields, dict) else ()
        return {
            name: field for name, each in known if (field := self.of(each, depth + 1)) is not None
        }


def _only_type(kind: Any) -> Any:
    """The type that a value has if it is not null."""
    if not isinstance(kind, list):
        return kind
    real = [each for each in kind if each != "null"]
    return real[0] if len(real) == 1 else None
