"""Numbers, texts and tables of AMQP: as other codecs write and read them, and hostile bytes."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import decode, encode
from pika import data as pika_data

from commlib.transports import _amqp_bytes as wire
from commlib.transports._amqp_bytes import DEEPEST, Malformed

texts = st.text(st.characters(codec="utf8"), max_size=20)
names = texts.filter(lambda text: len(text.encode()) <= 128)  # as much as pamqp takes
leaves = texts | st.booleans() | st.integers(-(2**63), 2**63 - 1)
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
tables = st.dictionaries(names, values, max_size=4)


# ---- strings ----


@given(texts, st.binary(max_size=5))
def test_a_short_string_comes_back_as_it_was(text: str, behind: bytes) -> None:
    raw = b"head" + wire.short(text)
    assert wire.read_short(raw + behind, 4) == (text, len(raw))


@pytest.mark.parametrize("text", ["x" * 255, "é" * 127 + "x", ""])
def test_the_longest_short_string_is_255_bytes(text: str) -> None:
    assert wire.short(text) == encode.short_string(text)
    assert wire.read_short(wire.short(text), 0) == (text, 1 + len(text.encode()))


@pytest.mark.parametrize("text", ["x" * 256, "é" * 128])
def test_a_text_beyond_that_is_refused_with_its_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"is 256 bytes long, and AMQP has room for 255"):
        wire.short(text)


@given(st.binary(max_size=300), st.binary(max_size=5))
def test_a_long_string_comes_back_as_it_was(raw: bytes, behind: bytes) -> None:
    assert wire.long(raw) == struct.pack("!I", len(raw)) + raw
    assert wire.read_long(b"head" + wire.long(raw) + behind, 4) == (raw, 8 + len(raw))


def test_bytes_that_are_no_utf8_are_read_all_the_same() -> None:
    assert wire.read_short(b"\x02\xff\xfe", 0) == ("\ufffd\ufffd", 3)
    assert wire.read_table(b"\x00\x00\x00\x09\x01aS\x00\x00\x00\x02\xff\xfe", 0)[0] == {
        "a": "\ufffd\ufffd"
    }


# ---- tables ----


@given(tables, st.binary(max_size=5))
def test_a_table_comes_back_as_it_was(fields: dict[str, Any], behind: bytes) -> None:
    raw = b"head" + wire.table(fields)
    found, end = wire.read_table(raw + behind, 4)
    assert (found, end) == (fields, len(raw))
    assert _kinds(found) == _kinds(fields), "True is not 1"


def _kinds(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _kinds(inner) for name, inner in value.items()}
    return list(map(_kinds, value)) if isinstance(value, list) else type(value)


@given(tables)
def test_others_read_a_table_of_ours(fields: dict[str, Any]) -> None:
    raw = wire.table(fields)
    assert decode.field_table(raw) == (len(raw), fields)
    assert pika_data.decode_table(raw, 0) == (fields, len(raw))


@given(tables)
def test_a_table_of_others_is_read(fields: dict[str, Any]) -> None:
    for raw in (encode.field_table(fields), b"".join(_pieces(fields))):
        assert wire.read_table(raw, 0) == (fields, len(raw))


def _pieces(fields: dict[str, Any]) -> list[bytes]:
    pieces: list[bytes] = []
    pika_data.encode_table(pieces, fields)
    return pieces


def test_all_that_pika_writes_is_read() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    raw = b"".join(
        _pieces(
            {
                "nothing": None,
                "bytes": b"\xff",
                "decimal": Decimal("12.5"),
                "whole": Decimal("7"),
                "moment": moment,
                "big": 2**62,
                "small": -5,
                "list": [None, {"a": 1}],
            }
        )
    )
    found, end = wire.read_table(raw, 0)
    assert end == len(raw)
    assert found == {
        **{"nothing": None, "bytes": b"\xff", "decimal": 12.5, "whole": 7.0},
        **{"moment": int(moment.timestamp()), "big": 2**62, "small": -5},
        "list": [None, {"a": 1}],
    }


@pytest.mark.parametrize(
    ("field", "value"),  # the table of the errata of RabbitMQ, section 3
    [
        (b"t\x01", True),
        (b"t\x00", False),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65_534),
        (b"I\xff\xff\xff\xfe", -2),
        (b"i\xff\xff\xff\xfe", 2**32 - 2),
        (b"l" + struct.pack("!q", -3), -3),
        (b"L" + struct.pack("!q", -3), -3),
        (b"f" + struct.pack("!f", 0.5), 0.5),
        (b"d" + struct.pack("!d", -0.1), -0.1),
        (b"D\x02\x00\x00\x04\xd2", 12.34),
        (b"D\xff\x00\x00\x00\x01", 1e-255),
        (b"S\x00\x00\x00\x02ab", "ab"),
        (b"x\x00\x00\x00\x02ab", b"ab"),
        (b"A\x00\x00\x00\x03b\x01V", [1, None]),
        (b"A\x00\x00\x00\x00", []),
        (b"T" + struct.pack("!Q", 2**63), 2**63),
        (b"F\x00\x00\x00\x04\x01ab\x07", {"a": 7}),
        (b"F\x00\x00\x00\x00", {}),
        (b"V", None),
    ],
)
def test_every_type_of_a_field_that_rabbitmq_knows_is_read(field: bytes, value: object) -> None:
    raw = wire.long(b"\x01x" + field + b"\x01yb\x01")
    found, end = wire.read_table(raw, 0)
    assert found == {"x": value, "y": 1}
    assert type(found["x"]) is type(value)
    assert end == len(raw)


def test_what_is_no_number_among_the_floats_is_read() -> None:
    raw = wire.long(b"\x01xd" + struct.pack("!d", math.nan))
    assert math.isnan(wire.read_table(raw, 0)[0]["x"])


def test_of_two_fields_of_one_name_the_last_one_counts() -> None:
    assert wire.read_table(wire.long(b"\x01ab\x01\x01ab\x02"), 0)[0] == {"a": 2}


# ---- what makes no sense ----


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "cut off"),
        (b"\x00\x00\x00", "cut off"),
        (b"\x00\x00\x00\x05\x01a", "cut off"),
        (b"\xff\xff\xff\xff", "cut off"),
        (wire.long(b"\x05a"), "cut off"),
        (wire.long(b"\x01a"), "cut off"),
        (wire.long(b"\x01al\x00"), "a number that is cut off"),
        (wire.long(b"\x01aD\x01\x00\x00"), "a number that is cut off"),
        (wire.long(b"\x01aS\x00\x00\x00\x09xy"), "a string that is cut off"),
        (wire.long(b"\x01aA\x00\x00\x00\x02b"), "cut off"),
        (wire.long(b"\x01aF\x00\x00\x00\x02\x05a"), "cut off"),
        (wire.long(b"\x01a!"), "unknown type 0x21"),
        (wire.long(b"\x01a\x00"), "unknown type 0x00"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(raw: bytes, text: str) -> None:
    with pytest.raises(Malformed, match=text):
        wire.read_table(raw, 0)


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_tables_within_tables_have_a_bound(kind: bytes) -> None:
    def nested(levels: int) -> bytes:
        inner = b""
        for _ in range(levels):
            inner = b"\x01a" * (kind == b"F") + kind + wire.long(inner)
        return wire.long(inner if kind == b"F" else b"\x01a" + inner)

    wire.read_table(nested(DEEPEST), 0)
    with pytest.raises(Malformed, match=f"more than {DEEPEST} deep"):
        wire.read_table(nested(DEEPEST + 1), 0)
    with pytest.raises(Malformed):
        wire.read_table(nested(5000), 0)


def read_all(raw: bytes, at: int = 0) -> None:
    """Read it as each thing that there is; nothing but Malformed may come of that."""
    for reader in (wire.read_short, wire.read_long, wire.read_table):
        try:
            _, end = reader(raw, at)
        except Malformed:
            continue
        assert at < end <= len(raw)


@given(st.binary(max_size=60), st.integers(0, 70))
@example(b"\x01", 0)
@example(b"", 5)
def test_random_bytes_are_read_or_refused(raw: bytes, at: int) -> None:
    read_all(raw, at)
    read_all(wire.long(raw))


@given(tables, st.data())
def test_a_table_that_was_cut_or_changed_is_read_or_refused(
    fields: dict[str, Any], data: st.DataObject
) -> None:
    raw = wire.table(fields)
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(Malformed):
        wire.read_table(raw[:cut], 0)
    changed = bytearray(raw)
    changed[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    read_all(bytes(changed))
