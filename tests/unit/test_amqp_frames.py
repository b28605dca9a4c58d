"""The frames of a message, byte by byte as other codecs write them, for bodies of every size."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import commands
from pamqp import frame as pamqp_frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pika import frame as pika_frame
from pika import spec

from commlib.transports._amqp_frames import MANDATORY, content, publish_method
from commlib.transports._amqp_methods import AROUND, MIN_FRAME

NOTHING = b"\x00\x00"
"""Properties that say nothing."""
ROOM = MIN_FRAME - AROUND
names = st.text("ab.-_:@#/ 0", max_size=127)
channels = st.integers(1, 0xFFFF)


@given(channels, names, st.text(max_size=60), st.booleans())
def test_where_a_message_goes_is_what_others_write(
    channel: int, exchange: str, key: str, mandatory: bool
) -> None:
    ours = publish_method(channel, exchange, key, MANDATORY * mandatory)
    pika = spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    assert ours == pika_frame.Method(channel, pika).marshal()
    try:
        pamqp = commands.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    except ValueError:
        return  # it knows fewer names
    assert ours == pamqp_frame.marshal(pamqp, channel)


@pytest.mark.parametrize("names", [("x" * 256, "a"), ("a", "x" * 256), ("a", "é" * 128)])
def test_a_name_that_is_too_long_is_refused(names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="room for 255"):
        publish_method(1, *names)


def by_pika(channel: int, payload: bytes, room: int) -> bytes:
    """As pika's channel writes it: a header, and bodies of at most so many bytes."""
    frames = [pika_frame.Header(channel, len(payload), spec.BasicProperties())]
    parts = [payload[at : at + room] for at in range(0, len(payload), room)]
    return b"".join(
        frame.marshal() for frame in [*frames, *(pika_frame.Body(channel, part) for part in parts)]
    )


def by_pamqp(channel: int, payload: bytes, room: int) -> bytes:
    header = ContentHeader(0, len(payload), commands.Basic.Properties())
    bodies = [ContentBody(payload[at : at + room]) for at in range(0, len(payload), room)]
    return b"".join(pamqp_frame.marshal(frame, channel) for frame in [header, *bodies])


SIZES = [0, 1, ROOM - 1, ROOM, ROOM + 1, 2 * ROOM - 1, 2 * ROOM, 2 * ROOM + 1, 5 * ROOM, 70_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channel", [1, 0x1234])
def test_a_body_is_cut_as_others_cut_it(size: int, channel: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    ours = content(channel, NOTHING, payload, MIN_FRAME)
    assert ours == by_pika(channel, payload, ROOM)
    assert ours == by_pamqp(channel, payload, ROOM)


@given(channels, st.binary(max_size=300), st.integers(1, 100))
@example(1, b"", 1)
@example(1, b"ab", 1)
def test_a_body_of_any_size_is_cut_as_others_cut_it(
    channel: int, payload: bytes, room: int
) -> None:
    ours = content(channel, NOTHING, payload, room + AROUND)
    assert ours == by_pika(channel, payload, room)
    assert ours == by_pamqp(channel, payload, room)


@pytest.mark.parametrize("size", SIZES)
def test_no_frame_is_longer_than_was_agreed_and_none_is_empty(size: int) -> None:
    raw, sizes = content(3, NOTHING, bytes(size), MIN_FRAME), []
    while raw:
        used, frame = pika_frame.decode_frame(raw)
        assert used, "whole frames"
        assert frame.channel_number == 3
        sizes.append(used)
        raw = raw[used:]
    assert max(sizes) <= MIN_FRAME
    assert min(sizes) > AROUND
