"""Places and hops."""

from __future__ import annotations

import pytest

from commlib._hops import MAX_HOPS, host_name, is_loop, place, this_machine
from commlib.transports import resolve


def test_a_place_is_eight_hex_digits_of_broker_and_topic() -> None:
    places = {place(broker, topic) for broker in "ab" for topic in ("x", "y", "")}
    assert len(places) == 6
    assert all(len(bytes.fromhex(found)) == 4 for found in places)
    assert place("a", "x") == place("a", "x")


@pytest.mark.parametrize(
    ("hops", "expected"),
    [
        ((), False),
        (("other",), False),
        (("sink",), True),
        (("source", "other"), True),
        (tuple(map(str, range(MAX_HOPS - 1))), False),
        (tuple(map(str, range(MAX_HOPS))), True),
    ],
)
def test_a_loop_is_told_by_the_places_that_a_message_has_left(
    hops: tuple[str, ...], expected: bool
) -> None:
    assert is_loop(hops, "source", "sink") is expected


def test_localhost_is_another_broker_on_every_machine() -> None:
    names = ("localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1", "")
    assert {host_name(name) for name in names} == {f"localhost@{this_machine()}"}
    assert host_name("Cloud.Example") == "cloud.example"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://localhost", "redis://user:pw@127.0.0.1:6379/5?keepalive=5"),
        ("redis://cloud.example", "rediss://CLOUD.example"),
        ("redis+unix:///tmp/redis.sock", "redis+unix:///tmp/redis.sock?db=3"),
        ("memory://a", "memory://a"),
    ],
)
def test_one_broker_has_one_address_however_one_gets_in(one: str, other: str) -> None:
    assert resolve(one).address == resolve(other).address
    assert "pw" not in resolve(other).address


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://localhost", "redis://localhost:6380"),
        ("redis://localhost", "redis+unix:///tmp/redis.sock"),
        ("memory://a", "memory://b"),
    ],
)
def test_two_brokers_have_two_addresses(one: str, other: str) -> None:
    assert resolve(one).address != resolve(other).address
