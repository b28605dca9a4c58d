"""Arrays of numbers as messages: their bytes as they are, and beside them what they are. Pure.

On the wire an array is raw bytes in C order, and the content type of its header says the rest, as
parameters (RFC 2045, section 5.1)::

    application/octet-stream; dtype="<u2"; shape="480,640"

So whoever knows raw bytes can take it, whatever passes messages on keeps it, and a signature
covers it. In the field of another message it is an object with the same two and ``data``. A dtype
is written as NumPy writes it (the ``typestr`` of its array interface), with its byte order. NumPy
is imported when it is needed.
"""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct
from msgspec.structs import force_setattr

from commlib.exceptions import MissingDriver, SerializationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from numpy.typing import NDArray as Numpy

RAW = "application/octet-stream"
MAX_DIMENSIONS = 32  # that every NumPy takes
MAX_BYTES = 2**63 - 1
_DTYPE = re.compile(
    r"(?P<order>[<>|])(?P<kind>[biufcmMSU])(?P<size>[1-9][0-9]{0,8})"
    r"(?P<unit>\[[1-9]?[0-9]{0,8}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_SIZES = {
    "b": (1,),
    "i": (1, 2, 4, 8),
    "u": (1, 2, 4, 8),
    "f": (2, 4, 8),  # a long double is another thing on another machine
    "c": (8, 16),
    "m": (8,),
    "M": (8,),
}
_PARAMETERS = re.compile(r';\s*(dtype|shape)\s*=\s*"([^"\\]*)"\s*(?=;|$)')


class NDArray(Struct, frozen=True):
    """An array of numbers, with as many dimensions as it likes: an image, a scan, a point cloud.

    ``dtype`` is the type of its numbers as NumPy writes it, such as ``"<f4"`` or ``"|u1"``, with
    the byte order. ``data`` is their bytes, in C order. ``numpy.asarray(message)`` and
    ``message.array`` give the array.

    Raises SerializationError, a ValueError, where ``data`` has not as many bytes as that takes,
    and for a dtype that has no bytes of its own: objects, records, and long doubles.
    """

    dtype: str = "|u1"
    shape: tuple[int, ...] = (0,)
    data: memoryview = memoryview(b"")

    def __post_init__(self) -> None:
        data: Any = self.data
        is_view = isinstance(data, memoryview) and data.c_contiguous
        if not is_view or data.format != "B" or data.ndim != 1:
            force_setattr(self, "data", _flat(data))
        if not isinstance(self.shape, tuple):
            force_setattr(self, "shape", _shape(self.shape))
        expected = item_size(self.dtype) * _count(self.shape)
        if len(self.data) != expected:
            raise SerializationError(
                f"an array of the shape {self.shape} and dtype {self.dtype!r} has {expected} "
                f"bytes, not {len(self.data)}"
            )

    @classmethod
    def of(cls, array: ArrayLike) -> NDArray:
        """The message for an array, or for what ``numpy.asarray`` makes one of.

        It shares the array's memory where that is in C order; it is copied when it is published,
        unless the array is read-only (``array.setflags(write=False)``): then it is taken at its
        word. Raises SerializationError, MissingDriver.
        """
        numpy = _numpy()
        found = numpy.asarray(array, order="C")
        if found.dtype.hasobject or found.dtype.kind not in "biufcmMSU":
            raise SerializationError(f"an array of the dtype {found.dtype} has no bytes to send")
        data = found.reshape(-1).view(numpy.uint8).data if found.size else memoryview(b"")
        return cls(found.dtype.str, found.shape, data)

    @property
    def array(self) -> Numpy[Any]:
        """The array, a read-only view on ``data``; ``.copy()`` of it can be written to.

        Raises MissingDriver.
        """
        array: Numpy[Any] = _numpy().ndarray(self.shape, self.dtype, buffer=self.data)
        array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Numpy[Any]:
        array = self.array
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"it is of {array.dtype}, and {dtype} needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    @property
    def content_type(self) -> str:
        """What the header says of it."""
        return f'{RAW}; dtype="{self.dtype}"; shape="{",".join(map(str, self.shape))}"'

    def settled(self) -> NDArray:
        """The same, which nobody can change any more: a copy, if somebody can change this one."""
        if self.data.readonly:
            return self
        return NDArray(self.dtype, self.shape, memoryview(bytes(self.data)))


class Kind(NamedTuple):
    """What a header says of an array."""

    dtype: str
    shape: tuple[int, ...]


def kind_of(content_type: str) -> Kind | None:
    """What a content type says of an array; None where it is not that of one.

    Raises SerializationError for what it cannot be.
    """
    if not is_raw(content_type) or content_type == RAW:
        return None
    found = dict(_PARAMETERS.findall(content_type))
    if "dtype" not in found:
        return None
    sizes = found.get("shape", "").split(",") if found.get("shape") else []
    if "shape" not in found or not all(size.isascii() and size.isdigit() for size in sizes):
        raise SerializationError(f"{content_type!r} has no shape of an array")
    if max(map(len, sizes), default=0) > 19:  # digits of the largest there is
        raise SerializationError(f"{content_type!r}: no array is that large")
    return Kind(found["dtype"], tuple(map(int, sizes)))


def is_raw(content_type: str) -> bool:
    """Whether this is raw bytes, perhaps those of an array."""
    return content_type.startswith(RAW) and content_type[len(RAW) :].lstrip()[:1] in ("", ";")


def item_size(dtype: str) -> int:
    """The bytes of one number. Raises SerializationError for what is no dtype that is sent."""
    found = _DTYPE.fullmatch(dtype) if isinstance(dtype, str) else None
    if found is not None:
        order, kind, size = found["order"], found["kind"], int(found["size"])
        bytewise = kind == "S" or (size == 1 and kind != "U")
        is_known = size in _SIZES.get(kind, (size,))
        if is_known and (bytewise or order != "|") and (found["unit"] is None or kind in "mM"):
            return size * 4 if kind == "U" else size
    raise SerializationError(
        f"the dtype {dtype!r} is none of an array that can be sent: that is like '<f4' or '|u1', "
        "of numbers, times or text, with its byte order"
    )


def _shape(shape: Any) -> tuple[Any, ...]:
    try:
        return tuple(shape)
    except TypeError as exc:
        raise SerializationError(f"{shape!r} is no shape of an array: {exc}") from exc


def _count(shape: tuple[int, ...]) -> int:
    if len(shape) > MAX_DIMENSIONS or not all(isinstance(size, int) for size in shape):
        raise SerializationError(f"{shape} is no shape of an array")
    # Also where one of them is 0: NumPy counts so.
    if min(shape, default=0) < 0 or prod(max(size, 1) for size in shape) > MAX_BYTES // 16:
        raise SerializationError(f"{shape} is no shape of an array")
    return prod(shape)


def _flat(data: Any) -> memoryview:
    try:
        view = memoryview(data)
        if not view.c_contiguous:
            return memoryview(view.tobytes())
        return view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError as exc:
        raise SerializationError(f"no bytes of an array: {exc}") from exc


def is_array_like(data: object) -> bool:
    """Whether this is an array of numpy's, or of a library that works together with it."""
    return hasattr(type(data), "__array__")


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as exc:
        raise MissingDriver('numpy is missing: pip install "commlib-py[numpy]"') from exc
    return numpy
