"""What travels beside a message: as other codecs write and read it, and as strangers might."""

from __future__ import annotations

import logging
import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace
from pamqp import commands, header
from pika import BasicProperties

from commlib._packet import PROPERTIES, Fault, Header, Properties
from commlib.transports import _amqp_bytes as wire
from commlib.transports import _amqp_properties as module
from commlib.transports._amqp_properties import Beside, PropertyReader, PropertyWriter
from commlib.transports.base import LinkStats

texts = st.text(st.characters(codec="utf8"), max_size=20)
longs = st.integers(0, 2**63 - 1)
headers = st.builds(
    Header,
    timestamp=st.integers(0, 2**53),
    properties=st.just(PROPERTIES) | st.just(UNSET) | st.builds(Properties, texts, texts),
    origin=texts,
    seq=st.just(-1) | longs,
    reply_to=texts,
    id=texts,
    deadline=longs,
    error=st.none() | st.builds(Fault, texts, texts),
    traceparent=texts,
    tracestate=texts,
    hops=st.lists(texts, max_size=4).map(tuple),
)
plain_headers = st.builds(
    Header,
    timestamp=st.integers(1, 2**64 - 1),
    properties=st.just(PROPERTIES),
    origin=texts.filter(bool),
    seq=longs,
)
ttls = st.none() | st.floats(-10, 2_000_000)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Header, str, float | None]:
    """Requests and replies as they are, or nearly so, with their ids and the time they have."""
    call = draw(texts)
    header = Header(
        draw(st.integers(0, 2**64 - 1)),
        PROPERTIES,
        reply_to=draw(texts),
        id=draw(st.just(call) | texts),
        deadline=draw(st.sampled_from([0, 0, 0, 5])),
    )
    if draw(st.booleans()):
        header.origin, header.seq = draw(texts), draw(longs)
        header.hops = draw(st.sampled_from([(), (), ("a",)]))
    return header, call, draw(ttls)


def fresh() -> PropertyReader:
    return PropertyReader(LinkStats())


def by_pika(**properties: Any) -> bytes:
    return b"".join(BasicProperties(**properties).encode())


def read_by_pika(raw: bytes) -> BasicProperties:
    properties = BasicProperties()
    assert properties.decode(raw) is properties
    return properties


def read_by_pamqp(raw: bytes) -> commands.Basic.Properties:
    found = header.ContentHeader()
    found.unmarshal(b"\x00\x3c\x00\x00" + bytes(8) + raw)
    return found.properties


# ---- written ----


@given(headers, texts, ttls, st.booleans())
def test_what_is_written_others_read(
    given: Header, correlation_id: str, ttl: float | None, persistent: bool
) -> None:
    raw = PropertyWriter().write(given, correlation_id, ttl, persistent)
    table = _expected_table(given, correlation_id)
    told = given.properties if isinstance(given.properties, Properties) else None

    pika = read_by_pika(raw)
    assert (pika.headers or {}) == table
    assert pika.content_type == (None if told is None else told.content_type)
    assert pika.content_encoding == (None if told is None else told.content_encoding)
    assert pika.delivery_mode == (2 if persistent else None)
    assert (pika.correlation_id or "") == correlation_id
    assert (pika.reply_to or "") == given.reply_to
    assert (pika.timestamp or 0) == given.timestamp
    if ttl is None:
        assert pika.expiration is None
    else:
        assert int(pika.expiration) == max(1, int(ttl * 1000)), "whole ms, and never no time"
    for unused in ("priority", "message_id", "type", "user_id", "app_id", "cluster_id"):
        assert getattr(pika, unused) is None


@given(headers.filter(lambda header: header.timestamp < 2**32), texts, ttls, st.booleans())
def test_what_is_written_pamqp_reads_as_well(
    given: Header, correlation_id: str, ttl: float | None, persistent: bool
) -> None:
    raw = PropertyWriter().write(given, correlation_id, ttl, persistent)
    found = read_by_pamqp(raw)
    assert (found.headers or {}) == _expected_table(given, correlation_id)
    assert (found.correlation_id or "") == correlation_id
    assert (found.reply_to or "") == given.reply_to
    assert found.delivery_mode == (2 if persistent else None)
    if given.timestamp:
        assert found.timestamp == datetime.fromtimestamp(given.timestamp, UTC)


