"""The serializers by themselves; what they make of messages is in test_wire.py."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import pytest
import zstandard

from commlib._packet import PROPERTIES, Header, Packet
from commlib._wire import Reader, Refused, Writer
from commlib.exceptions import SerializationError
from commlib.serializer import (
    BinarySerializer,
    BytesSerializer,
    JSONSerializer,
    MessagePackSerializer,
    Serializer,
    TextSerializer,
)
from messages import Sonar

HEADER = Header(1_700_000_000_000, PROPERTIES)


def written(data: Any, kind: Any, serializer: Any, **options: Any) -> Packet:
    """A wrapped message."""
    writer: Writer[Any] = Writer(kind, serializer=serializer, **options)
    return writer.pack(data, Header(1, writer.properties), False)


@pytest.mark.parametrize(
    "serializer", [JSONSerializer, JSONSerializer(), JSONSerializer(json.loads, json.dumps)]
)
def test_json_is_text_in_and_data_out(serializer: Any) -> None:
    text = serializer.serialize({"a": [1, -2.5, None, "ü"]})
    assert isinstance(text, str)
    assert json.loads(text) == {"a": [1, -2.5, None, "ü"]}
    assert serializer.deserialize(text) == {"a": [1, -2.5, None, "ü"]}


def test_json_reads_bytes_and_what_other_writers_make_of_infinity() -> None:
    assert JSONSerializer.deserialize(b'[1e999, -Infinity, "x"]') == [math.inf, -math.inf, "x"]


def test_message_pack_keeps_bytes_and_all_floats() -> None:
    data = {"raw": b"\xff\x00", "far": math.inf}
    assert MessagePackSerializer.deserialize(MessagePackSerializer.serialize(data)) == data


def test_bytes_and_text_are_left_as_they_are() -> None:
    assert BytesSerializer.serialize(memoryview(b"\xff")) == b"\xff"
    assert BytesSerializer.deserialize("x") == b"x"
    assert BytesSerializer.serialize("ü") == "ü".encode()
    assert TextSerializer.serialize("ü") == TextSerializer.serialize("ü".encode()) == "ü"
    with pytest.raises(SerializationError):
        TextSerializer.serialize(b"\xff")
    assert TextSerializer.deserialize("ü".encode()) == "ü"
    assert BinarySerializer is BytesSerializer


@pytest.mark.parametrize(
    ("serializer", "garbage"),
    [(JSONSerializer, b"{"), (MessagePackSerializer, b"\xc1"), (TextSerializer, b"\xff")],
)
def test_garbage_is_refused(serializer: Any, garbage: bytes) -> None:
    with pytest.raises(SerializationError):
        serializer.deserialize(garbage)


@pytest.mark.parametrize(
    "serializer", [JSONSerializer, MessagePackSerializer, BytesSerializer, TextSerializer]
)
def test_what_cannot_be_written_is_refused(serializer: Any) -> None:
    with pytest.raises(SerializationError, match="object cannot be written"):
        serializer.serialize(object())


@pytest.mark.parametrize("wrong", [json, "json", 5, Serializer])
def test_what_is_no_serializer_is_refused_with_what_it_lacks(wrong: Any) -> None:
    with pytest.raises(TypeError, match="CONTENT_TYPE"):
        Writer(None, serializer=wrong)


# ---- what the readers need to know ----


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"x is no text compressed", bytes), ("7", str), (Sonar(1.0), Sonar), ([1.5], None)],
)
@pytest.mark.parametrize(
    "serializer", [JSONSerializer, MessagePackSerializer, BytesSerializer, TextSerializer]
)
def test_readers_need_not_be_told_of_our_serializers(data: Any, kind: Any, serializer: Any) -> None:
    found = Reader(kind).read(written(data, kind, serializer)).data
    if kind is None and serializer in (BytesSerializer, TextSerializer):
        assert json.loads(found) == data
    else:
        assert found == data


class Shouting(Serializer):
    """A serializer of a program's own."""

    CONTENT_TYPE = "application/x-shouting"

    @staticmethod
    def serialize(data: Any) -> bytes:
        return json.dumps(data).upper().encode()

    @staticmethod
    def deserialize(data: str | bytes) -> Any:
        return json.loads(data.lower())


