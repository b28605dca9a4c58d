"""Letters: from each form of a packet to each other one, on tables and bytes."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlib._letter import open_letter, pass_on
from commlib._packet import PROPERTIES, Header, Packet, Properties
from commlib._wire import COMPRESSED, Reader, Refused, Writer
from commlib.compression import compressor, expand
from commlib.exceptions import PayloadTooBig
from commlib.serializer import (
    BytesSerializer,
    JSONSerializer,
    MessagePackSerializer,
    TextSerializer,
)

LIMIT = 1_000_000
SERIALIZERS = [JSONSerializer, MessagePackSerializer, BytesSerializer, TextSerializer]
reader: Reader[Any] = Reader(None)


def forward(packet: Packet, *, native: bool = False, envelope: bool | None = None) -> Packet:
    letter = open_letter(packet, LIMIT)
    return letter.forward(("abcdef01",), native=native, envelope=envelope, limit=LIMIT)


def header_of(packet: Packet) -> Any:
    return json.loads(packet.payload)["header"]


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("data", [{"a": [1, None, "σ"]}, "text", 5, [], b"\x00\xff"], ids=repr)
@pytest.mark.parametrize("way", [(True, False), (False, True), (True, True), (False, False)])
def test_what_is_read_after_the_way_is_what_was_written(
    way: tuple[bool, bool], data: Any, serializer: Any, compression: Any
) -> None:
    if isinstance(data, bytes) and serializer is TextSerializer:
        data = "σ".encode()
    before, after = way
    writer: Writer[Any] = Writer(None, serializer=serializer, compression=compression)
    header = Header(1700000000123, writer.properties, "abcdefgh", 7, id="goal")
    packet = writer.pack(data, header, before)

    passed = forward(packet, native=after)

    assert (passed.header is not None) == after
    expected, found = reader.read(packet), reader.read(passed)
    assert found.data == expected.data
    assert found.header.hops == ("abcdef01",)
    for name in ("timestamp", "origin", "seq", "id"):
        assert getattr(found.header, name) == getattr(header, name)
    assert (expand(passed.payload, LIMIT) is passed.payload) == (compression is None)


def test_a_header_is_left_as_it_was_for_others_who_hold_it() -> None:
    header = Header(5, PROPERTIES, "abcdefgh", 7)
    packet = Packet(b"{}", "t", header, 2.5)
    passed = forward(packet, native=True)
    assert header == Header(5, PROPERTIES, "abcdefgh", 7)
    assert passed.ttl == 2.5


@pytest.mark.parametrize(
    "keys", [b"", b' "seq" : 5 ', b'"properties":{},"x":[{"y":1e5}]', b'"properties":{},"hop":5']
)
@pytest.mark.parametrize("order", [b'{"header":{%b},"data":1.50}', b'{"data":1.50,"header":{%b}}'])
def test_a_header_in_an_envelope_is_kept_to_the_letter(keys: bytes, order: bytes) -> None:
    passed = forward(Packet(order % keys))
    comma = b"," if keys else b""
    assert passed.payload == (
        b'{"header":{%b%b"hops":["abcdef01"]},"data":1.50}' % (keys.rstrip(), comma)
    )


def test_hops_that_are_there_are_replaced() -> None:
    packet = Packet(b'{"header":{"hops":["00000000"],"level":"INFO","properties":{}},"data":{}}')
    letter = open_letter(packet, LIMIT)
    assert letter.header.hops == ("00000000",)
    hops = (*letter.header.hops, "abcdef01")
    passed = letter.forward(hops, native=False, envelope=None, limit=LIMIT)
    assert header_of(passed) == {
        "hops": ["00000000", "abcdef01"],
        "level": "INFO",
        "properties": {},
    }


def test_further_keys_of_a_packed_header_are_kept() -> None:
    tree = {"header": {"properties": {}, "level": "INFO"}, "data": {"a": b"\xff"}}
    passed = forward(Packet(msgspec.msgpack.encode(tree)))
    assert msgspec.msgpack.decode(passed.payload) == {
        "header": {"properties": {}, "level": "INFO", "hops": ["abcdef01"]},
        "data": {"a": b"\xff"},
    }


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a":1}',
        b'{"header":{},"data":{},"more":1}',
        b'{"header":{"stamp":5},"data":{}}',
        b'{"header":5,"data":{}}',
        b"[1]",
        b"x",
        b"",
        b"\x82",
        b"\xff\xfe",
        zlib.compress(b'{"a":1}'),
        msgspec.msgpack.encode({"a": 1}),
    ],
)
def test_what_is_no_envelope_is_bare_and_passes_untouched(payload: bytes) -> None:
    letter = open_letter(Packet(payload), LIMIT)
    assert letter.is_bare
    assert forward(Packet(payload)).payload is payload
    native = forward(Packet(payload), native=True)
    assert native.payload is payload
    assert native.header is not None
    assert native.header.hops == ("abcdef01",)


def test_what_has_the_keys_of_an_envelope_may_be_data() -> None:
    packet = Packet(b'{"header":{"seq":1},"data":{}}')
    assert not open_letter(packet, LIMIT).is_bare
    assert open_letter(packet, LIMIT, only_properties=True).is_bare


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_does_not_have_pass(number: str) -> None:
    payload = b'{"header":{"properties":{}},"data":{"a":%b}}' % number.encode()
    envelope = reader.read(forward(Packet(payload)))
    assert envelope.header.hops == ("abcdef01",)
    assert envelope.data == {"a": None if number == "NaN" else float("inf")}


def test_a_wrong_type_in_a_header_is_no_matter_and_stays() -> None:
    packet = Packet(b'{"header":{"properties":{},"seq":"x","timestamp":null},"data":1}')
    assert header_of(forward(packet)) == {
        "properties": {},
        "seq": "x",
        "timestamp": None,
        "hops": ["abcdef01"],
    }
    native = forward(packet, native=True)
    assert native.header is not None
    assert native.header.seq == -1


@pytest.mark.parametrize(
    ("payload", "data"),
    [(b"ON", "ON"), (b"\xff\xfe", b"\xff\xfe"), (b"21.5", 21.5), (b"NaN", None), (b"", "")],
)
def test_whatever_is_bare_can_be_wrapped(payload: bytes, data: Any) -> None:
    passed = forward(Packet(payload), envelope=True)
    envelope = reader.read(passed)
    assert envelope.data == data
    assert envelope.header.timestamp > 1.7e12


def test_a_native_payload_that_is_not_what_its_header_says_is_wrapped_as_what_it_is() -> None:
    for payload, data in ((b"ON", "ON"), (b"\xff\xfe", b"\xff\xfe")):
        for properties in (PROPERTIES, Properties("application/x-msgpack", "binary")):
            passed = forward(Packet(payload, "", Header(5, properties)))
            assert reader.read(passed).data == data


def test_the_data_alone_is_what_envelope_false_asks_for() -> None:
    packet = Packet(b'{"header":{"properties":{}},"data":{"a": 1}}')
    assert forward(packet, envelope=False).payload == b'{"a": 1}'
    assert forward(Packet(b"{}", "", Header(5)), envelope=False).payload == b"{}"


def test_what_was_compressed_natively_says_so_again_after_two_ways() -> None:
    writer: Writer[Any] = Writer(None, serializer=BytesSerializer, compression="zlib")
    packet = writer.pack(b"\x00" * 1000, Header(5, writer.properties), True)
    assert packet.header is not None
    assert packet.header.properties == Properties("application/octet-stream", COMPRESSED)

    wrapped = forward(packet)
    inner = msgspec.msgpack.decode(expand(wrapped.payload, LIMIT))
    assert inner["header"]["properties"]["content_encoding"] == "binary"
    native = forward(wrapped, native=True)

    assert native.header is not None
    assert native.header.properties == packet.header.properties
    assert reader.read(native).data == b"\x00" * 1000


# ---- bounds ----


def test_what_is_too_big_is_refused_on_both_sides() -> None:
    wrapped = b'{"header":{"properties":{}},"data":"%b"}' % (b"x" * 100)
    with pytest.raises(Refused, match="over the limit of 50"):
        open_letter(Packet(wrapped), 50)
    letter = open_letter(Packet(wrapped), LIMIT)
    for native in (True, False):
        with pytest.raises(PayloadTooBig):
            letter.forward((), native=native, envelope=None, limit=50)
    with pytest.raises(PayloadTooBig):
        pass_on(Packet(wrapped), b"abcdef01", 50)
    with pytest.raises(PayloadTooBig):
        open_letter(Packet(b'"%b"' % wrapped), LIMIT).forward(
            (), native=True, envelope=None, limit=50
        )


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_what_expands_too_far_is_refused(compression: str) -> None:
    compress = compressor(compression)
    assert compress is not None
    bomb = compress(b'"%b"' % (b"x" * LIMIT))
    for header in (None, Header(5, PROPERTIES)):
        with pytest.raises(Refused, match="over the limit"):
            open_letter(Packet(bomb, "", header), 10_000)


# ---- calls ----


@pytest.mark.parametrize(
    "payload",
    [
        b'{"header":{"reply_to":"x"},"data":{}}',
        b'{"header":{"reply_to":"x"}}',
        b'{"header":{"reply_to":"x","seq":null},"data":{"a":NaN},"more":1}',
        zlib.compress(b'{"header":{"reply_to":"x"},"data":{}}'),
        msgspec.msgpack.encode({"header": {"reply_to": "x"}, "data": {}}),
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_a_call_is_read_leniently_and_given_another_header(payload: bytes, native: bool) -> None:
    letter = open_letter(Packet(payload), LIMIT, is_call=True)
    assert letter.header.reply_to == "x"
    passed = letter.pack(Header(5, reply_to="y"), native=native, limit=LIMIT)
    envelope = Reader(None, always_wrapped=True).read(passed)
    assert envelope.header.reply_to == "y"
    assert isinstance(envelope.data, dict)


@pytest.mark.parametrize("payload", [b"", b"x", b"[]", b'{"data":{}}', b"\x81\xa1a\x01"])
def test_what_is_no_call_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused, match="no envelope"):
        open_letter(Packet(payload), LIMIT, is_call=True)


# ---- the short way ----


def test_the_short_way_is_the_same_as_the_long_one() -> None:
    writer: Writer[Any] = Writer(None)
    packet = writer.pack({"a": [1, "σ"]}, Header(5, PROPERTIES, "abcdefgh", 7), False)
    passed = pass_on(packet, b"abcdef01", LIMIT)
    assert passed == forward(packet)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"header":{"properties":{},"hops":[]},"data":{}}',
        b'{"header":{},"data":{}}',
        b'{"header":{"properties":{}},"data":{},"more":1}',
        b'{"header":{"properties":{}},"data":NaN}',
        b'{"a":1}',
        b"x",
        zlib.compress(b"{}"),
        msgspec.msgpack.encode({"header": {"properties": {}}, "data": {}}),
    ],
)
def test_what_is_not_as_most_are_goes_the_long_way(payload: bytes) -> None:
    assert pass_on(Packet(payload), b"abcdef01", LIMIT) is None


@given(st.binary(max_size=60) | st.binary(max_size=20).map(lambda tail: b"\x28\xb5\x2f\xfd" + tail))
def test_any_bytes_are_passed_on_or_refused(payload: bytes) -> None:
    for native in (True, False):
        for envelope in (None, True, False):
            with suppress(Refused):  # it begins as zstd does, and is none
                passed = forward(Packet(payload), native=native, envelope=envelope)
                assert passed.payload == payload or envelope
    assert pass_on(Packet(payload), b"abcdef01", LIMIT) is None
    with pytest.raises(Refused):
        open_letter(Packet(payload), LIMIT, is_call=True)