def _expected_table(given: Header, correlation_id: str) -> dict[str, Any]:
    """The keys that wire.md, section 3, has for the ``headers`` table: those in use."""
    table: dict[str, Any] = {}
    for name in ("origin", "traceparent", "tracestate", "deadline"):
        if getattr(given, name):
            table[name] = getattr(given, name)
    if given.seq != -1:
        table["seq"] = given.seq
    if given.id and given.id != correlation_id:
        table["id"] = given.id
    if given.error is not None:
        table["error"] = {"type": given.error.type, "message": given.error.message}
    if given.hops:
        table["hops"] = list(given.hops)
    return table


@given(headers, texts, ttls, st.booleans())
def test_a_header_comes_back_as_it_was(
    given: Header, correlation_id: str, ttl: float | None, persistent: bool
) -> None:
    raw = PropertyWriter().write(given, correlation_id, ttl, persistent)
    found = fresh().read(raw)
    if found == Beside():
        assert raw == b"\x00\x00", "there was nothing to be said"
        return
    assert found.header is not None
    assert found.correlation_id == correlation_id
    assert found.ttl == (None if ttl is None else max(1, int(ttl * 1000)) / 1000)
    expected = Header(**{name: getattr(given, name) for name in Header.__struct_fields__})
    expected.id = given.id or correlation_id
    if isinstance(given.properties, Properties) and not given.properties.content_type:
        expected.properties = UNSET
    elif isinstance(given.properties, Properties):
        encoding = given.properties.content_encoding or "utf8"
        expected.properties = Properties(given.properties.content_type, encoding)
    assert found.header == expected


def test_only_what_is_set_is_written() -> None:
    writer = PropertyWriter()
    assert writer.write(None, "", None, False) == b"\x00\x00"
    assert writer.write(Header(), "", None, False) == b"\x00\x00"
    assert writer.write(Header(), "c", None, False) == b"\x04\x00\x01c"
    assert writer.write(None, "", 1.5, True) == b"\x11\x00\x02\x041500"


@pytest.mark.parametrize(
    "write",
    [
        lambda writer, long: writer.write(Header(reply_to=long), "", None, False),
        lambda writer, long: writer.write(None, long, None, False),
        lambda writer, long: writer.write(
            Header(properties=Properties(content_type=long)), "", None, False
        ),
        lambda writer, long: writer.write(Header(reply_to="a\ud800"), "", None, False),
        lambda writer, long: writer.write(Header(5, PROPERTIES, "a\ud800", 1), "", None, False),
    ],
)
def test_what_has_no_room_or_is_no_text_raises_a_value_error(write: Any) -> None:
    with pytest.raises(ValueError):
        write(PropertyWriter(), "x" * 256)


@pytest.mark.parametrize(
    "header",
    [
        Header(timestamp=2**64),
        Header(2**64, PROPERTIES, "ab", 1),
        Header(5, PROPERTIES, "ab", 2**63),
        Header(deadline=2**63),
        Header(seq=-(2**63) - 1),
    ],
)
def test_a_number_that_has_no_room_is_refused(header: Header) -> None:
    """Such a header may come through a bridge, from a peer on another broker."""
    with pytest.raises((ValueError, struct.error)):
        PropertyWriter().write(header, "", None, False)


# ---- the plain ones, which are remembered ----


@given(st.lists(plain_headers | headers, max_size=6))
def test_the_quick_way_of_writing_writes_the_same(given: list[Header]) -> None:
    writer = PropertyWriter()
    for each in given * 2:
        assert writer.write(each, "", None, False) == module._write(each, "", None, False)


