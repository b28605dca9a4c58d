"""Frames of a websocket, cut where they are not whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from commlib.transports._websocket_fragments import Fragments

BINARY, CONT, PING = Opcode.BINARY, Opcode.CONT, Opcode.PING
BIG = 300_000


def wire(*frames: Frame, mask: bool = False) -> bytes:
    return b"".join(frame.serialize(mask=mask) for frame in frames)


def read(pieces: list[bytes]) -> tuple[Protocol, list[Frame]]:
    """What a reader makes of it, and the reader."""
    fragments, protocol = Fragments(), Protocol(CLIENT, max_size=(None, 2 * BIG))
    found: list[Any] = []
    for piece in pieces:
        protocol.receive_data(fragments.of(piece))
        found += protocol.events_received()
    return protocol, found


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def stream(frames: list[Frame]) -> bytes:
    return b"".join(frame.data for frame in frames if frame.opcode in (BINARY, CONT))


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 100, 70_000, BIG + 10])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, BIG])
def test_a_frame_says_the_same_however_it_is_cut(size: int, at_once: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    if size // at_once > 100_000:
        payload = payload[:1000]  # byte by byte it would last
    protocol, found = read(cut(wire(Frame(BINARY, payload), Frame(BINARY, b"next")), at_once))
    assert stream(found) == payload + b"next"
    assert not protocol.close_expected()


def test_what_has_come_of_a_frame_is_there_at_once() -> None:
    data = wire(Frame(BINARY, b"a" * BIG))
    _, found = read([data[:1000]])
    assert stream(found) == b"a" * (1000 - 10)  # which is the longest head


def test_whole_frames_are_left_as_they_are() -> None:
    data = wire(Frame(BINARY, b"ab"), Frame(PING, b"p"), Frame(BINARY, b""), Frame(CONT, b"c"))
    assert Fragments().of(data) == data


def test_a_ping_between_fragments_is_not_cut() -> None:
    frames = Frame(BINARY, b"a" * 200, fin=False), Frame(PING, b"ping"), Frame(CONT, b"b" * 200)
    protocol, found = read(cut(wire(*frames), 1))
    assert stream(found) == b"a" * 200 + b"b" * 200
    assert [bytes(frame.data) for frame in found if frame.opcode is PING] == [b"ping"]
    assert len(protocol.data_to_send()) == 1, "a pong"


@pytest.mark.parametrize("at_once", [1, 7, 1000])
@pytest.mark.parametrize(
    "bad",
    [
        wire(Frame(BINARY, b"masked" * 50), mask=True),
        b"\xc2\x7e\x01\x00" + bytes(256),  # a reserved bit
        b"\x83\x05hello",  # an opcode that there is not
        b"\x89\x7e\x01\x00" + bytes(256),  # a long ping
        b"\x09\x01a",  # a ping that is to be continued
        b"\x80\x05hello",  # the continuation of nothing
        wire(Frame(BINARY, b"a", fin=False), Frame(BINARY, b"b")),
    ],
)
def test_what_is_wrong_with_a_frame_is_found_behind(bad: bytes, at_once: int) -> None:
    protocol, _ = read(cut(wire(Frame(BINARY, b"a")) + bad, at_once))
    assert protocol.close_expected()
    protocol.receive_eof()
    assert protocol.close_exc.sent is not None
    assert protocol.close_exc.sent.code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [0x82, 0x89, 0x88, 0xC2])
def test_no_size_makes_it_keep_more_than_a_head(first: int) -> None:
    fragments = Fragments()
    data = bytes((first, 127)) + (1 << 62).to_bytes(8)
    assert fragments.of(data + b"a" * 100_000).endswith(b"a" * 100_000)
    assert fragments.of(b"b" * 100_000).endswith(b"b" * 100_000)


frames = st.builds(
    Frame,
    st.sampled_from([BINARY, PING]),
    st.binary(max_size=125) | st.just(b"x" * 200) | st.just(b"y" * 70_000),
)


@given(st.lists(frames, max_size=10), st.lists(st.integers(100, 20_000), min_size=1))
def test_any_frames_cut_anywhere_say_the_same(given_frames: list[Frame], sizes: list[int]) -> None:
    sent = [frame for frame in given_frames if frame.opcode is BINARY or len(frame.data) < 126]
    closing = Frame(Opcode.CLOSE, Close(CloseCode.GOING_AWAY, "bye").serialize())
    data, pieces = wire(*sent, closing), []
    while data:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[:size])
        data = data[size:]
    protocol, found = read(pieces)
    assert stream(found) == stream(sent)
    pings = [bytes(frame.data) for frame in found if frame.opcode is PING]
    assert pings == [bytes(frame.data) for frame in sent if frame.opcode is PING]
    protocol.receive_eof()
    assert protocol.close_code == CloseCode.GOING_AWAY


@given(st.binary(max_size=300), st.integers(1, 50))
def test_random_bytes_are_as_bad_as_without_it(data: bytes, at_once: int) -> None:
    plain = Protocol(CLIENT, max_size=(None, 2 * BIG))
    plain.receive_data(data)
    expected: list[Any] = plain.events_received()
    # What is wrong shows as soon as something comes behind it.
    protocol, found = read([*cut(data, at_once), bytes(300)])
    assert stream(found).startswith(stream(expected))
    assert protocol.close_expected() >= plain.close_expected()
