"""From messages to bytes and back: the writer, the reader, their limits, and arbitrary bytes.

What exact bytes peers send and get is in ``tests/wire``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from commlib import _packet
from commlib._packet import PROPERTIES, Fault, Header, Packet, now_ms, unix_ms
from commlib._wire import Reader, Refused, Writer, pack
from commlib.exceptions import PayloadTooBig, SerializationError
from commlib.msg import Object, PubSubMessage
from commlib.serializer import (
    BytesSerializer,
    JSONSerializer,
    MessagePackSerializer,
    Serializer,
    TextSerializer,
)
from messages import AddTwoInts, AttrsSonar, DataclassSonar, Pose, PydanticSonar, Sonar, SonarDict

HEADER = Header(1_700_000_000_000, PROPERTIES, "ab", 7)
FORMS = {
    "wrapped": (HEADER, False),
    "bare": (None, False),
    "native": (HEADER, True),
}


class Deep(PubSubMessage):
    """A message with a bit of everything."""

    number: int = 0
    real: float = 0.0
    maybe: float | None = None
    flag: bool = False
    text: str = ""
    raw: bytes = b""
    items: list[int] = []
    reals: list[float] = []
    names: dict[str, int] = {}
    pose: Pose = Pose()
    poses: list[Pose] = []
    by_name: dict[str, Pose] = {}
    pair: tuple[int, str] = (0, "")
    perhaps: Pose | None = None
    anything: Any = None


# ---- the writer ----


@pytest.mark.parametrize("form", FORMS)
def test_a_message_is_written_and_read_in_every_form(form: str) -> None:
    header, native = FORMS[form]
    message = Sonar(2.0, count=-1, label="ü", pose=Pose(1.0))

    packet = Writer(Sonar).pack(message, header, native)
    envelope = Reader(Sonar).read(packet)

    assert envelope.data == message
    assert packet.header is (header if native else None)
    assert envelope.header == (header or Header())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (DataclassSonar, DataclassSonar(2.0, "a")),
        (AttrsSonar, AttrsSonar(2.0, "a")),
        (PydanticSonar, PydanticSonar(distance=2.0, label="a")),
        (SonarDict, SonarDict(distance=2.0, label="a")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_class_is_written_and_read(kind: Any, message: Any, form: str) -> None:
    packet = Writer(kind).pack(message, *FORMS[form])

    assert Reader(kind).read(packet).data == message
    assert (
        Reader(kind).read(Packet(zlib.compress(packet.payload), "", packet.header)).data == message
    )
    with pytest.raises(SerializationError):
        Reader(kind).read(Writer(None).pack({"distance": "far"}, *FORMS[form]))


@pytest.mark.parametrize(
    "wrong", [Pose(), 5, None, "text", [], {"distance": "far"}, {"label": "none"}, Sonar], ids=repr
)
def test_a_writer_refuses_what_is_no_message_of_its_class(wrong: Any) -> None:
    with pytest.raises(SerializationError, match="Sonar"):
        Writer(Sonar).pack(wrong, None, False)
    with pytest.raises(SerializationError, match="Sonar"):
        Writer(Sonar).encode(wrong)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("Sonar", "give the class of the messages"),
        (Sonar(1.0), "give its class, Sonar"),
        (DataclassSonar(1.0), "give its class, DataclassSonar"),
    ],
)
def test_a_message_or_a_name_is_no_class_of_messages(wrong: Any, text: str) -> None:
    for make in (Writer, Reader):
        with pytest.raises(TypeError, match=text):
            make(wrong)


@pytest.mark.parametrize("kind", [Sonar, DataclassSonar, AttrsSonar])
def test_a_dict_with_a_key_that_is_no_field_is_refused_where_it_is_written(kind: Any) -> None:
    with pytest.raises(SerializationError, match=r"no field 'distnce'; did you mean distance\?"):
        Writer(kind).pack({"distnce": 1.0}, None, False)
    assert Reader(kind).read(Packet(b'{"distance":1.0,"more":2}')).data == kind(distance=1.0)


def test_a_message_without_fields_takes_no_keys() -> None:
    class Nothing(PubSubMessage):
        pass

    with pytest.raises(SerializationError, match="has no field 'a'; it has none"):
        Writer(Nothing).pack({"a": 1}, None, False)
    assert Reader(Nothing).read(Writer(Nothing).pack({}, None, False)).data == Nothing()


def test_the_tag_of_a_message_is_no_unknown_key() -> None:
    class Tagged(PubSubMessage, tag_field="kind", tag="tagged"):
        x: int = 0

    for data in ({"kind": "tagged", "x": 1}, {"x": 1}):
        packet = Writer(Tagged).pack(data, None, False)
        assert Reader(Tagged).read(packet).data == Tagged(x=1)


def test_any_is_any_data() -> None:
    for data in ({"x": 1}, [1], None, "text"):
        packet = Writer(Any).pack(data, *FORMS["wrapped"])
        assert Reader(Any).read(packet).data == data


def test_what_the_header_says_of_json_is_one_object_that_transports_know() -> None:
    writer = Writer(Pose)
    packet = writer.pack(Pose(), Header(1, writer.properties), native=True)
    assert packet.header is not None
    assert packet.header.properties is PROPERTIES


def test_a_writer_takes_a_dict_as_the_message_it_spells() -> None:
    packet = Writer(Sonar).pack({"distance": "2.5", "pose": {"x": 1}}, None, False)

    assert json.loads(packet.payload)["distance"] == 2.5


def test_a_message_of_a_subclass_is_written_with_all_its_fields() -> None:
    class Better(Sonar):
        quality: int = 5

    assert json.loads(Writer(Sonar).pack(Better(1.0), None, False).payload)["quality"] == 5


@pytest.mark.parametrize(
    "wrong",
    [object(), {"a": object()}, {1j: 1}, "\ud800", lambda: None, ["\udfff"], {(1, 2): 3}],
    ids=["object", "object inside", "complex key", "text", "function", "text inside", "tuple key"],
)
def test_what_json_has_no_form_for_is_refused(wrong: Any) -> None:
    for write in (
        lambda: Writer(None).pack(wrong, None, False),
        lambda: pack(wrong, HEADER, False),
        lambda: Writer(None).encode(wrong),
    ):
        with pytest.raises(SerializationError, match="JSON"):
            write()


def test_data_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(SerializationError):
        Writer(None).pack(endless, None, False)


def test_a_raw_part_is_put_into_the_envelope_as_it_is() -> None:
    raw = Writer(AddTwoInts.Request).encode(AddTwoInts.Request(a=1, b=2))

    assert pack(raw, Header(5, id="x"), False).payload == (
        b'{"header":{"timestamp":5,"id":"x"},"data":{"a":1,"b":2}}'
    )


def test_a_header_key_with_its_default_is_not_written() -> None:
    for header, written in (
        (Header(), b"{}"),
        (Header(seq=0), b'{"seq":0}'),
        (Header(error=Fault("E", "")), b'{"error":{"type":"E","message":""}}'),
        (Header(deadline=5, reply_to="x"), b'{"reply_to":"x","deadline":5}'),
    ):
        assert pack(None, header, False).payload == b'{"header":%b,"data":null}' % written


# ---- limits ----


@pytest.mark.parametrize("form", FORMS)
def test_the_limit_counts_every_byte_on_the_wire(form: str) -> None:
    header, native = FORMS[form]
    size = len(Writer(None).pack("x" * 100, header, native).payload)

    assert Writer(None, limit=size).pack("x" * 100, header, native)
    with pytest.raises(PayloadTooBig) as refused:
        Writer(None, limit=size - 1).pack("x" * 100, header, native)

    assert (refused.value.size, refused.value.limit) == (size, size - 1)


def test_a_payload_over_the_limit_is_refused_before_it_is_looked_at() -> None:
    assert Reader(None, limit=10).read(Packet(b" " * 8 + b"12")).data == 12
    with pytest.raises(Refused, match="11 bytes"):
        Reader(None, limit=10).read(Packet(b" " * 9 + b"12"))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "zstd": zstandard.compress,
    "zstd without its size": zstandard.ZstdCompressor(write_content_size=False).compress,
}


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_the_limit_holds_for_what_is_decompressed_too(compress: Callable[[bytes], bytes]) -> None:
    for size, fits in ((999, True), (1000, True), (1001, False), (100_000, False)):
        packet = Packet(compress(b"5" + b" " * (size - 1)))
        assert len(packet.payload) < 1000
        if fits:
            assert Reader(None, limit=1000).read(packet).data == 5
        else:
            with pytest.raises(Refused, match="limit of 1000"):
                Reader(None, limit=1000).read(packet)


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_a_decompression_bomb_takes_no_more_memory_than_the_limit(
    compress: Callable[[bytes], bytes],
) -> None:
    bomb = Packet(compress(bytes(64_000_000)))
    reader: Reader[Any] = Reader(Sonar, limit=1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="limit"):
            reader.read(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8_000_000


def test_a_bomb_in_a_bomb_is_not_set_off() -> None:
    inner = zlib.compress(b'{"distance": 1.0}')

    with pytest.raises(Refused):
        Reader(Sonar).read(Packet(zlib.compress(inner)))


@pytest.mark.parametrize("depth", [1000, 10_000, 200_000])
@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (b"[", b"]"),
        (b'{"a":', b"}"),
        (b'{"header":{},"data":[', b"]}"),
        (b"\x91", b""),
        (b"\x81\xa1a", b""),
    ],
    ids=["arrays", "objects", "envelopes", "msgpack arrays", "msgpack maps"],
)
def test_deep_nesting_is_refused_or_text_and_never_more(
    begin: bytes, end: bytes, depth: int
) -> None:
    payload = Packet(begin * depth + b"1" + end * depth)

    with pytest.raises(Refused):
        Reader(Sonar).read(payload)
    with pytest.raises(Refused):
        Reader(AddTwoInts.Request, always_wrapped=True).read(payload)
    Reader(None).read(payload)


def test_deep_nesting_where_anything_goes_does_not_end_the_reader() -> None:
    for depth in (100, 10_000):
        payload = b'{"anything":' + b"[" * depth + b"]" * depth + b',"real":NaN}'
        try:
            Reader(Deep).read(Packet(payload))
        except Refused:
            assert depth == 10_000


def test_zstd_without_the_extra_is_refused_by_the_name_of_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)

    with pytest.raises(Refused, match=r"commlib-py\[zstd\]"):
        Reader(None).read(Packet(COMPRESSORS["zstd"](b"5")))


def test_a_broken_zstd_payload_is_refused() -> None:
    whole = zstandard.compress(b'{"distance": 1.0}' * 100)

    for payload in (whole[:4], whole[:8], b"\x28\xb5\x2f\xfd" + b"\xff" * 50):
        with pytest.raises(Refused):
            Reader(Sonar).read(Packet(payload))


# ---- the reader ----


def test_wrong_types_are_refused_with_the_place_where_they_are() -> None:
    for payload, place in (
        (b'{"distance": "far"}', "distance"),
        (b'{"distance": 1, "pose": {"x": []}}', "pose.x"),
        (b'{"distance": 1, "path": [{}, 5]}', r"path\[1\]"),
        (b'{"distance": 1, "tags": {"a": "b"}}', "tags"),
        (b'{"distance": 1, "raw": "no base64!"}', "raw"),
        (b'{"count": 1}', "distance"),
    ):
        with pytest.raises(Refused, match=place):
            Reader(Sonar).read(Packet(payload))


def test_numbers_in_text_are_numbers_and_nothing_else_is() -> None:
    data = Reader(Deep).read(Packet(b'{"number": "-3", "real": "1e3", "items": ["1", 2]}')).data

    assert (data.number, data.real, data.items) == (-3, 1000.0, [1, 2])
    for payload in (b'{"number": "3.5"}', b'{"number": 3.5}', b'{"number": ""}', b'{"text": 5}'):
        with pytest.raises(Refused):
            Reader(Deep).read(Packet(payload))


def test_the_header_of_a_refused_message_can_be_read() -> None:
    payload = b'{"header":{"reply_to":"x","id":"a-1","origin":"a","seq":1},"data":{"a":"one"}}'

    for packet in (Packet(payload), Packet(zlib.compress(payload))):
        with pytest.raises(Refused) as refused:
            Reader(AddTwoInts.Request, always_wrapped=True).read(packet)
        header = refused.value.header
        assert (header.reply_to, header.id, header.origin, header.seq) == ("x", "a-1", "a", 1)


def test_a_header_that_is_refused_in_one_key_keeps_the_others() -> None:
    payload = (
        b'{"header":{"timestamp":[],"properties":5,"origin":7,"seq":"12","reply_to":null,'
        b'"id":"x","deadline":1.5,"error":{"type":5}},"data":1}'
    )

    header = Reader(None, always_wrapped=True).read(Packet(payload)).header

    assert header == Header(seq=12, id="x")


def test_parts_of_a_message_are_not_shared_between_two_readings() -> None:
    reader: Reader[Sonar] = Reader(Sonar)
    first, second = (reader.read(Packet(b'{"distance": 1}')).data for _ in range(2))

    first.ranges.append(1.0)
    first.pose.x = 1.0

    assert second == Sonar(1.0)


class ModelBase(pydantic.BaseModel):
    header: dict[str, int]


class ModelWithHeader(ModelBase):
    data: list[int] = []


@dataclasses.dataclass
class DataclassBase:
    header: dict[str, int]


@dataclasses.dataclass
class DataclassWithHeader(DataclassBase):
    data: list[int]


class DictBase(TypedDict):
    header: dict[str, int]


class DictWithHeader(DictBase):
    data: NotRequired[list[int]]


class StructBase(Object):
    header: dict[str, int] = {}


class StructWithHeader(StructBase):
    data: list[int] = []


class Renamed(Object, rename={"header_": "header", "data_": "data"}):
    header_: dict[str, int] = {}
    data_: list[int] = []


@pytest.mark.parametrize(
    "kind", [DataclassWithHeader, DictWithHeader, StructWithHeader, ModelWithHeader, Renamed]
)
def test_fields_that_are_inherited_count_for_what_is_an_envelope(kind: Any) -> None:
    data = Reader(kind).read(Packet(b'{"header":{"seq":5},"data":[1]}')).data

    plain = Writer(None).pack(data, None, False).payload
    assert json.loads(plain) == {"header": {"seq": 5}, "data": [1]}


class Unknown:
    pass


@pytest.mark.parametrize("kind", [Unknown, list[Unknown], dict[str, Unknown | None]])
def test_a_class_that_cannot_be_decoded_is_refused_at_once(kind: Any) -> None:
    with pytest.raises(TypeError, match="Unknown"):
        Reader(kind)


def test_a_class_whose_types_cannot_be_found_is_refused_with_the_remedy() -> None:
    class Inner(Object):
        x: int = 0

    class Outer(Object):
        inner: Inner

    with pytest.raises(TypeError, match=r"Outer.*module level"):
        Reader(Outer)


def test_readers_of_one_class_share_what_is_costly() -> None:
    assert Reader(Sonar)._shape is Reader(Sonar, always_wrapped=True)._shape


# ---- anything at all ----

KINDS: list[Any] = [
    *(None, Sonar, Deep, AddTwoInts.Request, DataclassSonar, AttrsSonar, PydanticSonar, SonarDict),
    *(dict, list[float], bytes, str, int, float, bool),
]
READERS = [Reader(kind, always_wrapped=wrapped) for kind in KINDS for wrapped in (False, True)]


def read_with_all(packet: Packet) -> None:
    """Whatever it is: a message, or Refused."""
    for reader in READERS:
        try:
            envelope = reader.read(packet)
        except Refused as exc:
            header = exc.header
        else:
            header = envelope.header
        assert isinstance(header, Header)
        assert isinstance(header.reply_to, str)
        assert isinstance(header.timestamp, int)
        unix_ms(header.timestamp)


FIRST_BYTES = [
    b"",
    b"x",
    b"x\x9c",
    b"\x28\xb5\x2f\xfd",
    b"{",
    b"[",
    b'{"header":',
    b"\x82",
    b"\xde",
    b"\xdf",
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20)
)
HEADER_KEYS = st.sampled_from(
    [*Header.__struct_fields__, "agent", "encoding", "hops", "content_type", "more", "", "data"]
)
DATA_KEYS = st.sampled_from([*Deep.__struct_fields__, "distance", "label", "a", "b", "x"])
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(DATA_KEYS | HEADER_KEYS | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=15,
)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "header": st.dictionaries(HEADER_KEYS, TREES, max_size=6) | TREES,
        "data": st.dictionaries(DATA_KEYS, TREES, max_size=6) | TREES,
        "more": TREES,
    },
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(FIRST_BYTES), st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(first: bytes, rest: bytes) -> None:
    read_with_all(Packet(first + rest))
    read_with_all(Packet(first + rest, "t", HEADER))


@settings(deadline=None, max_examples=300)
@given(ENVELOPES | TREES)
def test_arbitrary_json_is_read_or_refused(tree: Any) -> None:
    payload = json.dumps(tree).encode()  # with NaN and Infinity, and escapes for all but ASCII
    read_with_all(Packet(payload))
    read_with_all(Packet(zlib.compress(payload)))
    read_with_all(Packet(payload, "t", HEADER))


MSGPACK_TREES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=10)
    | st.binary(max_size=10)
    | st.datetimes(timezones=st.just(__import__("datetime").UTC))
    | st.builds(msgspec.msgpack.Ext, st.integers(-1, 127), st.binary(max_size=20)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.integers(-5, 300) | st.binary(max_size=3) | DATA_KEYS | HEADER_KEYS,
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(
    MSGPACK_TREES,
    st.none() | st.dictionaries(HEADER_KEYS, MSGPACK_TREES, max_size=4),
    st.integers(0, 3),
)
def test_arbitrary_msgpack_is_read_or_refused(data: Any, header: Any, cut: int) -> None:
    tree = data if header is None else {"header": header, "data": data}
    payload = msgspec.msgpack.encode(tree)
    read_with_all(Packet(payload))
    read_with_all(Packet(payload[: len(payload) - cut]))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_good_payload_with_a_few_wrong_bytes_is_read_or_refused(data: st.DataObject) -> None:
    message = Writer(Sonar).pack(Sonar(1.0, label="ü", ranges=[1.0]), HEADER, False).payload
    forms = [message, zlib.compress(message), zstandard.compress(message)]
    forms.append(msgspec.msgpack.encode(json.loads(message)))
    payload = bytearray(data.draw(st.sampled_from(forms)))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    read_with_all(Packet(bytes(payload)))


@pytest.mark.parametrize(
    "payload",
    [
        b'"\xed\xa0\x80"',  # half of a surrogate pair
        b'["\\ud800", NaN]',
        b'{"header": {"timestamp": 1e400}, "data": {}}',
        b'{"header": {"timestamp": %b}, "data": {}}' % ("1" + "0" * 5000).encode(),
        b'{"number": %b, "real": NaN}' % ("1" + "0" * 5000).encode(),
        b'{"real": 1e999999}',
        b'{"distance": "' + b"9" * 5000 + b'"}',
        b'{"a": "' + b"9" * 5000 + b'", "b": "1_000"}',
        b"\x81\xc0\xc0",
        b"\x81\x90\x01",  # a list as a key
        b"\x81\x80\x01",  # a map as a key
        b"\x81\xd4\x05\x00\x01",  # an extension as a key
        b"\xde\xff\xff",
        b"\xdf\x7f\xff\xff\xff\xa1a",
    ],
)
def test_odd_payloads_are_read_or_refused(payload: bytes) -> None:
    read_with_all(Packet(payload))


# ---- there and back ----

INTS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
POSES = st.builds(Pose, x=st.floats(), y=st.floats())
MESSAGES = st.builds(
    Deep,
    number=INTS,
    real=st.floats(),
    maybe=st.none() | st.floats(),
    flag=st.booleans(),
    text=TEXTS,
    raw=st.binary(max_size=20),
    items=st.lists(INTS, max_size=3),
    reals=st.lists(st.floats(), max_size=3),
    names=st.dictionaries(TEXTS, INTS, max_size=3),
    pose=POSES,
    poses=st.lists(POSES, max_size=3),
    by_name=st.dictionaries(TEXTS, POSES, max_size=3),
    pair=st.tuples(INTS, TEXTS),
    perhaps=st.none() | POSES,
    anything=st.none() | TEXTS | st.lists(TEXTS, max_size=2),
)


def through_json(message: Deep) -> str:
    """What JSON leaves of a message: it writes NaN as null, which is None where that may be."""
    if message.maybe is not None and math.isnan(message.maybe):
        message = msgspec.structs.replace(message, maybe=None)
    return repr(message)  # in which NaN equals itself and -0.0 is not 0.0


@settings(deadline=None, max_examples=200)
@given(MESSAGES, st.sampled_from(sorted(FORMS)))
def test_a_message_comes_back_as_it_was(message: Deep, form: str) -> None:
    packet = Writer(Deep).pack(message, *FORMS[form])

    found = Reader(Deep).read(packet)

    assert repr(found.data) == through_json(message)
    assert found.header == (FORMS[form][0] or Header())
    # A second hop changes nothing more, compressed or not.
    again = Writer(Deep).pack(found.data, *FORMS[form])
    assert again.payload == packet.payload
    for compress in COMPRESSORS.values():
        squeezed = Packet(compress(packet.payload), "", packet.header)
        assert repr(Reader(Deep).read(squeezed).data) == through_json(message)


class PythonSerializer(Serializer):
    """One of the program's own that writes bytes."""

    CONTENT_TYPE = "application/x-python"

    @staticmethod
    def serialize(data: Any) -> bytes:
        return repr(data).encode()

    @staticmethod
    def deserialize(data: str | bytes) -> Any:
        text = data if isinstance(data, str) else data.decode()
        return eval(text, {"nan": math.nan, "inf": math.inf})


