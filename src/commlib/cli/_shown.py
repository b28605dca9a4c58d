"""Messages as people read them, and as programs do: whatever they hold, and whoever sent it. Pure.

People get something like YAML, where what is long is cut. What a stranger sends must not reach the
terminal as it is: control characters are escaped.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from msgspec import UNSET

from commlib import _json
from commlib._arrays import NDArray
from commlib._packet import Header, unix_ms
from commlib.exceptions import SerializationError

ITEMS = 16  # of a list or of bytes that are shown
FIELDS = 64  # of an object
CHARS = 256  # of a text
DEEPEST = 32  # objects in objects that are drawn; what is deeper is shown as JSON
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})
"""What YAML, in one version or another, takes for something else than text."""
_UNSEEN_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What JSON may hold as it is and a terminal obeys: controls, and what turns text around."""
_NUMBERS = {
    **{"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "f2": "e"},
    **{"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f4": "f", "f8": "d"},
}
"""The letters of ``struct`` for what a dtype says."""


class NoSuchField(Exception):
    """A message has no field of this name."""


def pick(data: Any, path: str) -> Any:
    """The field ``a.b`` of a message; numbers count the items of a list. Raises NoSuchField."""
    for name in path.split("."):
        if isinstance(data, dict):
            found = data if name in data else {str(key): each for key, each in data.items()}
            data = found.get(name, UNSET)  # the keys of MessagePack need not be text
        elif isinstance(data, list) and name.isdecimal() and int(name) < len(data):
            data = data[int(name)]
        else:
            data = UNSET
        if data is UNSET:
            raise NoSuchField(path)
    return data


# ---- for programs ----


def json_text(data: Any) -> str:
    """JSON on one line, of plain data, Structs and what else messages hold; fit for a terminal."""
    return escaped_json(_json.write_json(data).decode())


def escaped_json(text: str) -> str:
    """The same JSON, with nothing in it that a terminal obeys."""
    return _UNSEEN_IN_JSON.sub(lambda found: _escaped(found[0]), text)


def record(topic: str, header: Header, data: Any) -> str:
    """A message as one line of JSON; what it does not tell is null.

    ``timestamp`` is in ms since 1970. Bytes are base64, and if all of the data is bytes,
    ``encoding`` says so.
    """
    is_numbered = bool(header.origin) and header.seq >= 0
    whole = {
        "topic": topic,
        "timestamp": unix_ms(header.timestamp),
        "origin": header.origin or None,
        "seq": header.seq if is_numbered else None,
        "data": data,
    }
    if isinstance(data, bytes):
        whole["encoding"] = "base64"
    try:
        return json_text(whole)
    except SerializationError:  # MessagePack can hold what JSON cannot, such as lists as keys
        return json_text({**whole, "data": repr(data), "encoding": "text"})


# ---- for people ----


def lines(data: Any, full: bool = False, depth: int = 0) -> Iterator[str]:
    """The lines that show data; long values are cut unless ``full``."""
    if depth == 0 and isinstance(data, str):
        yield from _text_lines(data, full)
    elif depth > DEEPEST or not _is_block(data):
        yield inline(data, full)
    elif isinstance(data, dict):
        for key, value in _some(data.items(), FIELDS, full):
            yield from _entry(f"{_key(key)}:", value, full, depth)
        yield from _rest(len(data) - FIELDS, full)
    else:
        for value in _some(data, ITEMS, full):
            yield from _entry("-", value, full, depth)
        yield from _rest(len(data) - ITEMS, full)


def _entry(label: str, value: Any, full: bool, depth: int) -> Iterator[str]:
    if depth >= DEEPEST or not _is_block(value):
        yield f"{label} {inline(value, full)}"
        return
    inner = lines(value, full, depth + 1)
    yield f"- {next(inner)}" if label == "-" else label
    for line in inner:
        yield f"  {line}"


def _is_block(value: Any) -> bool:
    """Whether it takes more than a line."""
    if isinstance(value, dict):
        return bool(value) and _array(value) is None
    return isinstance(value, list) and any(isinstance(each, dict | list) for each in value)


def _text_lines(text: str, full: bool) -> Iterator[str]:
    """A message that is text is shown without quotes."""
    for line in cut(text, full).splitlines() or [""]:
        yield printable(line)


def inline(value: Any, full: bool = False) -> str:
    """A value on one line."""
    if isinstance(value, str):
        is_cut = len(value) > CHARS and not full
        return f"{_quoted(value[:CHARS])}{_more(value)}" if is_cut else _quoted(value)
    if isinstance(value, bytes):
        return _bytes(value, full)
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        return _listed((inline(each, full) for each in value), len(value), full)
    found = _array(value) if isinstance(value, dict) else None
    if found is not None:
        return _numbers(found, full)
    try:
        return printable(cut(_json.write_json(value).decode(), full))
    except SerializationError:
        return printable(cut(repr(value), full))


def cut(text: str, full: bool) -> str:
    """The beginning of a long text, and how much there is besides."""
    return text if full or len(text) <= CHARS else f"{text[:CHARS]}{_more(text)}"


def _more(text: str) -> str:
    return f" … {len(text) - CHARS} more characters"


def printable(text: str) -> str:
    """A text that does nothing to a terminal but to be read there."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _quoted(text: str) -> str:
    return printable(_json.encode(text.encode("utf8", "replace").decode()).decode())


def _key(key: Any) -> str:
    if isinstance(key, str) and key.isidentifier() and key.lower() not in _WORDS:
        return key
    return _quoted(key) if isinstance(key, str) else printable(repr(key))


def _bytes(value: bytes, full: bool) -> str:
    some = value if full else value[:ITEMS]
    rest = " …" if len(some) < len(value) else ""
    return f"<{len(value)} bytes: {some.hex(' ')}{rest}>" if value else "<0 bytes>"


def _listed(items: Iterable[str], count: int, full: bool) -> str:
    some = list(_some(items, ITEMS, full))
    some += [f"… {count - len(some)} more"] if len(some) < count else []
    return f"[{', '.join(some)}]"


def _array(value: dict[Any, Any]) -> NDArray | None:
    """An array, if that is what this is."""
    if value.keys() != {"dtype", "shape", "data"} or not isinstance(value["data"], bytes):
        return None
    try:
        return NDArray(value["dtype"], tuple(value["shape"]), memoryview(value["data"]))
    except (SerializationError, TypeError, ValueError):
        return None  # somebody's own message of such fields


def _numbers(array: NDArray, full: bool) -> str:
    """An array: its type, its shape, and its first numbers."""
    order, kind = array.dtype[0], array.dtype[1:]
    what = f"<array {array.dtype}, {' x '.join(map(str, array.shape)) or 'one number'}"
    letter = _NUMBERS.get(kind)
    if letter is None:
        return f"{what}, {len(array.data)} bytes>"
    code = f"{'<' if order == '|' else order}{letter}"
    numbers = (inline(number) for (number,) in struct.iter_unpack(code, array.data))
    return f"{what}: {_listed(numbers, len(array.data) // struct.calcsize(code), full)}>"


def _some(items: Iterable[Any], most: int, full: bool) -> Iterable[Any]:
    return items if full else islice(items, most)


def _rest(count: int, full: bool) -> Iterator[str]:
    if count > 0 and not full:
        yield f"# … {count} more"
