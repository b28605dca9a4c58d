"""What waits for the sink of a bridge."""

from __future__ import annotations

from commlib._packet import Packet
from commlib._store import Keep, Store


def fill(store: Store, *payloads: bytes, now: float = 0.0) -> int:
    return sum(store.put("t", Packet(payload), now) for payload in payloads)


def drain(store: Store) -> list[bytes]:
    found = []
    while store:
        found.append(store.first()[1].payload)
        store.pop()
    return found


def test_what_waits_comes_out_in_order_with_its_topic() -> None:
    store = Store(Keep())
    store.put("a", Packet(b"1"), 0.0)
    store.put("b", Packet(b"2"), 0.0)
    assert store.first() == ("a", Packet(b"1"))
    assert len(store) == 2
    assert drain(store) == [b"1", b"2"]


def test_the_oldest_go_when_there_are_too_many() -> None:
    store = Store(Keep(max_messages=2))
    assert fill(store, b"1", b"2", b"3", b"4") == 2
    assert drain(store) == [b"3", b"4"]


def test_the_oldest_go_when_there_are_too_many_bytes() -> None:
    store = Store(Keep(max_bytes=5))
    assert fill(store, b"11", b"22", b"333") == 1
    assert drain(store) == [b"22", b"333"]
    assert fill(store, b"11", b"22") == 0, "what has left takes no room"


def test_one_message_always_has_room() -> None:
    store = Store(Keep(max_bytes=5))
    assert fill(store, b"1", b"larger than all of it") == 1
    assert drain(store) == [b"larger than all of it"]


def test_what_is_too_old_is_dropped() -> None:
    store = Store(Keep(max_age=10.0))
    fill(store, b"1", now=0.0)
    fill(store, b"2", now=5.0)
    assert store.expire(10.0) == 0
    assert store.expire(10.1) == 1
    assert drain(store) == [b"2"]
    assert store.expire(100.0) == 0


def test_without_an_age_nothing_is_too_old() -> None:
    store = Store(Keep())
    fill(store, b"1", now=0.0)
    assert store.expire(1e9) == 0


def test_a_smaller_bound_holds_from_the_next_message_on() -> None:
    store = Store(Keep(max_messages=100))
    fill(store, *[b"%d" % n for n in range(100)])
    store.keep = Keep(max_messages=10)
    assert fill(store, b"last") == 91
    assert len(drain(store)) == 10


def test_room_is_only_ever_added() -> None:
    assert Keep(5, 1000, 2.0).with_room_for(10, 10) == Keep(10, 1000, 2.0)
