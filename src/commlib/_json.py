"""JSON as it is written and read here: with the infinities, and MessagePack beside it. Pure.

msgspec writes NaN and both infinities as ``null``. NaN stays that: JSON has no number for it, and
a reader of a ``float`` takes ``null`` for it. An infinity is a number that is too big for a float,
``1e999``: that is within the grammar of JSON (RFC 8259, section 6), and the readers of Python,
JavaScript and the released versions of commlib-py round it to infinity, as ours does.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from commlib._types import enc_hook
from commlib.exceptions import SerializationError

encode = msgspec.json.Encoder(enc_hook=enc_hook).encode
"""Data as JSON, its infinities as null."""
pack = msgspec.msgpack.Encoder(enc_hook=enc_hook).encode
"""Data as MessagePack."""

NOT_ENCODABLE = (
    *(TypeError, ValueError, OverflowError, NotImplementedError, RecursionError),
    msgspec.MsgspecError,
)
NOT_DECODABLE = (ValueError, RecursionError, msgspec.MsgspecError)

_INF = float("inf")
_SPELLED = {_INF: Raw(b"1e999"), -_INF: Raw(b"-1e999")}


def write_json(data: Any) -> bytes:
    """Data as JSON. Raises SerializationError."""
    try:
        payload = encode(data)
        return with_infinities(data, payload) if b"null" in payload else payload
    except NOT_ENCODABLE as exc:
        raise cannot_write(data, "JSON", exc) from exc


def cannot_write(data: Any, form: str, exc: BaseException) -> SerializationError:
    """The error for data that has no form on the wire."""
    kind = type(data).__qualname__
    return SerializationError(f"{kind} cannot be written as {form}: {exc or type(exc).__name__}")


def with_infinities(data: Any, payload: bytes) -> bytes:
    """The payload of data that was encoded with a ``null`` in it, which may be an infinity."""
    tree = msgspec.to_builtins(data, enc_hook=enc_hook)
    return encode(_spell(tree)) if _has_infinity(tree) else payload


def _has_infinity(tree: Any) -> bool:
    if isinstance(tree, float):
        return tree in _SPELLED
    if isinstance(tree, dict):
        return any(map(_has_infinity, tree.values()))
    if isinstance(tree, list | tuple):
        # The first two look at a thousand ranges of a laser scan in a few µs.
        return _INF in tree or -_INF in tree or any(map(_has_infinity, _nested(tree)))
    return False


def _nested(items: list[Any] | tuple[Any, ...]) -> list[Any]:
    return [item for item in items if isinstance(item, dict | list | tuple)]


def _spell(tree: Any) -> Any:
    if isinstance(tree, float):
        return _SPELLED.get(tree, tree)
    if isinstance(tree, dict):
        return {key: _spell(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_spell(item) for item in tree]
    return tree


def is_packed_map(payload: bytes) -> bool:
    """Whether this begins as a map of MessagePack does."""
    first = payload[0] if payload else 0
    return 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)


def parse(payload: bytes) -> Any:
    """A payload as plain data: MessagePack if it begins with one of its maps, else JSON.

    Raises one of ``NOT_DECODABLE``.
    """
    if is_packed_map(payload):
        return msgspec.msgpack.decode(payload)
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError as exc:
        if b"NaN" in payload or b"Infinity" in payload or "out of range" in str(exc):
            return _parse_slowly(payload)
        raise


def _parse_slowly(payload: bytes) -> Any:
    import json  # the only writer of the literal NaN is also its only reader

    tree = json.loads(payload)
    if b"\\u" in payload:
        # Lone surrogates, which msgspec refuses: half a character that nobody could write.
        json.dumps(tree, ensure_ascii=False).encode()
    return tree
