"""Redis lists as queues, looked at without a server: the commands that are written, and when."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import hiredis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from collected import DEADLINE
from commlib._packet import Packet
from commlib.exceptions import ConnectionLost
from commlib.transports import _redis_pops, _redis_replies, _redis_requests
from commlib.transports._redis_link import command
from commlib.transports._redis_pops import READ_AT_ONCE, Popper
from commlib.transports._redis_replies import MAX_LISTS, MAX_RETIRED, REPLY_POPS, ReplyLists
from commlib.transports._redis_requests import MAX_POPS, RequestConsumer, RequestLists
from commlib.transports.base import Address

T = TypeVar("T")


class Link:
    """Takes what a popper writes."""

    def __init__(self) -> None:
        self.heard = 0.0
        self.on_reply: Any = None
        self._reader = hiredis.Reader()

    def write(self, frames: Iterable[bytes], notes: Iterable[object]) -> None:
        for frame in frames:
            self._reader.feed(frame)

    def commands(self) -> list[list[bytes]]:
        """What was written since the last look."""
        found = []
        while (command := self._reader.gets()) is not False:
            found.append(command)
        return found


def popper_of(lists: tuple[bytes, ...], depth: int) -> Popper:
    return Popper(
        15,
        lambda wake_list, count: True,
        lambda: (lists, depth),
        lambda *item: None,
        lambda error: None,
    )


async def test_every_list_is_first_in_its_turn_so_that_none_starves_behind_a_busy_one() -> None:
    lists = tuple(b"list-%d" % number for number in range(33))
    popper, link = popper_of(lists, len(lists)), Link()
    popper.attach(link)  # type: ignore[arg-type]
    commands = link.commands()
    assert {command[2] for command in commands} == set(lists)


async def test_a_blpop_waits_for_the_wake_list_before_all_others_and_for_a_finite_time() -> None:
    lists = (b"a", b"bb", b"ccc")
    popper, link = popper_of(lists, 3), Link()
    popper.attach(link)  # type: ignore[arg-type]
    for name, wake_list, *keys, timeout in link.commands():
        assert (name, wake_list, timeout) == (b"BLPOP", popper.wake_list, b"15")
        assert sorted(keys) == sorted(lists)


async def test_the_turns_go_on_where_the_last_ones_ended() -> None:
    lists = (b"a", b"bb", b"ccc")
    popper, link = popper_of(lists, 1), Link()
    popper.attach(link)  # type: ignore[arg-type]
    first = []
    for _ in range(6):
        (command,) = link.commands()
        first.append(command[2])
        link.on_reply([command[2], b"an item"])
        popper.fill()
    assert sorted(first[:3]) == sorted(first[3:]) == sorted(lists)


# ---- a server in small ----


class Server:
    """Lists and BLPOP on one connection, as the manual has it; things happen when they are told to.

    ``to_server`` and ``to_client`` are what is on its way. The commands of a connection are worked
    off one after another, so the first BLPOP that blocks holds up the others.
    """

    def __init__(self) -> None:
        self.heard = 0.0
        self.on_reply: Any = None
        self.on_idle: Callable[[], None] = lambda: None
        self.probe: Callable[[], None] = lambda: None
        self.send_reader_away: Callable[[], None] = lambda: None
        self.lists: dict[bytes, deque[bytes]] = {}
        self.refused: dict[bytes, str] = {}
        self.heard_of = 0
        self._looked_at: list[bytes] = []
        self.to_server: deque[list[bytes]] = deque()
        self.to_client: deque[Any] = deque()
        self.at_once = 1
        self.is_writable = True
        self.resumed = self.signs = 0
        self._blocked: deque[list[bytes]] = deque()
        self._reader = hiredis.Reader()

    @property
    def outstanding(self) -> int:
        """The BLPOPs whose answers the client has not seen yet."""
        return len(self.to_server) + len(self._blocked) + len(self.to_client)

    def write(self, frames: Iterable[bytes], notes: Iterable[object]) -> None:
        assert list(notes) == [], "on this link nobody takes the notes off again"
        for frame in frames:
            self._reader.feed(frame)
        while (command := self._reader.gets()) is not False:
            self.to_server.append(command)

    def push(self, key: bytes, *items: bytes) -> None:
        self.lists.setdefault(key, deque()).extend(items)
        self._serve()

    def hear(self) -> None:
        """Take one command off the wire."""
        if self.to_server:
            self.heard_of += 1
            self._blocked.append(self.to_server.popleft())
            self._serve()

    def time_out(self) -> None:
        """The BLPOP that has waited longest has waited long enough."""
        if self._blocked:
            self._blocked.popleft()
            self.to_client.append(None)
            self._serve()

    def answer(self, count: int = 1) -> None:
        """Let the client see so many answers, at once."""
        for _ in range(min(count, len(self.to_client))):
            self.on_reply(self.to_client.popleft())
        self.on_idle()

    # What a thread calls.

    def heard_now(self) -> None:
        self.signs += 1

    def resume_reading(self) -> None:
        self.resumed += 1

    def read_here(
        self,
        is_wanted: Callable[[], bool],
        find: Callable[[bytes], list[Packet] | None],
        taken: list[bytes],
        seconds: float,
        keep: bool,
    ) -> list[Packet] | None:
        """The next answers, as many as come ``at_once``, if they are for the thread."""
        answers = [self.to_client[n] for n in range(min(self.at_once, len(self.to_client)))]
        found = find(b"".join(map(as_bytes, answers))) if is_wanted() and answers else None
        if found is not None:
            for _ in answers:
                self.to_client.popleft()
        return found

    def write_all_now(self, frames: Iterable[bytes], notes: Iterable[object]) -> bool:
        if self.is_writable:
            self.write(frames, notes)
        return self.is_writable

    def time_out_all(self) -> None:
        """The same for all that are outstanding."""
        self.hear_all()
        for _ in range(len(self._blocked)):
            self.time_out()

    def hear_all(self) -> None:
        while self.to_server:
            self.hear()

    def _serve(self) -> None:
        while self._blocked:
            if self._blocked[0] == [b"PING"]:
                self._blocked.popleft()
                self.to_client.append(b"PONG")
                continue
            name, *keys = self._blocked[0]
            refusal = next((self.refused[key] for key in keys if key in self.refused), None)
            if refusal is not None and (name == b"LPOP" or not self._is_old(self._blocked[0])):
                self._blocked.popleft()
                self.to_client.append(hiredis.ReplyError(refusal))
                continue
            if name == b"LPOP":
                self._blocked.popleft()
                items = self.lists.get(keys[0])
                self.to_client.append(items.popleft() if items else None)
                continue
            key = next((key for key in keys if self.lists.get(key)), None)
            if key is None:
                return
            self._blocked.popleft()
            self.to_client.append([key, self.lists[key].popleft()])

    def _is_old(self, command: list[bytes]) -> bool:
        """Whether it blocked already before; from then on the server looks for items only."""
        was = command is self._looked_at
        self._looked_at = command
        return was

    def pushed_back(self, key: bytes, item: bytes, else_lost: bool) -> bool:
        self.lists.setdefault(key, deque()).appendleft(item)
        self._serve()
        return True


def as_bytes(answer: Any) -> bytes:
    """An answer of the server as it is on the wire."""
    if answer is None:
        return b"*-1\r\n"
    if isinstance(answer, list):
        return command(*answer)
    return b"-%b\r\n" % str(answer).encode()


async def quiet(server: Server) -> None:
    """Let everything happen that can happen without a time-out."""
    for _ in range(10_000):
        await asyncio.sleep(0)
        if not (server.to_server or server.to_client):
            await asyncio.sleep(0)
            if not (server.to_server or server.to_client):
                return
        server.hear_all()
        server.answer(len(server.to_client))
    raise AssertionError("it does not come to rest")


class Requests:
    """Consumers of requests on a server, with all that was handed to them."""

    def __init__(self, keepalive: float = 15) -> None:
        self.server = Server()
        self.connected = True
        self.wakes: list[int] = []
        self.pool = RequestLists(keepalive, self.wake, self.server.pushed_back, lambda error: None)
        self.got: list[bytes] = []
        self.undone: dict[RequestConsumer, list[Packet]] = {}

    def attach(self) -> None:
        self.pool.popper.attach(self.server)  # type: ignore[arg-type]

    def wake(self, wake_list: bytes, count: int) -> bool:
        if self.connected:
            self.wakes.append(count)
            self.server.push(wake_list, *[b""] * count)
        return self.connected

    def add(self, queue: str, prefetch: int, backlog: int = 0) -> RequestConsumer:
        packets: list[Packet] = []

        def take(packet: Packet) -> None:
            packets.append(packet)
            self.got.append(packet.payload)

        consumer = self.pool.add(queue, take, prefetch, backlog)
        self.undone[consumer] = packets
        return consumer

    def read(self, consumer: RequestConsumer, at_once: int = 1, keep: bool = False) -> list[bytes]:
        """Have a thread read requests itself; what it has got."""
        self.server.at_once = at_once
        packets = consumer.read(lambda: True, 0, keep)
        self.undone[consumer].extend(packets)
        payloads = [packet.payload for packet in packets]
        self.got += payloads
        return payloads

    def finish(self, consumer: RequestConsumer, count: int = 1) -> None:
        for _ in range(min(count, len(self.undone[consumer]))):
            consumer.done(self.undone[consumer].pop(0))


async def started(*consumers: tuple[str, int]) -> tuple[Requests, list[RequestConsumer]]:
    requests = Requests()
    made = [requests.add(*consumer) for consumer in consumers]
    requests.attach()
    await quiet(requests.server)
    return requests, made


def fail() -> None:
    raise AssertionError("the loop was called")


def keys_of(command: list[bytes]) -> list[bytes]:
    return sorted(command[2:-1])


# ---- requests ----


@pytest.mark.parametrize("prefetch", [1, 4, 16, 64])
async def test_as_many_blpops_are_outstanding_as_requests_can_be_taken_up_to_a_limit(
    prefetch: int,
) -> None:
    requests, _ = await started(("a", prefetch))
    assert requests.server.outstanding == min(prefetch, MAX_POPS)


async def test_a_service_never_gets_more_than_it_can_take_however_many_wait() -> None:
    requests, [consumer] = await started(("a", 4))
    requests.server.push(b"a", *(b"%d" % n for n in range(20)))
    await quiet(requests.server)
    assert len(requests.got) == 4
    assert consumer.credit == 0
    assert requests.server.outstanding == 0
    for taken in range(5, 21):
        requests.finish(consumer)
        await quiet(requests.server)
        assert len(requests.got) == taken
    assert requests.got == [b"%d" % n for n in range(20)]


async def test_a_service_without_a_free_worker_leaves_the_set_and_comes_back() -> None:
    requests, [busy, _] = await started(("busy", 1), ("idle", 1))
    requests.server.push(b"busy", b"1")
    await quiet(requests.server)
    assert [keys_of(command) for command in requests.server._blocked] == [[b"idle"]]
    requests.server.push(b"busy", b"2")
    await quiet(requests.server)
    assert requests.got == [b"1"]
    requests.finish(busy)
    await quiet(requests.server)
    assert requests.got == [b"1", b"2"]


async def test_while_a_service_is_out_of_the_set_few_blpops_have_to_be_woken_for_its_return() -> (
    None
):
    requests, [busy, _] = await started(("busy", 1), ("idle", 16))
    requests.server.push(b"busy", b"1")
    await quiet(requests.server)
    assert requests.server.outstanding == 1
    requests.wakes.clear()
    requests.finish(busy)
    await quiet(requests.server)
    assert requests.wakes == [1]


async def test_a_new_list_is_listened_to_at_once_by_one_wake_for_each_blpop() -> None:
    requests, _ = await started(("a", 4))
    requests.add("b", 4)
    await quiet(requests.server)
    assert requests.wakes == [4]
    assert {tuple(keys_of(c)) for c in requests.server._blocked} == {(b"a", b"b")}
    assert requests.server.outstanding == 4
    assert not any(requests.server.lists.values())


async def test_blpops_that_were_woken_before_are_not_woken_again() -> None:
    requests, _ = await started(("a", 4))
    requests.add("b", 4)
    await asyncio.sleep(0)
    requests.add("c", 4)
    await asyncio.sleep(0)
    assert requests.wakes == [4]
    await quiet(requests.server)
    assert {tuple(keys_of(c)) for c in requests.server._blocked} == {(b"a", b"b", b"c")}


async def test_a_wake_that_was_lost_on_the_way_is_made_up_for_when_the_connection_is_back() -> None:
    requests, _ = await started(("a", 4))
    requests.server.push = lambda *args: None  # type: ignore[method-assign]
    requests.add("b", 4)
    await quiet(requests.server)
    del requests.server.push  # type: ignore[method-assign]
    assert {tuple(keys_of(c)) for c in requests.server._blocked} == {(b"a",)}
    requests.pool.popper.refresh(anew=True)
    await quiet(requests.server)
    assert {tuple(keys_of(c)) for c in requests.server._blocked} == {(b"a", b"b")}


async def test_a_wake_that_could_not_be_sent_is_sent_when_there_is_a_connection() -> None:
    requests, _ = await started(("a", 2))
    requests.connected = False
    requests.add("b", 2)
    await quiet(requests.server)
    assert {tuple(keys_of(c)) for c in requests.server._blocked} == {(b"a",)}
    requests.connected = True
    requests.pool.popper.refresh(anew=True)
    await quiet(requests.server)
    assert {tuple(keys_of(c)) for c in requests.server._blocked} == {(b"a", b"b")}


async def test_after_a_time_out_the_blpops_are_made_up_to_their_number_again() -> None:
    requests, _ = await started(("a", 8))
    for _ in range(20):
        requests.server.time_out()
        await quiet(requests.server)
        # Half of them may be missing for a while: that saves writes.
        assert 4 < requests.server.outstanding <= 8
    requests.server.push(b"a", *[b"x"] * 8)
    await quiet(requests.server)
    assert len(requests.got) == 8


async def test_a_consumer_that_leaves_waits_until_nothing_more_can_come_for_it() -> None:
    requests, [consumer] = await started(("a", 4))
    closing = asyncio.create_task(consumer.close())
    await asyncio.sleep(0)
    assert not closing.done()
    requests.server.answer(3)
    await asyncio.sleep(0)
    assert not closing.done()
    requests.server.answer(1)
    await closing
    requests.server.push(b"a", b"for others")
    await quiet(requests.server)
    assert requests.got == []
    assert list(requests.server.lists[b"a"]) == [b"for others"]


async def test_what_was_popped_for_a_consumer_that_leaves_is_still_handed_over() -> None:
    requests, [consumer] = await started(("a", 1))
    requests.server.push(b"a", b"x")
    closing = asyncio.create_task(consumer.close())
    await asyncio.sleep(0)
    await quiet(requests.server)
    await closing
    assert requests.got == [b"x"]


async def test_a_consumer_leaves_in_time_though_the_server_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_redis_requests, "SETTLE_SECONDS", 0.01)
    requests, [consumer] = await started(("a", 1))
    async with asyncio.timeout(DEADLINE):
        await consumer.close()
    # What it says after that is for nobody here: it goes back to where it came from.
    requests.server.to_client = deque([[b"a", b"x"]])
    requests.server.answer(1)
    assert requests.got == []
    assert list(requests.server.lists[b"a"]) == [b"x"]


async def test_a_consumer_whose_leaving_is_given_up_takes_nothing_more_all_the_same() -> None:
    requests, [consumer] = await started(("a", 2))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await consumer.close()
    requests.server.push(b"a", b"x")
    await quiet(requests.server)
    assert requests.got == []
    assert list(requests.server.lists[b"a"]) == [b"x"]


async def test_two_consumers_of_a_list_share_it_and_one_may_leave() -> None:
    requests, [one, two] = await started(("a", 2), ("a", 2))
    requests.server.push(b"a", b"1", b"2", b"3", b"4")
    await quiet(requests.server)
    assert [len(requests.undone[consumer]) for consumer in (one, two)] == [2, 2]
    requests.finish(one, 2)
    requests.finish(two, 2)
    await quiet(requests.server)
    closing = asyncio.create_task(one.close())
    await quiet(requests.server)
    await closing
    requests.server.push(b"a", *[b"x"] * 8)
    await quiet(requests.server)
    assert requests.undone[one] == []
    for _ in range(4):
        requests.finish(two, 2)
        await quiet(requests.server)
    assert len(requests.got) == 12


async def test_the_item_that_released_versions_make_a_list_with_is_no_request() -> None:
    requests, _ = await started(("a", 1))
    requests.server.push(b"a", b"QueueInit", b"x")
    await quiet(requests.server)
    assert requests.got == [b"x"]


async def test_requests_that_were_there_before_the_service_are_told_apart() -> None:
    requests = Requests()
    consumer = requests.add("a", 10, backlog=2)
    requests.server.push(b"a", b"1", b"2", b"3")
    requests.attach()
    await quiet(requests.server)
    assert [packet.waited for packet in requests.undone[consumer]] == [True, True, False]


WRONG = "WRONGTYPE Operation against a key holding the wrong kind of value"


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.ERROR]


async def test_a_list_that_is_refused_does_not_keep_the_others_from_being_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_redis_pops, "ERROR_PAUSE", 0.01)
    requests, _ = await started(("good", 100), ("bad", 100))
    await quiet(requests.server)
    requests.server.refused[b"bad"] = WRONG
    for number in range(20):
        requests.server.push(b"good", b"%d" % number)
        await quiet(requests.server)
    assert requests.got == [b"%d" % number for number in range(20)]
    assert complaints(caplog) == [f"bad is not served: the server says: {WRONG}; trying again"]
    # As soon as it may be read, it is.
    del requests.server.refused[b"bad"]
    requests.server.push(b"bad", b"late")
    async with asyncio.timeout(DEADLINE):
        while b"late" not in requests.got:
            await asyncio.sleep(0.005)
            await quiet(requests.server)
    requests.server.push(b"bad", b"later")
    requests.server.push(b"good", b"too")
    await quiet(requests.server)
    assert sorted(requests.got[-2:]) == [b"later", b"too"]


@pytest.mark.parametrize("text", [WRONG, "NOPERM User robot has no permissions to run 'lpop'"])
async def test_a_server_that_refuses_all_is_not_asked_again_at_once_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    monkeypatch.setattr(_redis_pops, "ERROR_PAUSE", 0.01)
    requests, _ = await started(("a", 4))
    requests.server.refused[b"a"] = text
    for _ in range(3):
        requests.server.time_out_all()
        await quiet(requests.server)
        asked = requests.server.heard_of
        await asyncio.sleep(0)
        assert requests.server.heard_of == asked
        async with asyncio.timeout(DEADLINE):
            while requests.server.heard_of == asked:
                await asyncio.sleep(0.005)
                await quiet(requests.server)
    assert len(complaints(caplog)) == 1
    assert f"the server says: {text}" in complaints(caplog)[0]
    del requests.server.refused[b"a"]
    requests.server.push(b"a", b"x")
    async with asyncio.timeout(DEADLINE):
        while requests.got != [b"x"]:
            await asyncio.sleep(0.005)
            await quiet(requests.server)


async def test_a_new_link_begins_with_nothing_outstanding_and_all_lists() -> None:
    requests, _ = await started(("a", 3), ("b", 3))
    requests.pool.popper.attach(None)
    requests.server = Server()
    requests.attach()
    await quiet(requests.server)
    assert [keys_of(command) for command in requests.server._blocked] == [[b"a", b"b"]] * 3


async def test_who_waits_for_a_link_that_is_lost_is_let_go() -> None:
    requests, [consumer] = await started(("a", 1))
    closing = asyncio.create_task(consumer.close())
    await asyncio.sleep(0)
    requests.pool.popper.attach(None)
    async with asyncio.timeout(DEADLINE):
        await closing


async def test_answers_to_pings_are_not_taken_for_those_to_blpops() -> None:
    requests = Requests()
    requests.attach()
    for _ in range(3):
        requests.server.probe()
        assert list(requests.server.to_server) == [[b"PING"]]
        await quiet(requests.server)
    requests.pool.add("a", requests.got.append, 1, 0)
    await quiet(requests.server)
    assert requests.server.outstanding == 1


async def test_a_service_that_was_refused_and_left_may_come_back_to_a_list_that_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_redis_pops, "ERROR_PAUSE", 60)
    requests, [consumer] = await started(("a", 1))
    requests.server.refused[b"a"] = WRONG
    requests.server.time_out_all()
    await quiet(requests.server)
    assert not consumer.working
    await consumer.close()
    del requests.server.refused[b"a"]
    again = requests.pool.add("a", lambda packet: requests.got.append(packet.payload), 1, 0)
    await quiet(requests.server)
    assert again.working
    requests.server.push(b"a", b"x")
    await quiet(requests.server)
    assert requests.got == [b"x"]


async def test_a_link_without_blpops_is_probed_and_one_with_them_says_something_anyway() -> None:
    requests = Requests()
    requests.attach()
    requests.server.probe()
    assert list(requests.server.to_server) == [[b"PING"]]
    await quiet(requests.server)
    requests.add("a", 1)
    await quiet(requests.server)
    requests.server.probe()
    assert not requests.server.to_server


# ---- requests that threads read ----


async def in_thread(act: Callable[..., T], *args: Any) -> T:
    """What it returns; and the loop has done what it was called for."""
    result = await asyncio.to_thread(act, *args)
    await asyncio.sleep(0)
    return result


async def test_a_thread_reads_requests_and_sees_to_it_that_more_are_popped() -> None:
    requests, (consumer,) = await started(("a", 4))
    server = requests.server
    server.push(b"a", b"1", b"2", b"3")
    requests.pool.popper.fill_soon = fail  # type: ignore[method-assign] # the loop has no part in it
    assert await asyncio.to_thread(requests.read, consumer) == [b"1"]
    await asyncio.to_thread(requests.finish, consumer)
    assert server.outstanding == 3, "one more may follow soon"
    assert await asyncio.to_thread(requests.read, consumer, 2) == [b"2", b"3"]
    await asyncio.to_thread(requests.finish, consumer)
    assert server.outstanding == 1, "one more follows, or the loop has to do it"
    await asyncio.to_thread(requests.finish, consumer)
    assert server.outstanding == 4
    assert requests.pool.popper._outstanding == 4, "as far as the loop knows nothing has happened"
    assert consumer.credit == 4


async def test_where_nothing_is_popped_for_the_loop_is_called_at_once() -> None:
    requests, (consumer,) = await started(("a", 4))
    requests.server.push(b"a", b"1", b"2", b"3", b"4")
    assert len(await in_thread(requests.read, consumer, 4)) == 4
    assert requests.server.outstanding == 0, "there is no worker for more"
    await in_thread(requests.finish, consumer)
    assert requests.server.outstanding == 1


async def test_who_keeps_the_turn_to_read_has_as_many_popped_for_when_all_is_done() -> None:
    requests, (consumer,) = await started(("a", 4))
    fill_soon = requests.pool.popper.fill_soon
    for is_resumed in (False, True):
        requests.pool.popper.fill_soon = fail  # type: ignore[method-assign]
        requests.server.push(b"a", b"1", b"2", b"3", b"4")
        assert len(await asyncio.to_thread(requests.read, consumer, 4, keep=True)) == 4
        await asyncio.to_thread(requests.finish, consumer, 3)
        assert requests.server.outstanding == 0
        requests.pool.popper.fill_soon = fill_soon  # type: ignore[method-assign]
        if is_resumed:
            await in_thread(consumer.resume_reading)
            assert requests.server.outstanding == 3
            await in_thread(requests.finish, consumer)
        else:
            await asyncio.to_thread(requests.finish, consumer)
            assert requests.server.outstanding == 4
        await quiet(requests.server)
    assert requests.server.resumed == 1


async def test_who_is_about_to_wait_sees_to_it_that_something_may_come() -> None:
    requests, (consumer,) = await started(("a", 4))
    requests.pool.popper.read.extend([b""] * 4)  # as by others
    assert await in_thread(requests.read, consumer) == []
    assert requests.server.outstanding == 8


async def test_what_a_thread_works_on_for_long_keeps_no_other_request_waiting() -> None:
    requests, (a, _) = await started(("a", 1), ("b", 4))
    assert requests.server.outstanding == 1
    requests.server.push(b"a", b"1")
    assert await in_thread(requests.read, a) == [b"1"]
    (left,) = requests.server.to_server
    assert keys_of(left) == [b"b"]


async def test_a_thread_leaves_to_the_loop_what_is_for_somebody_else() -> None:
    requests, (a, b) = await started(("a", 4), ("b", 4))
    for *items, at_once in (([b"b", b"1"], 1), ([b"a", b"1"], [b"b", b"2"], 2)):
        for key, item in items:
            requests.server.push(key, item)
        assert await asyncio.to_thread(requests.read, a, at_once) == []
        await quiet(requests.server)
    for item in (b"QueueInit", b"2"):
        requests.server.push(b"a", item)
    assert await asyncio.to_thread(requests.read, a, 2) == []
    await quiet(requests.server)
    assert sorted(requests.got) == [b"1", b"1", b"2", b"2"]
    second = requests.add("a", 1)
    await quiet(requests.server)
    requests.server.push(b"a", b"3")
    assert await asyncio.to_thread(requests.read, a) == await in_thread(requests.read, second) == []
    assert await asyncio.to_thread(requests.read, b) == []


async def test_a_thread_takes_no_more_than_its_service_may_have() -> None:
    requests, (a, _) = await started(("a", 1), ("b", 1))
    requests.server.push(b"a", b"1")
    requests.server.answer()
    assert requests.got == [b"1"]
    server = requests.server
    server.to_client.append([b"a", b"2"])
    assert await asyncio.to_thread(requests.read, a) == []
    server.to_client.clear()
    requests.finish(a)
    server.to_client.extend([[b"a", b"2"], [b"a", b"3"]])
    assert await asyncio.to_thread(requests.read, a, 2) == []
    assert await asyncio.to_thread(requests.read, a, 1) == [b"2"]


async def test_who_leaves_or_has_no_link_reads_nothing_in_a_thread() -> None:
    requests, (consumer,) = await started(("a", 4))
    requests.server.push(b"a", b"1")
    closing = asyncio.create_task(consumer.close())
    await asyncio.sleep(0)
    assert await asyncio.to_thread(requests.read, consumer) == []
    await quiet(requests.server)
    await closing
    assert requests.got == [b"1"]
    requests.pool.popper.attach(None)
    assert await asyncio.to_thread(requests.read, consumer) == []


async def test_the_server_has_as_long_for_what_a_thread_has_sent_as_for_what_the_loop_sends() -> (
    None
):
    requests, (consumer,) = await started(("a", 1))
    requests.server.push(b"a", b"1")
    assert await asyncio.to_thread(requests.read, consumer) == [b"1"]
    before = requests.server.signs
    await asyncio.to_thread(requests.finish, consumer)
    assert requests.server.signs == before + 1


async def test_a_thread_replaces_no_blpop_that_has_been_woken() -> None:
    requests, (consumer,) = await started(("a", 4))
    requests.server.push(b"a", b"1", b"2")
    assert await asyncio.to_thread(requests.read, consumer, 2) == [b"1", b"2"]
    requests.pool.popper.refresh()
    assert requests.wakes[-1] == 2
    requests.pool.popper.read.extend([b"1", b"2"])
    assert not await asyncio.to_thread(requests.pool.popper.replace)
    assert not requests.server.to_server


async def test_a_thread_replaces_no_more_blpops_than_there_are_to_be_by_now() -> None:
    requests, (a, b) = await started(("a", 4), ("b", 4))
    requests.server.push(b"a", b"1", b"2", b"3")
    assert len(await asyncio.to_thread(requests.read, a, 3)) == 3
    requests.pool.popper._depth = 2  # as by the plan while another service is busy
    await asyncio.to_thread(requests.finish, a, 3)
    assert requests.server.outstanding == 2
    assert b.credit == 4


async def test_a_thread_that_cannot_write_leaves_it_to_the_loop() -> None:
    requests, (consumer,) = await started(("a", 4))
    for hinder in ("is_writable", "lock"):
        requests.server.push(b"a", b"1", b"2", b"3")
        assert len(await asyncio.to_thread(requests.read, consumer, 3)) == 3
        if hinder == "lock":
            with requests.pool.popper._lock:
                await asyncio.to_thread(requests.finish, consumer, 3)
        else:
            requests.server.is_writable = False
            await asyncio.to_thread(requests.finish, consumer, 3)
            requests.server.is_writable = True
        await asyncio.sleep(0)
        assert requests.server.outstanding == 4
        assert requests.pool.popper._outstanding == 4
        await quiet(requests.server)


async def test_what_threads_say_while_the_loop_is_busy_calls_it_once() -> None:
    requests, (consumer,) = await started(("a", 4))
    requests.server.push(b"a", b"1", b"2", b"3", b"4")
    requests.server.answer(4)
    calls: list[Callable[[], None]] = []
    fill, requests.pool.popper.fill = requests.pool.popper.fill, lambda: calls.append(fill)  # type: ignore[method-assign]
    finishing = asyncio.to_thread(requests.finish, consumer, 4)
    await asyncio.gather(finishing)
    await asyncio.sleep(0)
    assert len(calls) == 1
    fill()
    assert consumer.credit == 4
    assert requests.server.outstanding == 4


async def test_a_thread_that_is_done_when_the_loop_has_ended_tells_nobody() -> None:
    requests, (consumer,) = await started(("a", 1))
    requests.server.push(b"a", b"1")
    requests.server.answer()
    await asyncio.sleep(0)
    ended = asyncio.new_event_loop()
    ended.close()
    requests.pool.popper._loop = ended
    await asyncio.to_thread(requests.finish, consumer)
    assert requests.pool._given_back


class RequestMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, every request is handled once, and never too many."""

    QUEUES = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._requests = self._runner.run(self._start())
        self._consumers: list[RequestConsumer] = []
        self._prefetch: dict[RequestConsumer, int] = {}
        self._sent = 0

    async def _start(self) -> Requests:
        requests = Requests()
        requests.attach()
        return requests

    def _do(self, act: Callable[[], Any]) -> None:
        async def go() -> None:
            act()
            await asyncio.sleep(0)

        self._runner.run(go())

    @rule(queue=st.sampled_from(QUEUES), prefetch=st.integers(1, 20))
    def add(self, queue: str, prefetch: int) -> None:
        if any(consumer.queue == queue for consumer in self._consumers):
            return
        self._do(lambda: self._consumers.append(self._requests.add(queue, prefetch)))
        self._prefetch[self._consumers[-1]] = prefetch

    @rule(queue=st.sampled_from(QUEUES), count=st.integers(1, 5))
    def send(self, queue: str, count: int) -> None:
        items = [b"%d" % number for number in range(self._sent, self._sent + count)]
        self._sent += count
        self._do(lambda: self._requests.server.push(queue.encode(), *items))

    @rule(count=st.integers(1, 20))
    def hear(self, count: int) -> None:
        for _ in range(count):
            self._do(self._requests.server.hear)

    @rule(count=st.integers(1, 20))
    def answer(self, count: int) -> None:
        self._do(lambda: self._requests.server.answer(count))

    @rule()
    def time_out(self) -> None:
        self._do(self._requests.server.time_out)

    @rule(index=st.integers(0, 2), at_once=st.integers(1, 6), keep=st.booleans())
    def read(self, index: int, at_once: int, keep: bool) -> None:
        if self._consumers:
            consumer = self._consumers[index % len(self._consumers)]
            self._runner.run(in_thread(self._requests.read, consumer, at_once, keep))

    @rule()
    def resume(self) -> None:
        self._runner.run(in_thread(self._requests.pool.resume_reading))

    @rule(index=st.integers(0, 2), count=st.integers(1, 20), by_thread=st.booleans())
    def finish(self, index: int, count: int, by_thread: bool) -> None:
        if self._consumers:
            consumer = self._consumers[index % len(self._consumers)]
            if by_thread:
                self._runner.run(in_thread(self._requests.finish, consumer, count))
            else:
                self._do(lambda: self._requests.finish(consumer, count))

    @rule()
    def have_threads_write_or_not(self) -> None:
        self._requests.server.is_writable = not self._requests.server.is_writable

    @rule(index=st.integers(0, 2))
    def close(self, index: int) -> None:
        if not self._consumers:
            return
        consumer = self._consumers.pop(index % len(self._consumers))

        async def close() -> None:
            closing = asyncio.create_task(consumer.close())
            await asyncio.sleep(0)
            await quiet(self._requests.server)
            await closing

        self._runner.run(close())
        self._requests.finish(consumer, 1000)

    @rule()
    def lose_and_find_the_command_connection(self) -> None:
        self._requests.connected = not self._requests.connected
        if self._requests.connected:
            self._do(lambda: self._requests.pool.popper.refresh(anew=True))

    @invariant()
    def nobody_has_more_than_it_can_take(self) -> None:
        for consumer in self._consumers:
            assert len(self._requests.undone[consumer]) <= self._prefetch[consumer]

    @invariant()
    def what_comes_for_whoever_has_room_is_popped(self) -> None:
        undone = self._requests.undone
        if self._requests.pool._is_kept:
            return  # he reads on in a moment, or says that he does not
        if any(len(undone[consumer]) < self._prefetch[consumer] for consumer in self._consumers):
            assert self._requests.server.outstanding

    @invariant()
    def the_count_of_what_is_outstanding_is_right(self) -> None:
        assert self._requests.pool.popper.outstanding == self._requests.server.outstanding

    def teardown(self) -> None:
        if not self._requests.connected:
            self.lose_and_find_the_command_connection()
        self.resume()
        for queue in self.QUEUES:
            self.add(queue, 3)
        while len(self._requests.got) < self._sent:
            before = len(self._requests.got)
            for consumer in self._consumers:
                self._do(lambda consumer=consumer: self._requests.finish(consumer, 1000))
            self._runner.run(quiet(self._requests.server))
            assert len(self._requests.got) > before, "requests wait, and nobody takes them"
        assert sorted(self._requests.got, key=int) == [b"%d" % n for n in range(self._sent)]
        self._runner.close()


