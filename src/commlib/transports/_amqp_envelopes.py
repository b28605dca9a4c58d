"""Calls in an envelope: AMQP does not need it, and commlib-py 0.13 has it all the same. Pure."""

from __future__ import annotations

from commlib._packet import peek_call
from commlib.compression import beginning

STARTS = b'{"header"', b"\x82\xa6header"  # in JSON and in MessagePack
LONGEST_START = max(map(len, STARTS))


def begins_as_envelope(payload: bytes) -> bool:
    """Whether it looks like one, also packed with zlib, of which no more is unpacked."""
    return beginning(payload, LONGEST_START).startswith(STARTS)


def is_enveloped(payload: bytes, *, is_request: bool) -> bool:
    """Whether a call is in an envelope.

    A request tells in it where its reply shall go, else it may be data of that shape.
    """
    if not begins_as_envelope(payload):
        return False
    if payload[:1] != b"{":
        return True
    header = peek_call(payload)
    return header is not None and (bool(header.reply_to) or not is_request)
