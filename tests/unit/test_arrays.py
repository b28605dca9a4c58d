"""Arrays of every dtype and shape come back as they were, and what is none is refused."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from commlib._arrays import NDArray, item_size, kind_of
from commlib._letter import open_letter
from commlib._packet import MAX_PAYLOAD, PROPERTIES, Header, Packet, Properties
from commlib._parts import LONG, Parts
from commlib._wire import Reader, Refused, Writer
from commlib.exceptions import MissingDriver, SerializationError
from commlib.msg import PubSubMessage, as_dict
from commlib.serializer import BytesSerializer, JSONSerializer, MessagePackSerializer


class Image(PubSubMessage):
    encoding: str = "rgb8"
    pixels: NDArray = NDArray()


dtypes = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    arrays.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    arrays.datetime64_dtypes(endianness="?"),
    arrays.timedelta64_dtypes(endianness="?"),
    arrays.byte_string_dtypes(min_len=1),
    arrays.unicode_string_dtypes(min_len=1, endianness="?"),
)


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Of any dtype that is sent and of few dimensions, in any order in memory, or in none."""
    shape = draw(arrays.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=4))
    array: np.ndarray[Any, Any] = draw(arrays.arrays(draw(dtypes), shape))
    if draw(st.booleans()):
        array = array.T
    if draw(st.booleans()):
        array = np.asfortranarray(array)
    if array.ndim and draw(st.booleans()):
        array = array[::-1]
    return array


def same(found: Any, array: np.ndarray[Any, Any]) -> bool:
    """Whether it is this array, to the byte."""
    found = np.asarray(found)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    return bool(found.tobytes() == array.tobytes())


def test_bytes_with_steps_between_them_are_put_in_order() -> None:
    message = NDArray("|u1", (3,), memoryview(b"abc")[::-1])
    assert message.data.c_contiguous
    assert Reader(NDArray).read(packed(message)).data.data == b"cba"


def packed(data: Any, *, native: bool = False, **options: Any) -> Packet:
    writer: Writer[Any] = Writer(NDArray, **options)
    return writer.pack(data, Header(1, PROPERTIES, "origin", 7), native)


def claimed(content_type: str, data: bytes, native: bool = True) -> Packet:
    """What says that it is of this type."""
    header = Header(1, Properties(content_type, "binary"))
    if native:
        return Packet(data, "", header)
    return Packet(msgspec.msgpack.encode({"header": header, "data": data}))


@given(any_array(), st.booleans(), st.sampled_from([None, "zlib", "zstd"]))
@settings(deadline=None)
def test_an_array_comes_back_as_it_was(
    array: np.ndarray[Any, Any], native: bool, compression: Any
) -> None:
    packet = packed(array, native=native, compression=compression)
    found = Reader(NDArray).read(packet)
    assert same(found.data, array)
    assert (found.header.origin, found.header.seq) == ("origin", 7)
    assert same(Reader(np.ndarray).read(packet).data, array)
    assert Reader(bytes).read(packet).data == array.tobytes()
    plain = Reader(None).read(packet).data
    assert plain == {
        "dtype": array.dtype.str, "shape": list(array.shape), "data": array.tobytes()
    }  # fmt: skip


@given(any_array(), st.sampled_from([JSONSerializer, MessagePackSerializer]))
@settings(deadline=None)
def test_an_array_in_a_message_comes_back_as_it_was(
    array: np.ndarray[Any, Any], serializer: Any
) -> None:
    writer: Writer[Any] = Writer(Image, serializer=serializer)
    packet = writer.pack(Image("mono8", NDArray.of(array)), Header(1, PROPERTIES), False)
    found = Reader(Image).read(packet).data
    assert found.encoding == "mono8"
    assert same(found.pixels, array)


@given(any_array(), st.booleans(), st.booleans(), st.sampled_from([None, "zlib"]))
@settings(deadline=None)
def test_an_array_comes_back_from_one_kind_of_broker_by_way_of_another(
    array: np.ndarray[Any, Any], native: bool, to_native: bool, compression: Any
) -> None:
    packet = packed(array, native=native, compression=compression)
    letter = open_letter(packet, MAX_PAYLOAD)
    passed = letter.forward(("place",), native=to_native, envelope=None, limit=MAX_PAYLOAD)
    assert same(Reader(NDArray).read(passed).data, array)


@given(any_array())
def test_an_array_may_also_be_asked_for_as_json(array: np.ndarray[Any, Any]) -> None:
    packet = packed(array, serializer=JSONSerializer)
    assert packet.payload.startswith(b"{")
    assert same(Reader(NDArray).read(packet).data, array)