TestRequests = RequestMachine.TestCase
TestRequests.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


# ---- replies ----


class Replies:
    """The reply lists of a caller, on a server."""

    def __init__(self) -> None:
        self.server = Server()
        self.got: list[tuple[str | None, bytes]] = []
        self.deleted: list[bytes] = []
        self.wanted = True
        self.lists = ReplyLists(15, self._wake, self.deleted.extend, lambda error: None)
        self.lists.handler = self._take
        self.lists.popper.attach(self.server)  # type: ignore[arg-type]

    def _wake(self, wake_list: bytes, count: int) -> bool:
        self.server.push(wake_list, *[b""] * count)
        return True

    def _take(self, token: str | None, packet: Packet) -> bool:
        self.got.append((token, packet.payload))
        return self.wanted

    def address(self, token: str) -> bytes:
        return self.lists.address(token).reply_to.encode()


async def test_a_reply_is_told_by_the_list_it_comes_to() -> None:
    replies = Replies()
    lists = {token: replies.address(token) for token in "abcdef"}
    assert len(set(lists.values())) == 6
    await quiet(replies.server)
    for token in "fbadec":
        replies.server.push(lists[token], token.encode())
    await quiet(replies.server)
    assert sorted(replies.got) == [(token, token.encode()) for token in "abcdef"]


