"""A packet on its way from one broker to another: its header is read, its data is not. Pure.

Brokers with message headers of their own carry the data as the payload and the header beside it,
others carry both in one envelope. A letter is put from the one form into the other with its data
copied as bytes. What came compressed leaves compressed in the same way.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct

from commlib import _json
from commlib._packet import (
    PROPERTIES,
    Envelope,
    Header,
    Packet,
    Properties,
    is_wrapped,
    now_ms,
    peek,
    read_header,
)
from commlib._wire import COMPRESSED, Refused, is_raw, is_text
from commlib.compression import ZLIB_START, Compression, compressor, expand
from commlib.exceptions import PayloadTooBig, SerializationError
from commlib.serializer import ContentType

PACKED = Properties(ContentType.msgpack, "binary")
_TEXT = Properties(ContentType.text, "utf8")
_BYTES = Properties(ContentType.raw_bytes, "binary")
_OURS = (ContentType.json, ContentType.msgpack)


class _Frame(Struct, forbid_unknown_fields=True):
    """An envelope with nothing decoded; what has other keys is none."""

    header: Raw
    data: Raw


class _Call(Struct):
    """The same of a call or a reply, of which peers may send less, and more."""

    header: Raw
    data: Raw = Raw(b"{}")


class _Form:
    """How one of the two kinds of envelope is read and written."""

    def __init__(self, codec: Any, encode: Any, properties: Properties) -> None:
        self.encode = encode
        self.properties = properties
        self.read_frame = codec.Decoder(_Frame).decode
        self.read_call = codec.Decoder(_Call).decode
        self.read_header = codec.Decoder(Header, strict=False).decode
        self.read_keys = codec.Decoder(dict[str, Raw]).decode
        self.skim = codec.Decoder(Raw).decode
        self.parse = codec.decode


_JSON = _Form(msgspec.json, _json.encode, PROPERTIES)
_PACKED = _Form(msgspec.msgpack, _json.pack, PACKED)


class Letter:
    """What was in a packet.

    ``header`` is to be read, not changed: others may hold it, too. ``is_bare``: there was none.
    """

    __slots__ = ("_form", "compression", "data", "header", "is_bare", "packet", "raw_header")

    def __init__(
        self,
        packet: Packet,
        header: Header | None,
        compression: Compression,
        form: _Form | None = None,
        raw_header: bytes = b"",
        data: Any = b"",
    ) -> None:
        self.header = header or Header()
        self.is_bare = header is None
        self.packet = packet
        self.compression = compression
        self._form = form  # of the envelope, if it came in one
        self.raw_header = raw_header
        """As it stood in the envelope."""
        self.data = data
        """As it stood there, or all of the payload; expanded if that was compressed."""

    def forward(
        self,
        hops: tuple[str, ...],
        *,
        native: bool,
        envelope: bool | None,
        limit: int,
        beside: bool = False,
    ) -> Packet:
        """The packet for the next broker, with its header as it was but for the hops.

        ``native``: whether that broker carries headers itself. If not, ``envelope`` asks for an
        envelope or for bare data; None leaves what came bare bare. ``beside``: it can carry a
        header beside bare data. Raises PayloadTooBig.
        """
        if native or envelope is False or (self.is_bare and envelope is None):
            return self._unwrapped(self._with(hops) if native or beside else None, limit)
        if self._form is None:
            return self.wrap(self._with(hops), limit=limit)
        header = _with_hops(self.raw_header, hops, self._form)
        if self._form is _JSON:
            payload = b'{"header":%b,"data":%b}' % (header, bytes(self.data))
        else:
            payload = self._form.encode(_Frame(Raw(header), self.data))
        return self._sealed(payload, limit)

    def pack(self, header: Header, *, native: bool, limit: int) -> Packet:
        """The packet with another header, which is given the properties of the data."""
        if native:
            return self._unwrapped(header, limit)
        return self.wrap(header, limit=limit)

    def wrap(self, header: Header, *, limit: int) -> Packet:
        """The packet with this header in an envelope, whatever the data came in."""
        form, data, header.properties = self._body()
        return self._sealed(form.encode(Envelope(header, data)), limit)

    def plain(self) -> tuple[bytes, Properties]:
        """The data as the serializer has made it, and what a header says of that."""
        if self._form is None:
            return self.data, _said(self.header)
        return _bare(self.data, self._form, self.header)

    def _with(self, hops: tuple[str, ...]) -> Header:
        header = msgspec.structs.replace(self.header, hops=hops)
        if self.is_bare:
            header.timestamp = now_ms()
        return header

    def _unwrapped(self, header: Header | None, limit: int) -> Packet:
        if self._form is None:
            payload = self.packet.payload
            if header is not None and not self.is_bare:
                header.properties = self.header.properties
        else:
            payload, properties = _bare(self.data, self._form, self.header)
            if header is not None:
                header.properties = properties
            _check(payload, limit)
            if (compress := compressor(self.compression)) is not None:
                payload = compress(payload)
                if header is not None:
                    header.properties = Properties(properties.content_type, COMPRESSED)
        _check(payload, limit)
        return Packet(payload, "", header, self.packet.ttl)

    def _sealed(self, payload: bytes, limit: int) -> Packet:
        _check(payload, limit)
        if (compress := compressor(self.compression)) is not None:
            payload = compress(payload)
        return Packet(payload, "", None, self.packet.ttl)

    def _body(self) -> tuple[_Form, Any, Properties]:
        """The data as it goes into an envelope, of which kind, and what the header says of it."""
        if self._form is not None:
            known = _content_type(self.header) in _OURS
            return self._form, self.data, self._form.properties if known else _said(self.header)
        plain = self.packet.payload
        if self.compression is not None:
            plain = self.data
        return _enclosed(plain, self.header)


def open_letter(
    packet: Packet, limit: int, *, is_call: bool = False, only_properties: bool = False
) -> Letter:
    """Read the header of a packet. Raises Refused for what is too big, or no call and should be.

    ``is_call``: it is a request or a reply, which always have a header. ``only_properties``: the
    data itself may have the keys of an envelope, so only ``properties`` in the header tell one.
    """
    payload, header = packet.payload, packet.header
    if len(payload) > limit:
        error = PayloadTooBig(len(payload), limit)
        raise Refused(str(error), header or (is_call and peek(payload)) or Header())
    if header is None:
        letter = _open(packet, payload, None, is_call, only_properties)
        if letter is not None:
            return letter
    try:
        plain = payload if header is not None and is_raw(header) else expand(payload, limit)
    except SerializationError as exc:
        raise Refused(str(exc), header or Header()) from exc
    compression = _compression_of(payload) if plain is not payload else None
    if header is not None:
        letter = Letter(packet, header, compression, data=plain)
    else:
        letter = _open(packet, plain, compression, is_call, only_properties) or _open_leniently(
            packet, plain, compression, is_call, only_properties
        )
    if letter._form is None:
        letter.data = plain
    return letter


def check_signed(letter: Letter, passed: Packet, limit: int, *, is_call: bool = False) -> Packet:
    """Returns the packet that a letter has become, if nothing was done to what is signed in it.

    Raises Refused if it is signed and the signature has got lost, or its data was written anew.
    """
    if letter.header.sig is not None:
        there = open_letter(passed, limit, is_call=is_call, only_properties=True)
        data, properties = letter.plain()
        passed_data, passed_properties = there.plain()
        if (
            there.header.sig != letter.header.sig
            or passed_data != data
            or passed_properties.content_type != properties.content_type
        ):
            raise Refused("it is signed, and its signature would not hold there", letter.header)
    return passed


class _Peek(Struct):
    properties: Properties | msgspec.UnsetType = UNSET


_read_frame = _JSON.read_frame
_peek = msgspec.json.Decoder(_Peek).decode


def pass_on(packet: Packet, hop: bytes, limit: int) -> Packet | None:
    """As ``forward``, the short way for most packets: from one envelope of JSON to the next.

    ``hop`` is the place that it leaves. None: it is something else, or has left a place before.
    """
    try:
        frame = _read_frame(packet.payload)
        if _peek(frame.header).properties is UNSET:
            return None
    except _json.NOT_DECODABLE:
        return None
    header = bytes(frame.header)
    if b'"hops"' in header:
        return None
    payload = b'{"header":%b,"hops":["%b"]},"data":%b}' % (
        *(header[:-1].rstrip(), hop),
        bytes(frame.data),
    )
    _check(payload, limit)
    return Packet(payload, "", None, packet.ttl)


def _compression_of(payload: bytes) -> Compression:
    return "zlib" if payload[:1] == ZLIB_START else "zstd"


def _open(
    packet: Packet, plain: bytes, compression: Compression, is_call: bool, only_properties: bool
) -> Letter | None:
    """A letter in an envelope, or one without; None if that cannot be told by looking quickly."""
    form = _JSON if plain[:1] < b"\x80" else _PACKED
    try:
        frame = form.read_call(plain) if is_call else form.read_frame(plain)
    except msgspec.ValidationError:
        # It is well formed so far, and has other keys than an envelope.
        return None if is_call or compression else Letter(packet, None, None)
    except _json.NOT_DECODABLE:
        return None
    header: Header | None = None
    with suppress(*_json.NOT_DECODABLE):
        header = form.read_header(frame.header)
    if header is None or (header.properties is UNSET and not is_call):
        try:
            tree = {"header": form.parse(frame.header), "data": None}
        except _json.NOT_DECODABLE:
            return None
        if not is_call and not is_wrapped(tree, only_properties):
            return None if compression else Letter(packet, None, None)
        header = read_header(tree["header"])
    return Letter(packet, header, compression, form, bytes(frame.header), frame.data)


def _open_leniently(
    packet: Packet, plain: bytes, compression: Compression, is_call: bool, only_properties: bool
) -> Letter:
    """What only decoding all of it can tell: NaN in the data of others, text, bytes, garbage."""
    tree: Any = None
    with suppress(*_json.NOT_DECODABLE):
        tree = _json.parse(plain)
    if _is_call(tree) if is_call else is_wrapped(tree, only_properties):
        raw_header = _json.encode(tree["header"])
        data = Raw(_json.write_json(tree.get("data", {})))
        return Letter(packet, read_header(tree["header"]), compression, _JSON, raw_header, data)
    if is_call:
        raise Refused("no envelope: {'header': …, 'data': …} was expected", Header())
    return Letter(packet, None, compression)


def _is_call(tree: Any) -> bool:
    return isinstance(tree, dict) and "header" in tree


def _with_hops(raw: bytes, hops: tuple[str, ...], form: _Form) -> bytes:
    """A header as it was written, whatever is in it, with other hops."""
    if form is _JSON and b'"hops"' not in raw and raw[:1] == b"{":
        head = raw[:-1].rstrip()
        comma = b"" if head == b"{" else b","
        return b'%b%b"hops":%b}' % (head, comma, form.encode(hops))
    keys: dict[str, Any] = form.read_keys(raw) if raw[:1] != b"n" else {}
    keys["hops"] = hops
    encoded: bytes = form.encode(keys)
    return encoded


def _check(payload: bytes, limit: int) -> None:
    if len(payload) > limit:
        raise PayloadTooBig(len(payload), limit)


def _said(header: Header) -> Properties:
    """What a header says of the data, as it was before it was compressed."""
    if header.properties is UNSET:
        return PROPERTIES
    if header.properties.content_encoding != COMPRESSED:
        return header.properties
    kind = header.properties.content_type
    return Properties(kind, "utf8" if is_text(kind) or kind == ContentType.json else "binary")


def _content_type(header: Header) -> str:
    return _said(header).content_type


def _bare(data: Any, form: _Form, header: Header) -> tuple[bytes, Properties]:
    """The data of an envelope as a payload of its own, and what a header has to say of it."""
    if _content_type(header) in _OURS:
        return bytes(data), form.properties
    body = form.parse(data)  # the text or the bytes that another serializer has made
    if isinstance(body, str | bytes):
        return body.encode() if isinstance(body, str) else body, _said(header)
    return bytes(data), form.properties


def _enclosed(plain: bytes, header: Header) -> tuple[_Form, Any, Properties]:
    """A payload as data for an envelope; the inverse of ``_bare``."""
    said = _said(header)
    if said.content_type not in _OURS:
        if is_text(said.content_type) or said.content_encoding.startswith("utf"):
            try:
                return _JSON, str(plain, "utf8"), said
            except UnicodeDecodeError:
                pass  # then it is taken for what it is
        return _PACKED, plain, said
    form = _PACKED if said.content_type == ContentType.msgpack else _JSON
    try:
        form.skim(plain)
    except _json.NOT_DECODABLE:
        return _guessed(plain)
    return form, Raw(plain), form.properties


def _guessed(plain: bytes) -> tuple[_Form, Any, Properties]:
    """The same for a payload that is not what its header says, or that has none."""
    try:
        tree = _json.parse(plain)
    except _json.NOT_DECODABLE:
        try:
            return _JSON, str(plain, "utf8"), _TEXT
        except UnicodeDecodeError:
            return _PACKED, plain, _BYTES
    if plain[:1] >= b"\x80":
        return _PACKED, Raw(plain), PACKED
    return _JSON, Raw(_json.write_json(tree)), PROPERTIES