@pytest.mark.parametrize("native", [False, True])
def test_what_is_received_is_a_view_on_the_payload_that_cannot_be_written_to(native: bool) -> None:
    array = np.arange(100_000, dtype="<u2").reshape(100, -1)
    packet = packed(array, native=native)
    found = Reader(NDArray).read(packet).data
    assert found.data.obj is packet.payload
    assert np.shares_memory(found.array, np.frombuffer(packet.payload, "u1"))
    for view in (found.array, np.asarray(found)):
        with pytest.raises(ValueError, match="read-only"):
            view[0, 0] = 1
    copied = np.array(found)
    copied[0, 0] = 9
    assert found.array[0, 0] == 0


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("may_part", [False, True])
def test_who_changes_an_array_later_does_not_change_what_was_packed(
    native: bool, may_part: bool
) -> None:
    array = np.zeros(LONG, "u1")
    writer: Writer[Any] = Writer(NDArray)
    writer.may_part = may_part
    packet = writer.pack(array, Header(1, PROPERTIES), native)
    array[:] = 1
    whole = Packet(bytes(packet.payload), "", packet.header)
    assert not Reader(NDArray).read(whole).data.array.any()


def test_an_array_that_cannot_be_changed_is_not_copied_where_that_is_possible() -> None:
    array = np.arange(LONG, dtype="u1")
    array.setflags(write=False)
    writer: Writer[Any] = Writer(NDArray)
    writer.may_part = True
    payload: Any = writer.pack(array, Header(1, PROPERTIES), False).payload
    assert isinstance(payload, Parts)
    assert np.shares_memory(np.frombuffer(payload.tail[0], "u1"), array)


def test_a_payload_in_parts_is_what_it_would_be_in_one() -> None:
    data, header = bytes(range(256)) * 256, Header(1, PROPERTIES, "o", 3)
    writer: Writer[Any] = Writer(bytes, serializer=BytesSerializer)
    writer.may_part = True
    parts: Any = writer.pack(data, header, False).payload
    assert isinstance(parts, Parts)
    assert bytes(parts) == msgspec.msgpack.encode({"header": header, "data": data})
    assert Reader(bytes).read(Packet(bytes(parts))).data == data


def test_bytes_that_may_be_changed_are_copied() -> None:
    data = bytearray(LONG)
    writer: Writer[Any] = Writer(None, serializer=BytesSerializer)
    writer.may_part = True
    payload = writer.pack(data, Header(1, PROPERTIES), False).payload
    data[:] = b"x" * LONG
    assert b"x" not in bytes(payload)[-LONG:]


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()]),
        np.array([1, "a", None], object),
        np.zeros(3, "f8,i4"),
        np.zeros(3, "V5"),
        np.zeros(3, np.longdouble),
        np.zeros(3, np.clongdouble),
    ],
    ids=lambda array: str(array.dtype),
)
def test_what_has_no_bytes_of_its_own_is_not_sent(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(SerializationError, match="dtype"):
        Writer(NDArray).pack(array, Header(1, PROPERTIES), False)


WRONG = [
    *("", "f4", "<f", "<f4 ", "=f4", "|f4", "<f3", "<f16", "<c32", "|O8", "<O8", "|V4", "<u0"),
    *("<i16", "<f4[s]", "<M8[xs]", "<M4[s]", "<U0", "|S0", "<f4,<f4", "<f04", "<f-4", "<f٤"),
    *("<S99999999999", "os.system"),
]


@pytest.mark.parametrize("dtype", WRONG)
def test_what_is_no_dtype_that_is_sent_is_refused(dtype: str) -> None:
    with pytest.raises(SerializationError):
        NDArray(dtype, (0,))
    for native in (True, False):
        packet = claimed(f'application/octet-stream; dtype="{dtype}"; shape="0"', b"", native)
        with pytest.raises(Refused):
            Reader(NDArray).read(packet)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("parameters", "data"),
    [
        ('dtype="<f4"; shape="2,3"', bytes(23)),
        ('dtype="<f4"; shape="2,3"', bytes(25)),
        ('dtype="<f4"; shape="2,-3"', bytes(24)),
        ('dtype="<f4"; shape="2,3,"', bytes(24)),
        ('dtype="<f4"; shape=",2"', bytes(8)),
        ('dtype="<f4"; shape="2.0"', bytes(8)),
        ('dtype="<f4"; shape="٢"', bytes(8)),
        ('dtype="<f4"; shape="x"', bytes(8)),
        ('dtype="<f4"', bytes(4)),
        ('dtype="<f4"; shape=""', b""),
        ('dtype="<f4"; shape="0,9223372036854775807"', b""),
        ('dtype="<f4"; shape="' + "9" * 5000 + '"', b""),
        ('dtype="|u1"; shape="' + ",".join("1" * 40) + '"', b"x"),
        ('shape="4"', bytes(4)),
        ("dtype=<f4; shape=1", bytes(4)),
        ("charset=utf-8", b"text"),
    ],
)
def test_what_is_no_array_is_refused_by_who_wants_one(
    parameters: str, data: bytes, native: bool
) -> None:
    packet = claimed(f"application/octet-stream; {parameters}", data, native)
    with pytest.raises(Refused) as refused:
        Reader(NDArray).read(packet)
    assert refused.value.header.timestamp == 1
    assert Reader(bytes).read(packet).data == data