async def test_an_address_is_a_name_that_released_services_answer_to() -> None:
    address = Replies().address("a")
    assert address.startswith(b"rpc-")
    assert len(address) == 36
    int(address.removeprefix(b"rpc-"), 16)


async def test_a_request_that_is_refused_ends_its_call_and_frees_the_list() -> None:
    replies = Replies()
    told: list[tuple[str | None, object]] = []
    replies.lists.handler = lambda token, outcome: bool(told.append((token, outcome)) or True)
    error = ConnectionLost("no")
    address = replies.lists.address("a")
    assert address.correlation_id == "a"
    replies.lists.refuse("a", error)
    replies.lists.refuse("a", error)  # it has ended
    replies.lists.refuse("", error)  # it was no call
    assert told == [("a", error)]
    assert replies.lists.address("b").reply_to == address.reply_to
    following = replies.lists.hand_on("b", "c")
    assert following is not None
    replies.lists.refuse(following.correlation_id, error)
    assert told[1:] == [("c", error)]


async def test_who_reads_for_a_refused_call_takes_nothing_of_the_one_that_has_its_list() -> None:
    replies, link = Replies(), ReadLink()
    replies.lists.handler = lambda token, outcome: True
    address = replies.lists.address("a")
    replies.lists.popper.attach(link)  # type: ignore[arg-type]
    link.comes = b"*2\r\n$%d\r\n%b\r\n$1\r\nx\r\n" % (
        *(len(address.reply_to), address.reply_to.encode()),
    )
    link.before = lambda: replies.lists.refuse("a", ConnectionLost("no"))
    assert replies.lists.read("a", 1) is None
    assert replies.lists.address("b").reply_to == address.reply_to
    link.before = lambda: None
    found = replies.lists.read("b", 1)
    assert found is not None
    assert found.payload == b"x"


