"""Bytes that come in many pieces are in the end what came."""

from __future__ import annotations

from pickle import PickleBuffer

from hypothesis import given
from hypothesis import strategies as st

from commlib import _long_bytes
from commlib._long_bytes import MOST_KEPT, LongBytes, keep_memory


def fill(long: LongBytes, pieces: list[bytes]) -> None:
    """As an event loop does that lets go of the room before it tells of it."""
    for piece in pieces:
        room = long.room()
        room[: len(piece)] = piece
        assert long.filled(len(piece))


@given(st.lists(st.binary(min_size=1)), st.data())
def test_they_are_all_that_came(pieces: list[bytes], data: st.DataObject) -> None:
    size = sum(map(len, pieces))
    long = LongBytes(size)
    for piece in pieces:
        if data.draw(st.booleans()):
            long.add(piece)
        else:
            fill(long, [piece])
    assert long.missing == 0
    assert long.whole() == b"".join(pieces)


def test_the_room_is_as_large_as_what_is_missing() -> None:
    long = LongBytes(10)
    long.add(b"abc")
    assert len(long.room()) == long.missing == 7


def test_who_looks_at_the_room_later_does_not_change_what_was_given_out() -> None:
    long = LongBytes(100_000)
    held = memoryview(long.room())
    held[:] = b"a" * 100_000
    assert long.filled(100_000)
    whole = long.whole()
    held[:] = b"b" * 100_000
    assert whole == b"a" * 100_000


def test_who_holds_on_to_the_room_is_told_of() -> None:
    long = LongBytes(100_000)
    held = PickleBuffer(long.room())  # as uvloop has it while it tells us
    held.raw()[:] = b"a" * 100_000
    assert not long.filled(100_000)
    whole = long.whole()
    held.raw()[:] = b"b" * 100_000
    assert whole == b"a" * 100_000


def test_who_held_on_to_the_room_and_has_let_go_of_it_costs_no_copy() -> None:
    long = LongBytes(100_000)
    held = PickleBuffer(long.room())
    assert not long.filled(100_000)
    held.release()
    assert long.whole() is long._store.getvalue()


def test_memory_is_asked_for_once_and_no_more_than_is_sensible() -> None:
    keep_memory(100_000)
    before = _long_bytes._kept
    assert before >= 400_000
    keep_memory(before // 4)
    assert _long_bytes._kept == before
    keep_memory(10**9)
    assert _long_bytes._kept == MOST_KEPT