@given(st.text(), st.binary(max_size=20))
def test_no_content_type_does_more_than_being_refused(text: str, data: bytes) -> None:
    for content_type in (text, f"application/octet-stream;{text}", f'a; dtype="{text}"'):
        try:
            Reader(NDArray).read(claimed(content_type, data))
        except Refused:
            continue
        assert kind_of(content_type) is not None


@pytest.mark.parametrize("data", [1, "text", None, [1, 2]])
def test_data_without_bytes_makes_no_array(data: Any) -> None:
    with pytest.raises(SerializationError):
        NDArray("|u1", (2,), data)


@pytest.mark.parametrize(
    "kind", [{"dtype": 3}, {"dtype": None}, {"dtype": np.uint8}, {"shape": 3}, {"shape": None}]
)
def test_what_is_neither_dtype_nor_shape_is_told(kind: dict[str, Any]) -> None:
    with pytest.raises(SerializationError, match=r"the dtype .* is none|is no shape of an array"):
        NDArray(**kind)


def test_an_array_of_nothing_but_bytes_needs_no_numpy() -> None:
    found = NDArray("<u2", (2,), bytearray(b"\1\0\2\0"))  # type: ignore[arg-type]
    assert found.data.cast("H").tolist() == [1, 2]
    assert as_dict(found) == {"dtype": "<u2", "shape": (2,), "data": b"\1\0\2\0"}
    assert found == NDArray("<u2", (2,), memoryview(b"\1\0\2\0"))


def test_without_a_header_nobody_could_tell_what_it_is() -> None:
    with pytest.raises(SerializationError, match="header"):
        Writer(NDArray).pack(np.zeros(2), None, False)


def test_whoever_wants_another_message_refuses_an_array() -> None:
    for kind in (Image, str, int, list[float]):
        with pytest.raises(Refused):
            Reader(kind).read(packed(np.zeros(2)))
    optional: Reader[Any] = Reader(NDArray | None)  # type: ignore[arg-type]
    assert same(optional.read(packed(np.zeros(2))).data, np.zeros(2))
    with pytest.raises(Refused):
        Reader(NDArray).read(claimed("application/octet-stream", b"\0\1"))


def test_asarray_copies_where_it_is_asked_to() -> None:
    found = NDArray.of(np.arange(3, dtype="<i4"))
    assert np.asarray(found, "f8").tolist() == [0.0, 1.0, 2.0]
    assert np.array(found).flags.writeable
    with pytest.raises(ValueError, match="copy"):
        found.__array__(np.dtype("f8"), copy=False)


def test_what_numpy_can_make_an_array_of_may_be_sent_too() -> None:
    assert same(NDArray.of([[1.0, 2.0]]), np.array([[1.0, 2.0]]))
    assert same(NDArray.of(3), np.array(3))


@pytest.mark.parametrize(("dtype", "size"), [("<f4", 4), ("|b1", 1), ("<U3", 12), ("|S3", 3)])
def test_the_size_of_a_number_is_in_its_dtype(dtype: str, size: int) -> None:
    assert item_size(dtype) == np.dtype(dtype).itemsize == size


def test_the_default_of_a_field_is_no_array_to_be_changed() -> None:
    assert Image().pixels.array.size == 0
    with pytest.raises(AttributeError):
        Image().pixels.dtype = "<f4"  # type: ignore[misc]
    assert copy.copy(Image()) == Image()


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None  # importing it fails from now on
from commlib.exceptions import MissingDriver
from commlib.msg import NDArray

message = NDArray("|u1", (2,), b"ab")
assert bytes(message.data) == b"ab"
for use in (lambda: message.array, lambda: NDArray.of([1, 2])):
    try:
        use()
    except MissingDriver as exc:
        print(exc)
"""


def test_without_numpy_it_is_said_what_to_install() -> None:
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_NUMPY],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert found.stdout.splitlines() == [
        'numpy is missing: pip install "commlib-py[numpy]"',
        'numpy is missing: pip install "commlib-py[numpy]"',
    ]
    assert issubclass(MissingDriver, ImportError)


def test_numpy_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, commlib.msg, commlib.node; print('numpy' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout == "False\n"