async def test_a_list_is_used_again_only_after_its_reply() -> None:
    replies = Replies()
    first = replies.address("first")
    others = [replies.address(f"{n}") for n in range(20)]
    assert first not in others
    await quiet(replies.server)
    replies.server.push(first, b"x")
    await quiet(replies.server)
    assert replies.address("again") == first


async def test_a_list_whose_call_ended_without_a_reply_is_never_used_again() -> None:
    replies = Replies()
    retired = replies.address("too slow")
    replies.lists.release("too slow")
    replies.lists.release("too slow")
    replies.lists.release("unknown")
    assert retired not in [replies.address(f"{n}") for n in range(MAX_LISTS)]


async def test_a_late_reply_is_told_as_such_and_reaches_no_call() -> None:
    replies = Replies()
    retired = replies.address("too slow")
    replies.address("other")
    await quiet(replies.server)
    replies.lists.release("too slow")
    replies.server.push(retired, b"late")
    await quiet(replies.server)
    assert replies.got == [(None, b"late")]


async def test_a_reply_that_is_not_that_of_the_call_leaves_the_call_waiting() -> None:
    replies = Replies()
    address = replies.address("a")
    await quiet(replies.server)
    replies.wanted = False
    replies.server.push(address, b"of another")
    await quiet(replies.server)
    assert replies.address("b") != address
    replies.wanted = True
    replies.server.push(address, b"mine")
    await quiet(replies.server)
    assert replies.got == [("a", b"of another"), ("a", b"mine")]
    assert replies.address("c") == address