@given(st.lists(plain_headers | headers, max_size=6))
def test_the_quick_way_of_reading_reads_the_same(given: list[Header]) -> None:
    reader = fresh()
    for each in given * 2:
        raw = module._write(each, "", None, False)
        assert reader.read(raw) == fresh().read(raw)


@given(st.lists(calls(), max_size=6))
def test_the_quick_way_of_writing_calls_writes_the_same(given: list[Any]) -> None:
    writer = PropertyWriter()
    for each, call, ttl in given * 2:
        assert writer.write(each, call, ttl, False) == module._write(each, call, ttl, False)


@given(st.lists(calls(), max_size=6))
def test_the_quick_way_of_reading_calls_reads_the_same(given: list[Any]) -> None:
    reader = fresh()
    for each, call, ttl in given * 2:
        raw = module._write(each, call, ttl, False)
        assert reader.read(raw) == fresh().read(raw)


@pytest.mark.parametrize(
    "given",
    [Header(5, PROPERTIES, "ab", 1, reply_to="there"), Header(5, PROPERTIES)],
    ids=["request", "reply"],
)
@pytest.mark.parametrize("call", ["c8", "é", "x" * 255])
def test_a_call_of_somebody_known_is_read_quickly(given: Header, call: str) -> None:
    reader, writer = fresh(), PropertyWriter()
    first, second = replace(given, id="c7"), replace(given, id=call, timestamp=6)
    assert reader.read(writer.write(first, "c7", 30.0, False)) == Beside(first, "c7", 30.0)
    assert reader._read_call(writer.write(second, call, 2.5, False)) == Beside(second, call, 2.5)


def test_a_call_with_other_keys_is_not_taken_for_one_without() -> None:
    reader = fresh()
    for fields in ({"id": "c7", "seq": 1}, {"attempt": 2, "seq": 1}, {"sig": {}, "seq": 1}):
        for call in ("c7", "c8", "c7"):
            raw = by_pika(
                **{"content_type": "a", "content_encoding": "b", "headers": fields},
                **{"correlation_id": call, "timestamp": 5},
            )
            assert reader.read(raw) == fresh().read(raw)


def test_an_id_that_is_no_text_is_read_as_slowly_as_it_takes() -> None:
    reader = fresh()
    raw = PropertyWriter().write(Header(5, PROPERTIES, id="c7"), "c7", None, False)
    reader.read(raw)
    strange = raw.replace(b"c7", b"\xff7")
    assert reader.read(strange) == Beside(Header(5, PROPERTIES), "\udcff7")


@given(plain_headers, st.binary(min_size=16, max_size=16), st.binary(max_size=20))
def test_what_ends_in_other_bytes_is_read_as_it_is(
    given: Header, end: bytes, behind: bytes
) -> None:
    raw = module._write(given, "", None, False)
    reader = fresh()
    for each in (raw, raw[:-16] + end, raw + behind, raw[:-16], raw[:-8], end, raw):
        assert reader.read(each) == fresh().read(each)


# What strangers write where ours have their number: bytes that look like it from behind.
NUMBERS = [b"\x00" * 7 + b"\x05", b"\xff" * 8, b"\x00" * 8]
LOOKALIKES: dict[str, Any] = {
    "a table within the table": lambda number: b"\x01xF" + wire.long(b"\x03seql" + number),
    "a list of tables": lambda number: (
        b"\x01xA" + wire.long(b"F" + wire.long(b"\x03seql" + number))
    ),
    "a text": lambda number: b"\x01xS" + wire.long(b"\x03seql" + number),
    "bytes": lambda number: b"\x01xx" + wire.long(b"\x03seql" + number),
    "a name that ends so": lambda number: b"\x04\x03seql" + number,
    "a name that ends so too": lambda number: b"\x06no.seql" + number,
    "the number twice": lambda number: b"\x03seql" + number,
    "a key that was there before": lambda number: (
        b"\x06originS" + wire.long(b"xyz\x03seql" + number)
    ),
    "the number as a text": lambda number: b"\x03seqS" + wire.long(b"\x03seql" + number),
}


