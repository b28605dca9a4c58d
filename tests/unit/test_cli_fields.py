"""The fields of messages, as their schemas tell of them."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any

import pytest

from commlib._schemas import schema_of
from commlib.cli._fields import Field, fields_of, type_name
from commlib.msg import PubSubMessage


class Mode(Enum):
    SLOW = "slow"
    FAST = "fast"


class Point(PubSubMessage):
    x: float = 0.0


class Branch(PubSubMessage):
    left: Branch | None = None
    right: Branch | None = None


class Everything(PubSubMessage):
    name: str
    count: int = 3
    at: Point = Point()
    way: list[Point] = []
    goal: Point | None = None
    limits: dict[str, int] = {}
    mode: Mode = Mode.SLOW
    when: datetime | None = None
    raw: bytes = b""
    anything: Any = None


def test_each_field_has_its_name_type_and_default() -> None:
    rows = [(each.name, each.type, each.default_text) for each in fields_of(schema_of(Everything))]
    assert rows == [
        ("name", "str", "required"),
        ("count", "int", "3"),
        ("at", "Point", "-"),
        ("at.x", "float", "0.0"),
        ("way", "list[Point]", "[]"),
        ("way[].x", "float", "0.0"),
        ("goal", "Point | None", "null"),
        ("goal.x", "float", "0.0"),
        ("limits", "dict[str, int]", "{}"),
        ("mode", '"fast" | "slow"', '"slow"'),
        ("when", "str | None", "null"),
        ("raw", "bytes", '""'),
        ("anything", "Any", "null"),
    ]


def test_a_message_in_itself_is_listed_to_some_depth() -> None:
    names = [each.name for each in fields_of(schema_of(Branch))]
    assert names[:3] == ["left", "left.left", "left.left.left"]
    assert len(names) < 100


def test_what_is_not_known_and_what_has_no_fields_has_none() -> None:
    assert fields_of(None) == []
    assert fields_of(schema_of(list[float])) == []
    assert type_name({"type": "array", "items": {"type": "number"}}, {}) == "list[float]"


def test_a_long_default_is_cut() -> None:
    field = Field("a", "list[int]", default=list(range(100)))
    assert len(field.default_text) == 40
    assert field.default_text.endswith("…")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": 5, "b": {"type": {}}}},
        {"properties": {"a": {"type": ["string", {}]}}},
        {"properties": {"a": {"anyOf": [3]}, "b": {"enum": 7}}},
        {"properties": {"a": {"items": {"$ref": "#/$defs/None"}, "type": "array"}}},
        {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}},
        {"$ref": "#/$defs/A", "$defs": [1]},
        {"required": 5, "properties": {"a": {"title": 5, "type": "object", "properties": {}}}},
    ],
)
def test_what_strangers_send_for_a_schema_harms_nobody(schema: dict[str, Any]) -> None:
    for field in fields_of(schema):
        assert field.type
        assert field.default_text
