"""What is measured of messages, on times and sizes that are known."""

from __future__ import annotations

import zlib

import pytest

from commlib._packet import Header, Packet
from commlib._wire import pack
from commlib.cli._figures import clock, counted, in_bytes, spread
from commlib.cli._meters import AgeMeter, RateMeter, SizeMeter, TripMeter

NOW = 1_800_000_000_000


def test_a_spread_tells_how_values_lie() -> None:
    found = spread(range(1, 101))
    assert found is not None
    assert (found["min"], found["mean"], found["max"]) == (1, 50.5, 100)
    assert found["p50"] in (50, 51)
    assert found["p99"] == 99
    assert found["std"] == pytest.approx(28.866, abs=0.001)


def test_there_is_no_spread_of_nothing() -> None:
    assert spread([]) is None


def test_a_rate_is_that_between_the_first_and_the_last() -> None:
    meter = RateMeter(100)
    for at in (1.0, 1.1, 1.2, 1.5):
        meter.note(at)
    found = meter.measured()
    assert found["rate"] == pytest.approx(6.0)
    assert found["interval_ms"]["min"] == pytest.approx(100)
    assert found["interval_ms"]["max"] == pytest.approx(300)
    assert "6 msg/s" in meter.told()


def test_only_the_last_messages_are_looked_at_and_all_are_counted() -> None:
    meter = RateMeter(2)
    for at in (0.0, 10.0, 10.5, 11.0):
        meter.note(at)
    assert meter.measured()["rate"] == pytest.approx(2.0)
    assert meter.measured()["messages"] == 4
    assert "the last 3 of 4 messages" in meter.told()


@pytest.mark.parametrize("meter", [RateMeter(5), SizeMeter(5), AgeMeter(5), TripMeter(5)])
def test_a_meter_has_nothing_to_tell_before_the_first_message(
    meter: RateMeter | SizeMeter | AgeMeter | TripMeter,
) -> None:
    assert meter.told() == ""
    assert meter.measured()["messages"] == 0


def test_one_message_has_no_rate() -> None:
    rate, size = RateMeter(5), SizeMeter(5)
    rate.note(1.0)
    size.note(1.0, 10)
    assert rate.measured()["rate"] is size.measured()["rate"] is None
    assert "takes two" in rate.told()
    assert "takes two" in size.told()


def test_the_bytes_of_the_first_message_belong_to_the_time_before_it() -> None:
    meter = SizeMeter(100)
    for at, size in ((0.0, 5000), (1.0, 100), (2.0, 300)):
        meter.note(at, size)
    found = meter.measured()
    assert found["rate"] == pytest.approx(200)
    assert (found["bytes"]["min"], found["bytes"]["max"]) == (100, 5000)
    assert "200 B/s" in meter.told()
    assert "max 5 kB" in meter.told()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e6, "2 MB"), (3e12, "3000 GB")],
)
def test_bytes_have_the_unit_that_fits(count: float, text: str) -> None:
    assert in_bytes(count) == text


def test_times_and_numbers_are_told_as_people_write_them() -> None:
    assert clock(3725.9) == "1:02:05"
    assert [counted(n, "message") for n in (0, 1, 2)] == ["0 messages", "1 message", "2 messages"]
    assert counted(2, "process") == "2 processes"


def message(timestamp: int, *, native: bool = False, compressed: bool = False) -> Packet:
    """A message with a time in its header."""
    packet = pack({"n": 1}, Header(timestamp), native)
    return Packet(zlib.compress(packet.payload)) if compressed else packet


@pytest.mark.parametrize(
    "packet",
    [
        message(NOW - 50),
        message(NOW - 50, native=True),
        message(NOW - 50, compressed=True),
        message((NOW - 50) * 1000),  # a released peer that counts in µs
    ],
)
def test_an_age_is_read_in_whatever_form_a_message_comes(packet: Packet) -> None:
    meter = AgeMeter(10)
    meter.note(packet, NOW)
    assert meter.measured()["delay_ms"]["mean"] == 50
    assert "mean 50.00" in meter.told()
    assert "negative" not in meter.told()


def test_a_negative_age_is_shown_and_explained() -> None:
    meter = AgeMeter(10)
    meter.note(message(NOW + 70), NOW)
    assert "min -70.00" in meter.told()
    assert "at least 70 ms ahead" in meter.told()


@pytest.mark.parametrize("payload", [b"plain", b'{"n": 1}', b"\xff\x00", b"(\xb5/\xfd rubbish"])
def test_what_has_no_time_is_counted_apart(payload: bytes) -> None:
    meter = AgeMeter(10)
    meter.note(Packet(payload), NOW)
    found = meter.measured()
    assert (found["messages"], found["without_timestamp"]) == (0, 1)
    assert "none has the time" in meter.told()


def test_the_time_of_a_clock_that_was_never_set_is_none() -> None:
    meter = AgeMeter(10)
    meter.note(message(12_000), NOW)
    assert meter.measured()["without_timestamp"] == 1


def test_trips_are_told_in_ms_with_those_that_were_lost() -> None:
    meter = TripMeter(10)
    meter.note(0.002)
    meter.lost += 1
    assert meter.measured()["round_trip_ms"]["p50"] == 2
    assert "p99 2.00" in meter.told()
    assert "1 lost" in meter.told()
