"""Which calls are in an envelope, as commlib-py 0.13 has them."""

from __future__ import annotations

import json
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlib.transports._amqp_envelopes import begins_as_envelope, is_enveloped

CALL = {"header": {"reply_to": "there", "timestamp": 1}, "data": {"n": 1}}
REPLY = {"header": {"reply_to": "", "timestamp": 1}, "data": {"n": 1}}


def json_of(tree: object) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode()


def test_a_request_in_an_envelope_says_where_its_reply_shall_go() -> None:
    assert is_enveloped(json_of(CALL), is_request=True)
    assert not is_enveloped(json_of(REPLY), is_request=True), "it may be data of that shape"
    for call in (CALL, REPLY):
        assert is_enveloped(json_of(call), is_request=False)


@pytest.mark.parametrize("call", [CALL, REPLY])
def test_it_may_be_msgpack_or_packed(call: object) -> None:
    for payload in (
        msgspec.msgpack.encode(call),
        zlib.compress(json_of(call)),
        zlib.compress(msgspec.msgpack.encode(call)),
    ):
        assert begins_as_envelope(payload)
        assert is_enveloped(payload, is_request=False)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"{}",
        b"x",
        b"5",
        b'"header"',
        b'{"header":5,"data":{}}',
        b'{"header":{"reply_to":"x"}',
        b'{"header":{"reply_to":"x"},"data":{},"more":1}',
        b'{"headers":{"reply_to":"x"},"data":{}}',
        b'{"data":{},"other":{"reply_to":"x"}}',
        b"[" * 10_000,
        b'{"header":' * 5000,
        zlib.compress(b"{}"),
        zlib.compress(b""),
        zlib.compress(json_of(CALL))[:5],
        b"x\x9c",
    ],
)
def test_all_else_is_in_none(payload: bytes) -> None:
    assert not is_enveloped(payload, is_request=True)


def test_of_what_is_packed_no_more_is_unpacked_than_tells() -> None:
    bomb = zlib.compress(b'{"header":' + bytes(50_000_000), 9)
    assert begins_as_envelope(bomb)


@given(st.binary(max_size=40) | st.binary(max_size=20).map(zlib.compress), st.booleans())
def test_random_bytes_are_survived(payload: bytes, is_request: bool) -> None:
    for raw in (payload, b'{"header":' + payload, b"\x82\xa6header" + payload):
        assert is_enveloped(raw, is_request=is_request) in (True, False)