class ReprSerializer(PythonSerializer):
    """The same as text."""

    CONTENT_TYPE = "text/x-python"

    @staticmethod
    def serialize(data: Any) -> str:
        return repr(data)


SERIALIZERS = [
    *(None, JSONSerializer, JSONSerializer(), MessagePackSerializer, MessagePackSerializer()),
    *(BytesSerializer, TextSerializer, PythonSerializer, ReprSerializer()),
    JSONSerializer(loads=json.loads, dumps=json.dumps),
]


BINARY = [SERIALIZERS[3], SERIALIZERS[4], PythonSerializer]
"""Those with a form for NaN beside null; that of Python's json module has one, too."""
BINARY.append(SERIALIZERS[-1])


@settings(deadline=None, max_examples=300)
@given(
    MESSAGES,
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(SERIALIZERS),
    st.sampled_from([None, "zlib", 9, "zstd"]),
)
def test_a_message_comes_back_through_every_serializer_form_and_compression(
    message: Deep, form: str, serializer: Any, compression: Any
) -> None:
    header, native = FORMS[form]
    writer = Writer(Deep, serializer=serializer, compression=compression)
    if header is not None:
        header = msgspec.structs.replace(header, properties=writer.properties)
    packet = writer.pack(message, header, native)

    found = Reader(Deep, serializer=serializer).read(packet)

    keeps_nan = serializer in BINARY or isinstance(serializer, PythonSerializer)
    assert repr(found.data) == (repr(message) if keeps_nan else through_json(message))
    assert found.header == (header or Header())


@settings(deadline=None, max_examples=200)
@given(MESSAGES)
def test_msgpack_keeps_what_json_has_no_literal_for(message: Deep) -> None:
    tree = {
        "header": {"properties": {}},
        "data": msgspec.to_builtins(message, builtin_types=[bytes]),
    }

    found = Reader(Deep).read(Packet(msgspec.msgpack.encode(tree)))

    assert repr(found.data) == repr(message)


@settings(deadline=None, max_examples=200)
@given(
    st.builds(
        Header,
        timestamp=INTS,
        properties=st.just(PROPERTIES),
        origin=TEXTS,
        seq=INTS,
        reply_to=TEXTS,
        id=TEXTS,
        deadline=INTS,
        error=st.none() | st.builds(Fault, type=TEXTS, message=TEXTS),
    )
)
def test_a_header_comes_back_as_it_was(header: Header) -> None:
    assert Reader(None).read(pack({}, header, False)).header == header


def test_the_clock_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packet.time, "time", lambda: 1_700_000_000.1239)

    assert now_ms() == 1_700_000_000_123
    assert unix_ms(now_ms()) == now_ms()
