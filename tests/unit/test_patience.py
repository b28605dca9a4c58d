"""The wait for the answer to a probe: it lasts as long as bytes leave, and a grace more."""

from __future__ import annotations

from commlib._patience import LOOKS, Patience


class Bytes:
    """What a connection was given, of which some may not have left."""

    def __init__(self, written: int, unsent: int) -> None:
        self.written_bytes = written
        self.unsent_bytes = unsent


def test_a_probe_that_is_out_is_waited_for_as_long_as_the_grace() -> None:
    patience = Patience(Bytes(100, 0), grace=2.0, now=10.0)
    assert patience.begun == 10.0
    assert patience.wait(10.0) == 2.0
    assert patience.wait(11.5) == 0.5
    assert patience.wait(12.0) <= 0


def test_while_what_is_before_it_leaves_the_grace_begins_anew() -> None:
    link = Bytes(1000, 1000)
    patience = Patience(link, grace=2.0, now=10.0)
    for second in range(11, 21):
        link.unsent_bytes -= 100
        assert patience.wait(float(second)) > 0
    assert link.unsent_bytes == 0
    assert patience.wait(21.9) > 0
    assert patience.wait(22.0) <= 0


def test_it_is_looked_at_often_while_bytes_leave() -> None:
    assert Patience(Bytes(1000, 1000), grace=2.0, now=10.0).wait(10.0) == 2.0 / LOOKS


def test_when_no_bytes_leave_it_is_over_after_the_grace() -> None:
    patience = Patience(Bytes(1000, 700), grace=2.0, now=10.0)
    assert patience.wait(11.9) > 0
    assert patience.wait(12.0) <= 0


def test_what_was_written_behind_the_probe_prolongs_nothing() -> None:
    link = Bytes(1000, 10)
    patience = Patience(link, grace=2.0, now=10.0)
    for tenth in range(1, 20):  # it takes all, and does not answer
        link.written_bytes += 100
        assert patience.wait(10.0 + tenth / 10) > 0
    # It has had the probe since the first look.
    assert patience.wait(10.1 + 2.0) <= 0


def test_what_is_written_behind_it_and_does_not_leave_is_no_progress() -> None:
    link = Bytes(1000, 500)
    patience = Patience(link, grace=2.0, now=10.0)
    link.written_bytes += 100
    link.unsent_bytes += 100
    assert patience.wait(12.0) <= 0


def test_the_bytes_that_tls_adds_are_no_progress() -> None:
    link = Bytes(1000, 500)
    patience = Patience(link, grace=2.0, now=10.0)
    for tenth in range(1, 20):
        link.written_bytes += 100
        link.unsent_bytes += 122
        assert patience.wait(10.0 + tenth / 10) > 0
    assert patience.wait(12.0) <= 0
