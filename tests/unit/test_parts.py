"""Frames that are not joined hold the same bytes as those that are."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from commlib._parts import LONG, Frame, Parts, head_of, in_parts, parts_of, rest_of, with_head

LENGTHS = st.sampled_from([0, 1, 5, LONG - 1, LONG, LONG + 1])


def some(size: int, start: int) -> bytes:
    return bytes((start + n) & 0xFF for n in range(min(size, 7))) + bytes(max(size - 7, 0))


@st.composite
def frames(draw: st.DrawFn) -> list[Frame]:
    made: list[Frame] = []
    for number in range(draw(st.integers(0, 5))):
        parts = [some(size, number) for size in draw(st.lists(LENGTHS, min_size=1, max_size=4))]
        made.append(Parts(*parts) if draw(st.booleans()) else parts[0])
    return made


@given(frames())
def test_the_parts_of_frames_are_their_bytes_in_order(frames: list[Frame]) -> None:
    assert b"".join(in_parts(frames)) == b"".join(map(bytes, frames))


@given(frames())
def test_short_parts_are_joined_and_long_ones_are_not(frames: list[Frame]) -> None:
    found = in_parts(frames)
    are_long = [len(part) >= LONG for part in found]
    assert (False, False) not in pairwise(are_long)
    given = [part for frame in frames for part in parts_of(frame) if len(part) >= LONG]
    assert all(any(part is one for one in found) for part in given)


@given(frames(), st.integers(0, 6 * LONG))
def test_what_is_left_of_parts_is_what_was_not_taken(frames: list[Frame], size: int) -> None:
    whole = b"".join(map(bytes, frames))
    parts = in_parts(frames)
    assert b"".join(rest_of(parts, size)) == whole[size:]


def test_a_frame_in_parts_is_as_long_as_all_of_them() -> None:
    assert len(Parts(b"ab", b"", memoryview(b"cde"))) == 5


def test_bytes_may_be_put_around_it() -> None:
    assert bytes(b"<" + Parts(b"a", b"bc") + b">") == b"<abc>"
    assert head_of(b"<" + Parts(b"a", b"bc")) == b"<a"


def test_what_is_before_the_payload_may_be_another_one() -> None:
    assert bytes(with_head(Parts(b"a", b"bc"), b"xyz")) == b"xyzbc"
    assert with_head(b"abc", b"x") == b"x"
