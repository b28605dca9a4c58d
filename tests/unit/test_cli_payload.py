"""Messages as they are typed: what JSON and YAML are read as, and what is said of a wrong one."""

from __future__ import annotations

import io
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import click
import pytest

from commlib._schemas import Schema, schema_of
from commlib.cli._payload import check_payload, read_payload
from commlib.msg import PubSubMessage


class Point(PubSubMessage):
    x: float = 0.0
    y: float = 0.0


class Path2D(PubSubMessage):
    name: str
    points: list[Point] = []
    goal: Point | None = None
    limits: dict[str, int] = {}


def errors(data: Any, schema: Schema | None) -> list[str]:
    """What is said of a message, a line for each field."""
    with pytest.raises(click.ClickException) as caught:
        check_payload(data, schema, "the planner")
    first, *rest, last = caught.value.message.splitlines()
    assert first == "the message is not what the planner takes:"
    assert last == "--no-check sends it all the same"
    return [line.strip() for line in rest]


# ---- reading ----


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": [1, 2.5, null, "b"]}', {"a": [1, 2.5, None, "b"]}),
        ("a: 1", {"a": 1}),
        ("{a: 1, b: [x, y]}", {"a": 1, "b": ["x", "y"]}),
        ("- 1\n- 2", [1, 2]),
        ("hello", "hello"),
        ("5", 5),
        ("null", None),
        ("a:", {"a": None}),
        ('{"a": 1e999}', {"a": inf}),
        ("a: -.inf", {"a": -inf}),
    ],
)
def test_json_and_yaml_are_read(text: str, data: object) -> None:
    assert read_payload(text) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("state: ON", {"state": "ON"}),
        ("day: 2026-01-02", {"day": "2026-01-02"}),
        ("time: 12:30:15", {"time": "12:30:15"}),
        ("code: 010", {"code": 10}),
        ("code: 0x1F", {"code": 31}),
        ("size: 1e3", {"size": 1000.0}),
        ("country: no", {"country": "no"}),
        ("really: true", {"really": True}),
        ("{2: a, true: b}", {"2": "a", "true": "b"}),
    ],
)
def test_what_is_no_number_and_no_truth_value_in_yaml_1_2_stays_text(
    text: str, data: object
) -> None:
    read = read_payload(text)
    assert read == data
    assert all(type(read[key]) is type(value) for key, value in data.items())  # type: ignore[attr-defined]


def test_a_message_is_read_from_a_file_or_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "message.yaml"
    file.write_text("a: é", encoding="utf-8")
    assert read_payload(f"@{file}") == {"a": "é"}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1}'))
    assert read_payload("-") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{a: [1", "neither JSON nor YAML: "),
        ("!!python/object:os.system {}", "neither JSON nor YAML: could not determine"),
        ("", "there is no message"),
        (" \n", "there is no message"),
        ("@/no/such/file", "/no/such/file: No such file or directory"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(text: str, error: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        read_payload(text)
    assert caught.value.message.startswith(error)
    assert "\n" not in caught.value.message


def test_the_place_of_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(click.ClickException, match=r"message\.json: it is no text in UTF-8"):
        read_payload(f"@{file}")
    file.write_text("")
    with pytest.raises(click.ClickException, match=r"message\.json: there is no message"):
        read_payload(f"@{file}")


# ---- checking ----


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        ({}, ["name: it is needed, and not there"]),
        ({"name": 5}, ["name: a text is expected, not 5"]),
        ({"name": "a", "nmae": 1}, ["nmae: there is no such field; did you mean name?"]),
        ({"name": "a", "pionts": []}, ["pionts: there is no such field; did you mean points?"]),
        (
            {"name": "a", "points": [{"x": 1}, {"x": "far"}]},
            ['points[1].x: a number is expected, not "far"'],
        ),
        (
            {"name": "a", "points": [{"z": 1}]},
            ["points[0].z: there is no such field; it has x, y"],
        ),
        ({"name": "a", "goal": 3}, ["goal: an object or null is expected, not 3"]),
        ({"name": "a", "goal": {"x": None}}, ["goal.x: a number is expected, not null"]),
        ({"name": "a", "goal": {"u": 1}}, ["goal.u: there is no such field; it has x, y"]),
        ({"name": "a", "limits": {"v": 1.5}}, ["limits.v: a whole number is expected, not 1.5"]),
        ([], ["an object is expected, not []"]),
        (
            {"points": 1, "goal": 2},
            [
                "goal: an object or null is expected, not 2",
                "name: it is needed, and not there",
                "points: a list is expected, not 1",
            ],
        ),
    ],
)
def test_each_wrong_field_is_named(data: object, wrong: list[str]) -> None:
    found = errors(data, schema_of(Path2D))
    assert len(found) == len(wrong)
    assert all(text.startswith(start) for text, start in zip(sorted(found), wrong, strict=True))


@pytest.mark.parametrize(
    "data",
    [
        {"name": "a"},
        {"name": "a", "points": [{"x": 1, "y": 2.5}], "goal": None, "limits": {"any": 1}},
        {"name": "a", "goal": {"x": inf}},
    ],
)
def test_a_message_that_fits_passes(data: object, capsys: pytest.CaptureFixture[str]) -> None:
    check_payload(data, schema_of(Path2D), "the planner")
    assert capsys.readouterr().err == ""


def test_of_many_errors_the_first_are_told_and_long_values_are_cut() -> None:
    schema: Schema = {
        "type": "object",
        "properties": {f"f{index}": {"type": "integer"} for index in range(9)},
    }
    found = errors({f"f{index}": "x" * 500 for index in range(9)}, schema)
    assert len(found) == 6
    assert found[-1] == "and more"
    assert all(len(text) < 100 for text in found)


def test_the_words_of_an_enumeration_and_the_limits_of_a_number_are_told() -> None:
    schema: Schema = {
        "type": "object",
        "properties": {"mode": {"enum": ["on", "off"]}, "share": {"type": "number", "maximum": 1}},
    }
    found = errors({"mode": "of", "share": 2}, schema)
    assert found == [
        'mode: "of" is none of "on", "off"',
        "share: 2 is greater than the maximum of 1",
    ]


def test_a_schema_that_allows_no_other_fields_tells_each_of_them_once() -> None:
    schema: Schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert errors({"b": 1}, schema) == ["b: there is no such field; it has a"]


def test_a_schema_that_allows_other_fields_takes_them() -> None:
    schema: Schema = {"type": "object", "properties": {"a": {}}, "additionalProperties": True}
    assert check_payload({"b": 1}, schema, "the planner") is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"properties": []},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"$ref": "#/$defs/Missing"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}},
    ],
)
def test_a_schema_that_is_none_checks_nothing_and_fetches_nothing(
    schema: Schema, capsys: pytest.CaptureFixture[str], no_network: Callable[[], list[object]]
) -> None:
    check_payload({"a": 1}, schema, "a stranger")
    said = capsys.readouterr().err
    assert said == "not checked: what a stranger tells of its messages is no JSON Schema\n"
    assert no_network() == []


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[object]]:
    """What was asked of the network, of which nothing comes through."""
    asked: list[object] = []

    def note(*args: object, **options: object) -> None:
        asked.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", note)
    monkeypatch.setattr("socket.create_connection", note)
    return lambda: asked