async def test_retired_lists_are_deleted_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_redis_replies, "RETIRED_SECONDS", 0)
    replies = Replies()
    retired = [replies.address(f"{n}") for n in range(3)]
    for number in range(3):
        replies.lists.release(f"{number}")
    for _ in range(3):
        await asyncio.sleep(0)
    assert sorted(replies.deleted) == sorted(retired)
    assert not set(retired) & set(replies.lists.keys())


async def test_lists_that_are_closed_are_kept_by_no_timer() -> None:
    replies = Replies()
    retired = replies.address("a")
    replies.lists.release("a")
    await quiet(replies.server)
    assert retired in replies.lists.close()
    lists = weakref.ref(replies.lists)
    del replies
    gc.collect()
    assert lists() is None


async def test_the_pool_grows_on_demand_to_its_limit_and_each_list_is_heard() -> None:
    replies = Replies()
    addresses: list[bytes] = []
    sizes: list[int] = []
    for number in range(MAX_LISTS):
        addresses.append(replies.address(f"{number}"))
        size = len(replies.lists.keys()) - 1  # one of them is the wake list
        if size not in sizes:
            sizes.append(size)
    assert sizes == [8, 16, 32, 64, 128, 256]
    await quiet(replies.server)
    for number, address in enumerate(addresses):
        replies.server.push(address, b"%d" % number)
    await quiet(replies.server)
    assert sorted(replies.got) == sorted((f"{n}", b"%d" % n) for n in range(MAX_LISTS))