def test_a_reader_without_the_programs_own_serializer_names_it() -> None:
    packet = written(Sonar(1.0), Sonar, Shouting)
    with pytest.raises(Refused, match="written as application/x-shouting: give this endpoint"):
        Reader(Sonar).read(packet)
    assert Reader(Sonar, serializer=Shouting).read(packet).data == Sonar(1.0)
    # Who takes everything gets the bytes, and the header says what they are.
    envelope = Reader(None).read(packet)
    assert envelope.data.startswith(b'{"DISTANCE":')
    assert envelope.header.properties == Writer(None, serializer=Shouting).properties


def test_a_reader_with_a_serializer_of_its_own_reads_all_the_others() -> None:
    for serializer in (None, MessagePackSerializer, BytesSerializer, TextSerializer, Shouting):
        for header in (HEADER, None):
            if header is None and serializer is not None:
                continue  # a bare payload does not say what it is
            writer: Writer[Sonar] = Writer(Sonar, serializer=serializer)
            header = header and Header(1, writer.properties)
            packet = writer.pack(Sonar(1.0), header, False)
            assert Reader(Sonar, serializer=Shouting).read(packet).data == Sonar(1.0)


def test_what_a_serializer_of_the_programs_own_raises_refuses_the_message() -> None:
    packet = written(Sonar(1.0), Sonar, Shouting)
    broken = Packet(packet.payload.replace(b'{"DISTANCE"', b'["DISTANCE"'))
    with pytest.raises(Refused, match="the serializer refused it"):
        Reader(Sonar, serializer=Shouting).read(broken)


def test_the_form_of_released_peers_with_a_serializer_of_their_own_is_read() -> None:
    """They serialize the envelope as well."""
    tree = {"header": {"properties": {}}, "data": {"distance": 3.0}}
    packet = Packet(Shouting.serialize(tree))
    assert Reader(Sonar, serializer=Shouting).read(packet).data == Sonar(3.0)


def test_json_functions_of_the_program_write_and_read_the_whole_payload() -> None:
    serializer = JSONSerializer(
        loads=lambda text: json.loads(text), dumps=lambda data: json.dumps(data, indent=1)
    )
    packet = written(Sonar(1.0, raw=b"\xff"), Sonar, serializer)
    assert packet.payload.startswith(b'{\n "header": {\n  "timestamp": 1,')
    for reader in (Reader(Sonar), Reader(Sonar, serializer=serializer)):
        assert reader.read(packet).data == Sonar(1.0, raw=b"\xff")


ZLIB, ZSTD = zlib.compress(b"secret" * 100), zstandard.compress(b"secret" * 100)


@pytest.mark.parametrize("raw", [ZLIB, ZSTD])
@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("serializer", [BytesSerializer, MessagePackSerializer])
def test_bytes_that_are_compressed_themselves_arrive_as_they_are(
    raw: bytes, compression: Any, native: bool, serializer: Any
) -> None:
    writer: Writer[bytes] = Writer(bytes, serializer=serializer, compression=compression)
    packet = writer.pack(raw, Header(1, writer.properties), native)
    for kind in (bytes, None):
        assert Reader(kind).read(packet).data == raw


@pytest.mark.parametrize("data", [b"\xff", [1, 2], "text", 7, {"a": b"x"}])
def test_bare_message_pack_is_read_by_who_knows_that_it_is(data: Any) -> None:
    packet = Writer(None, serializer=MessagePackSerializer).pack(data, None, False)
    assert Reader(None, serializer=MessagePackSerializer).read(packet).data == data


class Broken(Shouting):
    @staticmethod
    def serialize(data: Any) -> Any:
        return {"a": KeyError("mine"), "b": 5}[data] if data == "b" else {}[data]


@pytest.mark.parametrize("data", ["a", "b"])
@pytest.mark.parametrize("serializer", [Broken, JSONSerializer(dumps=Broken.serialize)])
@pytest.mark.parametrize("header", [HEADER, None])
def test_what_a_serializer_of_the_programs_own_does_wrong_is_a_serialization_error(
    data: Any, serializer: Any, header: Header | None
) -> None:
    with pytest.raises(SerializationError, match="the serializer"):
        Writer(None, serializer=serializer).pack(data, header, False)


def test_bare_bytes_are_taken_as_they_are_by_who_knows_that_they_are_bytes() -> None:
    for raw in (b"", b"123", b"null", b'{"header":{},"data":1}', b"\x78\x01", b"\xff" * 10):
        packet = Writer(bytes, serializer=BytesSerializer).pack(raw, None, False)
        assert packet.payload == raw
        assert Reader(bytes, serializer=BytesSerializer).read(packet).data == raw
