"""JSON Schemas as nodes tell them, as components of an AsyncAPI document. Pure.

Nodes write JSON Schema 2020-12, with their classes under ``$defs``. AsyncAPI 3 knows draft 7, and
keeps what has a name in one place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from commlib._schemas import Schema

DEFS = "#/$defs/"
COMPONENTS = "#/components/schemas/"
_VALUES = frozenset({"const", "default", "enum", "examples"})  # what they hold is no schema
_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas"})


def component_name(text: str) -> str:
    """A text as the name of a component: letters, digits and ``._-``."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text) or "_"


class Register:
    """Entries of a document, each once, under names that it allows."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}
        self._names: dict[str, str] = {}

    def take(self, said: Any, name: str, entry: Any) -> str:
        """The name of the entry that ``said`` stands for; a new one is ``entry``."""
        key = json.dumps([name, said], sort_keys=True)
        if key not in self._names:
            base = free = component_name(name)
            number = 1
            while free in self.entries:
                number += 1
                free = f"{base}_{number}"
            self.entries[free] = entry
            self._names[key] = free
        return self._names[key]


class Schemas(Register):
    """The schemas of a document."""

    def ref(self, schema: Schema | None, name: str) -> Schema:
        """A reference to a schema, or ``{}``, which is anything, for None and what is no schema.

        ``name`` is for a schema without a name of its own.
        """
        if schema is None or not _is_sound(schema):
            return {}
        try:
            defs = schema.get("$defs")
            names = self._add_defs(defs if isinstance(defs, dict) else {})
            root = {key: value for key, value in schema.items() if key != "$defs"}
            if root.keys() == {"$ref"}:
                only: Schema = _rewritten(root, names)
                return only
            return self.add(name, _rewritten(root, names))
        except RecursionError:
            return {}

    def add(self, name: str, schema: Schema) -> Schema:
        """A reference to a schema that is written as AsyncAPI wants it."""
        return {"$ref": COMPONENTS + self.take(schema, name, schema)}

    def _add_defs(self, defs: dict[str, Any]) -> dict[str, str]:
        names = {}
        for name in defs:
            said = {each: defs[each] for each in _reached(name, defs)}
            names[name] = self.take(said, name, {})
        for name, part in defs.items():  # they may need each other
            self.entries[names[name]] = _rewritten(part, names)
        return names


def _is_sound(schema: Schema) -> bool:
    """Whether it is a schema: anybody can tell of some."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError):
        return False
    return True


def _reached(name: str, defs: dict[str, Any]) -> list[str]:
    """A definition and those that it needs."""
    found, todo = {name}, [name]
    while todo:
        for ref in _refs(defs[todo.pop()]):
            other = ref.removeprefix(DEFS)
            if other in defs and other not in found:
                found.add(other)
                todo.append(other)
    return sorted(found)


def _refs(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _refs(each)


def _rewritten(part: Any, names: dict[str, str]) -> Any:
    """A schema in the words of draft 7, with its references into the components."""
    if isinstance(part, list):
        return [_rewritten(each, names) for each in part]
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("$ref"), str):
        name = names.get(part["$ref"].removeprefix(DEFS))
        # A reference to what is not there, or somewhere on the network, says nothing.
        return {"$ref": COMPONENTS + name} if name is not None else {}
    written = {}
    for key, value in part.items():
        if key in _VALUES:
            written[key] = value
        elif key in _BY_NAME and isinstance(value, dict):
            written[key] = {each: _rewritten(inner, names) for each, inner in value.items()}
        elif key == "discriminator" and isinstance(value, dict):
            written[key] = value.get("propertyName", "")
        elif not key.startswith("$"):
            written[key] = _rewritten(value, names)
    if "prefixItems" in written:
        if "items" in written:
            written["additionalItems"] = written["items"]
        written["items"] = written.pop("prefixItems")
    return written