async def test_only_some_of_the_retired_lists_are_listened_to() -> None:
    replies = Replies()
    for number in range(3 * MAX_RETIRED):
        replies.address(f"{number}")
        replies.lists.release(f"{number}")
    heard, pops = replies.lists._plan()
    assert pops == REPLY_POPS
    assert len(heard) <= MAX_RETIRED + _redis_replies.FIRST_LISTS
    assert len(replies.lists.keys()) > 3 * MAX_RETIRED, "all of them are known, to be deleted"


async def test_no_more_blpops_are_outstanding_than_bring_anything() -> None:
    replies = Replies()
    for number in range(100):
        replies.address(f"{number}")
        await quiet(replies.server)
        assert replies.server.outstanding == REPLY_POPS


class ReplyMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, a reply reaches its own call or none."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._replies = self._runner.run(self._start())
        self._count = 0
        self._open: dict[str, bytes] = {}
        self._owed: list[tuple[str, bytes]] = []

    async def _start(self) -> Replies:
        return Replies()

    def _do(self, act: Callable[[], Any]) -> None:
        async def go() -> None:
            act()
            await asyncio.sleep(0)

        self._runner.run(go())
        for token, payload in self._replies.got:
            if token is not None:
                assert token.encode() == payload
                assert token in self._open, "its call has ended"
                del self._open[token]
        self._replies.got.clear()

    @rule()
    def call(self) -> None:
        if len(self._open) < MAX_LISTS:
            token = f"{self._count}"
            self._count += 1
            self._do(lambda: self._open.update({token: self._replies.address(token)}))
            self._owed.append((token, self._open[token]))

    @rule(index=st.integers(0, 1000))
    def reply(self, index: int) -> None:
        if self._owed:
            token, address = self._owed.pop(index % len(self._owed))
            self._do(lambda: self._replies.server.push(address, token.encode()))

    @rule(index=st.integers(0, 1000))
    def give_up(self, index: int) -> None:
        if self._open:
            token = sorted(self._open)[index % len(self._open)]
            del self._open[token]
            self._do(lambda: self._replies.lists.release(token))

    @rule(count=st.integers(1, 10))
    def go_on(self, count: int) -> None:
        for _ in range(count):
            self._do(self._replies.server.hear)
        self._do(lambda: self._replies.server.answer(count))

    @rule()
    def time_out(self) -> None:
        self._do(self._replies.server.time_out)

    def teardown(self) -> None:
        while self._owed:
            self.reply(0)
        self._runner.run(quiet(self._replies.server))
        self._do(lambda: None)
        assert self._open == {}, "their replies are there, and were not brought"
        self._runner.close()