@pytest.mark.parametrize("last", LOOKALIKES.values(), ids=LOOKALIKES.keys())
@pytest.mark.parametrize("has_seq", [False, True])
@pytest.mark.parametrize("call", [b"", b"\x02c7"], ids=["message", "call"])
def test_what_looks_like_the_number_of_ours_is_none(last: Any, has_seq: bool, call: bytes) -> None:
    reader = fresh()
    seq = b"\x03seql" + (77).to_bytes(8)
    for number in NUMBERS * 2:
        fields = b"\x06originS" + wire.long(b"ab") + seq * has_seq + last(number)
        raw = b"\xe4\x40" if call else b"\xe0\x40"
        raw += wire.short("application/json") + wire.short("utf8")
        raw += wire.long(fields) + call + (1_700_000_000_000).to_bytes(8)
        assert reader.read(raw) == fresh().read(raw)


def test_what_is_remembered_has_a_bound() -> None:
    reader, writer = fresh(), PropertyWriter()
    for number in range(module.MAX_KNOWN + 10):
        header = Header(1, PROPERTIES, f"o{number}", 1)
        reader.read(writer.write(header, "", None, False))
        header.id = "c7"
        reader.read(writer.write(header, "c7", None, False))
    assert len(reader._known) <= module.MAX_KNOWN
    assert len(reader._known_calls) <= module.MAX_KNOWN
    assert len(writer._known) <= module.MAX_KNOWN


def test_a_sender_with_a_long_name_is_not_remembered() -> None:
    writer = PropertyWriter()
    header = Header(1, PROPERTIES, "x" * module.LONGEST_KNOWN, 1)
    assert writer.write(header, "", None, False) == module._write(header, "", None, False)
    assert not writer._known


def test_each_message_has_a_header_of_its_own() -> None:
    raw = PropertyWriter().write(Header(1, PROPERTIES, "ab", 1), "", None, False)
    reader = fresh()
    reader.read(raw)
    first, second = reader.read(raw).header, reader.read(raw).header
    assert first is not second


# ---- read: what others write ----

tables = st.dictionaries(
    st.sampled_from(["origin", "seq", "id", "deadline", "error", "hops", "traceparent", "else"]),
    st.recursive(
        texts | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.none() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=5,
    ),
)
by_pika_or_pamqp = st.fixed_dictionaries(
    {},
    optional={
        "content_type": texts,
        "content_encoding": texts,
        "headers": tables,
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 255),
        "correlation_id": texts,
        "reply_to": texts,
        "expiration": texts | st.integers(0, 10**6).map(str),
        "message_id": texts,
        "timestamp": st.integers(0, 2**64 - 1),
        "type": texts,
        "user_id": texts,
        "app_id": texts,
        "cluster_id": texts,
    },
)


@given(by_pika_or_pamqp)
@example({"expiration": "٣"})
@example({"priority": 3, "message_id": "m", "cluster_id": "c"})
def test_all_properties_of_others_are_read_or_passed_over(given: dict[str, Any]) -> None:
    stats = LinkStats()
    found = PropertyReader(stats).read(by_pika(**given))
    assert stats.garbage == 0
    if not given:
        assert found == Beside()
        return
    read = found.header
    assert read is not None
    assert found.correlation_id == given.get("correlation_id", "")
    assert read.reply_to == given.get("reply_to", "")
    assert read.timestamp == given.get("timestamp", 0)
    expected = given.get("expiration", "")
    assert found.ttl == (int(expected) / 1000 if expected.isdecimal() else None)
    if given.get("content_type"):
        encoding = given.get("content_encoding") or "utf8"
        assert read.properties == Properties(given["content_type"], encoding)
    else:
        assert read.properties is UNSET
    table = given.get("headers", {})
    for name in ("origin", "traceparent"):
        if isinstance(table.get(name, ""), str):
            assert getattr(read, name) == table.get(name, "")
    if not isinstance(table.get("id", ""), str):
        assert read.id == found.correlation_id
    assert isinstance(read.seq, int)
    assert read.hops == tuple(read.hops)


