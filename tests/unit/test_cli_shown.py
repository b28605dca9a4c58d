"""How messages are shown: plain data to lines, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import yaml

from commlib._packet import Header
from commlib.cli._shown import CHARS, ITEMS, NoSuchField, inline, lines, pick, printable, record

ESCAPE = "\x1b[31m"


def shown(data: Any, full: bool = False) -> str:
    return "\n".join(lines(data, full))


@pytest.mark.parametrize(
    "data",
    [
        {"distance": 1.5, "name": "front", "ok": True, "nothing": None},
        {"pose": {"x": 1, "y": -2.5}, "list": [1, 2, 3], "empty": {}, "none": []},
        {"points": [{"x": 1, "y": 2}, {"x": 3, "deep": {"z": [[1, 2], [3]]}}]},
        [[1, 2], {"a": [{"b": 1}]}, "text"],
        {
            "on": "on",
            "1": "1",
            "with space": "null",
            "quote\"'": 'a "b"',
            "a: b": "# no comment",
            "Null": 1,
        },
        [],
        5,
        None,
    ],
)
def test_what_is_short_is_shown_as_yaml_that_says_the_same(data: Any) -> None:
    assert yaml.safe_load(shown(data)) == data


def test_a_message_that_is_text_is_shown_without_quotes() -> None:
    assert shown("on, and\nmore") == "on, and\nmore"
    assert shown("") == ""


def test_long_lists_texts_and_bytes_are_cut_and_how_much_is_missing_is_told() -> None:
    text = shown({"list": list(range(100)), "text": "x" * 1000, "bytes": bytes(100)})
    assert f"{ITEMS - 1}, … {100 - ITEMS} more]" in text
    assert f'x" … {1000 - CHARS} more characters' in text
    assert "<100 bytes: 00 00" in text
    assert text.endswith("…>")


def test_long_lists_of_objects_and_long_objects_are_cut() -> None:
    text = shown({"list": [{"n": n} for n in range(50)], **{f"f{n}": n for n in range(100)}})
    assert f"# … {50 - ITEMS} more" in text
    assert "f99" not in text
    assert text.splitlines()[-1] == "# … 37 more"


def test_nothing_is_cut_on_request() -> None:
    data = {"list": list(range(100)), "text": "x" * 1000, **{f"f{n}": n for n in range(100)}}
    assert yaml.safe_load(shown(data, full=True)) == data
    assert bytes(100).hex(" ") in inline(bytes(100), full=True)


@pytest.mark.parametrize(
    "data", [ESCAPE, {ESCAPE: 1}, {"a": ESCAPE}, [ESCAPE], {"a": [{"b": ["\x9b31m"]}]}, "\u202eabc"]
)
def test_nothing_that_is_sent_reaches_the_terminal_as_a_command(data: Any) -> None:
    text = shown(data)
    assert all(line.isprintable() for line in text.splitlines())
    assert "\\u" in text


def test_what_is_printable_stays_as_it_is() -> None:
    assert printable("Grüße, 世界") == "Grüße, 世界"
    assert printable("\U000e0001") == "\\U000e0001"


def test_an_array_is_shown_by_its_type_its_shape_and_its_first_numbers() -> None:
    array = {"dtype": "<i2", "shape": [2, 20], "data": bytes(range(40)) * 2}
    assert shown(array).startswith("<array <i2, 2 x 20: [256, 770, ")
    assert shown({"image": array}).startswith("image: <array <i2, 2 x 20")
    assert shown(array).endswith("… 24 more]>")


def test_an_array_of_what_is_no_plain_number_tells_its_size() -> None:
    assert shown({"dtype": "<c8", "shape": [1], "data": bytes(8)}) == "<array <c8, 1, 8 bytes>"


def test_a_message_that_only_looks_like_an_array_is_shown_as_what_it_is() -> None:
    assert shown({"dtype": "x", "shape": 5, "data": b"a"}).splitlines() == [
        'dtype: "x"',
        "shape: 5",
        "data: <1 bytes: 61>",
    ]


def test_what_is_very_deep_is_shown_all_the_same() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = {"a": [deep]}
    assert shown(deep, full=True).count("a") == 200


def test_what_json_cannot_say_is_shown_all_the_same() -> None:
    strange = {"a": msgspec.msgpack.Ext(5, b"x"), 7: float("inf"), b"k": 1}
    assert "Ext" in shown(strange)
    assert "7: 1e999" in shown(strange)
    assert json.loads(record("t", Header(), strange))["encoding"] == "text"


# ---- fields ----


@pytest.mark.parametrize(
    ("path", "found"), [("a", {"b": [1, {"c": 2}]}), ("a.b.0", 1), ("a.b.1.c", 2), ("7", "int")]
)
def test_a_field_is_picked_by_its_path(path: str, found: Any) -> None:
    assert pick({"a": {"b": [1, {"c": 2}]}, 7: "int"}, path) == found


@pytest.mark.parametrize("path", ["b", "a.x", "a.b.2", "a.b.-1", "a.b.x", "a.b.0.c", "", "a."])
def test_a_field_that_is_not_there_is_an_error(path: str) -> None:
    with pytest.raises(NoSuchField):
        pick({"a": {"b": [1, {"c": 2}]}}, path)


# ---- for programs ----


def test_a_record_has_what_the_header_tells() -> None:
    header = Header(1_800_000_000_000, origin="abcd", seq=3)
    assert json.loads(record("t", header, {"x": 1})) == {
        "topic": "t",
        "timestamp": 1_800_000_000_000,
        "origin": "abcd",
        "seq": 3,
        "data": {"x": 1},
    }


def test_a_record_of_what_came_without_a_header_says_so() -> None:
    found = json.loads(record("t", Header(), "plain"))
    assert (found["timestamp"], found["origin"], found["seq"]) == (None, None, None)


def test_bytes_are_base64_in_a_record_that_says_so() -> None:
    found = json.loads(record("t", Header(), b"\xff\x00"))
    assert (found["data"], found["encoding"]) == ("/wA=", "base64")


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    assert "\n" not in record("t", Header(), {"a": "two\nlines", "b": float("inf")})