TestReplies = ReplyMachine.TestCase
TestReplies.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


# ---- what a thread has read ----


class ReadLink(Link):
    """Has something to read for a thread, ``before`` which something else happens."""

    comes = b""
    before: Callable[[], object] = staticmethod(lambda: None)

    def heard_now(self) -> None:
        self.heard += 1

    def send_reader_away(self) -> None:
        pass

    def read_here(
        self,
        is_wanted: Callable[[], bool],
        find: Callable[[bytes], bytes | None],
        read: deque[bytes],
        seconds: float,
    ) -> bytes | None:
        assert is_wanted()
        self.before()
        return find(self.comes)


ITEM = b"*2\r\n$1\r\nq\r\n$3\r\nabc\r\n"


async def test_items_are_told_if_they_are_all_that_a_thread_has_read() -> None:
    popper, link = popper_of((b"q",), 1), ReadLink()

    def items(data: bytes, name: bytes = b"q") -> list[bytes]:
        before = link.heard
        found = popper.items_of(link, name, data)  # type: ignore[arg-type]
        assert link.heard == before + 1
        return found

    empty = b"*2\r\n$1\r\nq\r\n$0\r\n\r\n"
    assert items(ITEM) == [b"abc"]
    assert items(empty) == [b""]
    assert items(ITEM + empty + ITEM) == [b"abc", b"", b"abc"]
    for end in range(len(ITEM)):
        assert items(ITEM[:end]) == []
        assert items(ITEM + ITEM[:end]) == ([b"abc"] if end == 0 else [])
    other_list = ITEM.replace(b"q", b"r")
    for other in (other_list, b"*-1\r\n", b"+PONG\r\n", b"$3\r\nabc\r\n", b"-ERR\r\n"):
        assert items(ITEM + other) == items(other + ITEM) == items(other) == []
    for size in (b"", b"-1", b"+3", b"03", b"2", b"4", b"3 ", b"9" * 30):
        assert items(ITEM.replace(b"3", size)) == []
    assert items(ITEM.replace(b"abc", b"a\r\n")) == [b"a\r\n"]