@pytest.mark.parametrize(
    ("table", "header"),
    [
        ({"seq": "7", "origin": "ab"}, Header(seq=7, origin="ab")),
        ({"seq": "many", "origin": 5}, Header()),
        ({"seq": None, "origin": None, "hops": None, "error": None}, Header()),
        ({"hops": ["a", "b"]}, Header(hops=("a", "b"))),
        ({"hops": "ab"}, Header()),
        ({"hops": ["a", 5]}, Header()),
        ({"hops": {"a": 1}}, Header()),
        ({"error": {"type": "T", "message": "m", "more": 1}}, Header(error=Fault("T", "m"))),
        ({"error": {}}, Header(error=Fault())),
        ({"error": "boom"}, Header()),
        ({"error": {"type": 5}}, Header()),
        ({"deadline": "soon", "traceparent": ["x"]}, Header()),
        ({"reply_to": "x", "timestamp": 5, "properties": {}}, Header()),
        ({"x-death": [{"count": 3, "reason": "expired"}], "CC": ["a"]}, Header()),
        ({"": "", "x" * 128: "y"}, Header()),
    ],
)
def test_a_key_of_a_wrong_type_is_absent_and_an_unknown_one_is_passed_over(
    table: dict[str, Any], header: Header
) -> None:
    assert fresh().read(by_pika(headers=table)) == Beside(header)


def test_a_message_of_which_nobody_says_anything_has_no_header() -> None:
    assert fresh().read(by_pika()) == Beside()
    assert fresh().read(b"") == Beside()


# ---- what makes no sense ----

GARBAGE = [
    b"\x80\x00",
    b"\x80\x00\x05ab",
    b"\x20\x00\x00\x00\x00\x09\x01a",
    b"\x20\x00\xff\xff\xff\xff",
    b"\x20\x00" + wire.long(b"\x01a!"),
    b"\x00\x40\x00\x00",
    b"\x00\x80",
    b"\x00\x01\x00\x00",
    b"\x1f\xfe",
]


@pytest.mark.parametrize("raw", GARBAGE)
def test_properties_that_make_no_sense_are_counted_and_the_message_is_taken_without(
    raw: bytes,
) -> None:
    stats = LinkStats()
    assert PropertyReader(stats).read(raw) == Beside(Header())
    assert stats.garbage == 1


def test_that_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    stats = LinkStats()
    reader = PropertyReader(stats)
    with caplog.at_level(logging.WARNING):
        for raw in GARBAGE:
            reader.read(raw)
    assert stats.garbage == len(GARBAGE)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "table",
    [wire.long(b"\x01a!"), wire.long(b"\x01aV\x01b!\x00"), wire.long(b"\x05a")],
)
def test_a_strange_table_takes_nothing_else_with_it(table: bytes) -> None:
    """The caller waits for an answer, whatever else it may say."""
    raw = b"\xa6\x00" + wire.short("text/plain") + table + wire.short("c7") + wire.short("there")
    found = fresh().read(raw)
    assert found.correlation_id == "c7"
    assert found.header is not None
    assert (found.header.reply_to, found.header.id) == ("there", "c7")


@given(st.binary(max_size=80))
def test_random_bytes_are_survived(raw: bytes) -> None:
    reader = fresh()
    assert reader.read(raw) == reader.read(raw)


@given(plain_headers | headers, st.data())
def test_properties_that_were_cut_or_changed_are_survived(
    given: Header, data: st.DataObject
) -> None:
    reader = fresh()
    given.id = data.draw(st.sampled_from(["c7", given.id]))
    raw = module._write(given, "c7", 5.0, data.draw(st.booleans()))
    reader.read(raw)
    cut = raw[: data.draw(st.integers(0, len(raw)))]
    assert reader.read(cut) == fresh().read(cut)
    changed = bytearray(raw)
    changed[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert reader.read(bytes(changed)) == fresh().read(bytes(changed))