async def test_what_threads_have_read_is_popped_for_anew() -> None:
    popper, link = popper_of((b"q",), REPLY_POPS), ReadLink()
    popper.attach(link)  # type: ignore[arg-type]
    assert len(link.commands()) == REPLY_POPS
    for _ in range(READ_AT_ONCE):
        popper.read.append(ITEM)
        popper.note_read()
    await asyncio.sleep(0)
    assert len(link.commands()) == READ_AT_ONCE


async def test_a_probe_sees_to_it_as_well_that_enough_are_popped_for() -> None:
    popper, link = popper_of((b"q",), REPLY_POPS), ReadLink()
    popper.attach(link)  # type: ignore[arg-type]
    link.commands()
    popper.read.extend([ITEM] * REPLY_POPS)
    popper._probe()
    assert [command[0] for command in link.commands()] == [b"PING"] + [b"BLPOP"] * REPLY_POPS


async def test_a_list_is_handed_on_to_the_next_call_unless_it_was_released() -> None:
    deleted: list[bytes] = []
    lists = ReplyLists(15, lambda wake_list, count: True, deleted.extend, lambda error: None)
    taken: list[str | None] = []
    lists.handler = lambda token, packet: taken.append(token) or True
    first = lists.address("1")
    assert lists.hand_on("1", "2") == Address(first.reply_to, "2")
    lists.release("1")  # whose list it is no more
    lists._take(first.reply_to.encode(), b"")
    assert taken == ["2"]
    lists.address("3")
    lists.release("3")
    assert lists.hand_on("3", "4") is None
