"""A thread reads the answer that it waits for; all else is the loop's, in the order it came."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pytest

from collected import DEADLINE, eventually, interruptible
from commlib.transports._reading import CAN_BE_LENT, UNUSED, Reading

T = TypeVar("T")
pytestmark = pytest.mark.skipif(not CAN_BE_LENT, reason="only the loop reads on this system")


class Lent:
    """A socket that is read by a loop in a thread of its own, and its other end."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.on_loop: list[bytes] = []
        self.failures: list[OSError] = []
        self.taken: list[bytes] = []
        self.unused: list[int] = []
        self.is_clear = True
        self.is_wanted = True
        self.is_reading = True
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Lent:
        self._thread.start()
        self.lend()
        return self

    def lend(self) -> None:
        self.reading = self.do(
            lambda: Reading(
                self.near,
                self._read_once,
                self.on_loop.append,
                self.failures.append,
                lambda: self.is_clear,
                lambda: self.unused.append(len(self.on_loop)),
            )
        )

    def __exit__(self, *exc_info: object) -> None:
        self.do(self.reading.stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.near.close()
        self.far.close()

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def _read_once(self, sock: socket.socket) -> None:
        if not self.is_reading:
            return
        try:
            self.on_loop.append(sock.recv(100))
        except BlockingIOError:
            return
        if not self.on_loop[-1]:
            self.reading.stop()

    def do(self, action: Callable[[], T]) -> T:
        """Do it on the loop."""

        async def act() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(DEADLINE)

    def read(self, wanted: bytes, seconds: float = DEADLINE, *, keep: bool = False) -> bytes | None:
        return self.find(lambda data: data if data == wanted else None, seconds, keep=keep)

    def find(
        self, find: Callable[[bytes], T | None], seconds: float = DEADLINE, *, keep: bool = False
    ) -> T | None:
        return self.reading.read(lambda: self.is_wanted, find, self.taken, seconds, keep)

    def on_thread(self, wanted: bytes, *, keep: bool = False) -> bytes | None:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.read, wanted, keep=keep).result(DEADLINE)

    def keep(self) -> None:
        """Have a thread read something, and keep the turn."""

        def is_kept() -> bool:
            with self.waiting_for(b"kept", keep=True) as found:
                self.far.sendall(b"kept")
                assert found.result(DEADLINE) == b"kept"
            self.do(lambda: None)  # the loop may have been told of it: then it takes the turn
            return self.reading._kept

        eventually(is_kept)
        self.far.sendall(b"behind")
        self.do(lambda: None)
        assert self.on_loop == []

    @contextmanager
    def waiting_for(self, wanted: bytes, *, keep: bool = False) -> Iterator[Future[bytes | None]]:
        """While a thread waits for this."""
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(self.read, wanted, keep=keep)
            eventually(lambda: bool(self.reading._holder))
            yield found

    def heard(self, data: bytes) -> None:
        """Return when the loop has read this, and nothing else."""
        eventually(lambda: b"".join(self.on_loop) == data, lambda: self.on_loop)


@pytest.fixture
def lent() -> Iterator[Lent]:
    with Lent() as one:
        yield one


def test_a_thread_reads_its_answer_and_the_loop_what_comes_then(lent: Lent) -> None:
    with lent.waiting_for(b"answer") as found:
        lent.far.sendall(b"answer")
        assert found.result(DEADLINE) == b"answer"
    assert lent.on_loop == []
    lent.far.sendall(b"more")
    lent.heard(b"more")


def test_what_was_taken_is_told(lent: Lent) -> None:
    for number in (b"1", b"2"):
        with lent.waiting_for(number) as found:
            lent.far.sendall(number)
            assert found.result(DEADLINE) == number
    assert lent.taken == [b"1", b"2"]


def test_what_is_not_its_answer_is_the_loops_and_so_is_all_behind_it(lent: Lent) -> None:
    with lent.waiting_for(b"answer") as found:
        lent.far.sendall(b"other")
        assert found.result(DEADLINE) is None
    lent.far.sendall(b"answer")
    lent.heard(b"otheranswer")


def test_of_two_threads_one_reads(lent: Lent) -> None:
    with lent.waiting_for(b"answer") as found:
        assert lent.read(b"else") is None
        lent.far.sendall(b"answer")
        assert found.result(DEADLINE) == b"answer"


def test_nobody_else_reads_in_the_middle_of_something(lent: Lent) -> None:
    lent.is_clear = False
    lent.far.sendall(b"rest")
    assert lent.read(b"rest") is None
    lent.heard(b"rest")


def test_what_has_not_come_in_time_the_loop_reads(lent: Lent) -> None:
    assert lent.read(b"answer", 0.01) is None
    lent.far.sendall(b"answer")
    lent.heard(b"answer")


def test_what_the_loop_has_read_already_is_not_waited_for(lent: Lent) -> None:
    lent.far.sendall(b"answer")
    lent.heard(b"answer")
    lent.is_wanted = False
    assert lent.read(b"answer") is None


def test_where_other_things_come_in_between_it_tries_less_and_less(lent: Lent) -> None:
    tries: list[int] = []

    def read(number: int) -> None:
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(lent.find, lambda data: tries.append(number))
            eventually(lambda: bool(lent.reading._holder) or found.done())
            lent.far.sendall(b"x")
            assert found.result(DEADLINE) is None
        lent.heard(b"x" * (number + 1))

    for number in range(200):
        read(number)
    assert tries == [0, 2, 5, 10, 19, 36, 69, 134, 199]


def test_the_owner_is_told_when_no_thread_has_found_its_answer_for_long(lent: Lent) -> None:
    def bring(count: int) -> None:
        for _ in range(count):
            before = len(lent.on_loop)
            lent.far.sendall(b"x")
            eventually(lambda: len(lent.on_loop) > before)  # noqa: B023 - within the loop

    bring(UNUSED - 1)
    with lent.waiting_for(b"answer") as found:
        lent.far.sendall(b"answer")
        assert found.result(DEADLINE) == b"answer"
    bring(UNUSED - 2)  # the loop may have been told of the answer, and come to find nothing
    assert lent.unused == []
    bring(2)
    eventually(lambda: lent.unused != [])


def test_what_comes_while_the_turn_is_kept_is_for_who_reads_next(lent: Lent) -> None:
    lent.keep()
    assert lent.on_thread(b"behind") == b"behind"
    lent.far.sendall(b"more")
    lent.heard(b"more")


def test_a_turn_that_was_kept_and_is_not_used_is_the_loops(lent: Lent) -> None:
    lent.keep()
    lent.reading.resume()
    lent.heard(b"behind")
    lent.far.sendall(b"more")
    lent.heard(b"behindmore")


def test_who_finds_something_else_keeps_no_turn(lent: Lent) -> None:
    lent.keep()
    assert lent.on_thread(b"other", keep=True) is None
    lent.far.sendall(b"more")
    lent.heard(b"behindmore")


def test_who_does_not_want_it_any_more_keeps_no_turn(lent: Lent) -> None:
    lent.keep()
    lent.is_wanted = False
    assert lent.on_thread(b"behind", keep=True) is None
    lent.heard(b"behind")


def test_a_loop_that_was_told_before_the_turn_was_kept_reads_on(lent: Lent) -> None:
    lent.keep()
    lent.do(lent.reading._take_turn)
    lent.heard(b"behind")
    lent.far.sendall(b"more")
    lent.heard(b"behindmore")


def test_the_turn_of_another_thread_is_left_to_that(lent: Lent) -> None:
    lent.keep()
    assert lent.on_thread(b"behind", keep=True) == b"behind"
    with lent.waiting_for(b"answer") as found:
        lent.reading.resume()
        lent.far.sendall(b"answer")
        assert found.result(DEADLINE) == b"answer"
    lent.far.sendall(b"more")
    lent.heard(b"more")


def test_a_link_ends_while_the_turn_is_kept(lent: Lent) -> None:
    lent.keep()
    lent.do(lent.reading.stop)
    assert lent.reading.sock.fileno() == -1
    lent.reading.resume()
    assert lent.on_thread(b"behind", keep=True) is None


def test_a_thread_that_waits_is_sent_away_when_the_link_ends(lent: Lent) -> None:
    with lent.waiting_for(b"answer") as found:
        lent.do(lent.reading.stop)
        assert found.result(DEADLINE) is None
    assert lent.reading.sock.fileno() == -1
    assert lent.read(b"answer") is None


def test_a_thread_whose_answer_will_not_come_is_sent_away_and_the_next_one_reads(
    lent: Lent,
) -> None:
    lent.do(lent.reading.send_away)  # nobody reads
    with lent.waiting_for(b"answer") as found:
        assert not found.done()
        lent.do(lent.reading.send_away)
        assert found.result(DEADLINE) is None
    with lent.waiting_for(b"next") as found:
        lent.far.sendall(b"next")
        assert found.result(DEADLINE) == b"next"
    assert lent.on_loop == []


def test_nothing_is_left_open_whoever_is_the_last() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with Lent() as lent, lent.waiting_for(b"answer") as found:
            lent.do(lent.reading.stop)
            assert found.result(DEADLINE) is None
        with Lent() as lent:
            assert lent.read(b"answer", 0) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_loop_sees_the_end_and_a_thread_that_waits_is_sent_away(lent: Lent) -> None:
    with lent.waiting_for(b"answer") as found:
        lent.far.close()
        assert found.result(DEADLINE) is None
    eventually(lambda: lent.on_loop == [b""])


def test_the_loop_is_told_why_a_thread_could_not_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Lent() as lent:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        near, lent.near = lent.near, near
        lent.do(lent.reading.stop)
        near.close()
        lent.lend()
        with lent.waiting_for(b"answer") as found:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far.close()  # which resets it
            assert found.result(DEADLINE) is None
        eventually(lambda: bool(lent.failures))
        assert isinstance(lent.failures[0], ConnectionResetError)


def test_ctrl_c_while_a_turn_is_given_back_strands_nothing(lent: Lent) -> None:
    class Interrupted(dict[str, object]):
        """The holder of a turn; Ctrl-C comes when a thread gives it back for the first time."""

        def pop(self, key: str, *default: object) -> object:
            found = super().pop(key, *default)
            if lent.reading._holder is self:
                lent.reading._holder = {}
                raise KeyboardInterrupt
            return found

    lent.reading._holder = Interrupted()
    lent.is_reading = False  # or it may be quicker
    lent.far.sendall(b"other")
    with pytest.raises(KeyboardInterrupt):
        lent.read(b"answer")
    lent.is_reading = True
    lent.heard(b"other")


def test_where_a_signal_has_a_handler_the_main_thread_leaves_it_to_the_loop(lent: Lent) -> None:
    former = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        assert lent.find(lambda data: data, DEADLINE) is None
        with lent.waiting_for(b"answer") as found:  # no other thread is interrupted
            lent.far.sendall(b"answer")
            assert found.result(DEADLINE) == b"answer"
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_ctrl_c_at_any_moment_loses_nothing(lent: Lent) -> None:
    all_sent: list[bytes] = []
    sent: list[int] = []
    found: list[bytes] = []
    stopped, within = 0, 1e-4  # s, as long as it takes here that half of them are stopped
    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with interruptible():
            while len(all_sent) < 99_999 and (stopped < 1000 or len(found) < 1000):
                data = b"%05d" % len(all_sent)
                all_sent.append(data)

                def send(data: bytes = data) -> bool:  # when the loop cannot be quicker
                    sent.extend(map(lent.far.send, (data,)))
                    return True

                def find(came: bytes, data: bytes = data) -> bytes | None:
                    if came == data:
                        found.append(came)
                        return came
                    return None

                lent.reading._skip = 0  # it is to try each time
                is_found = False
                try:
                    moment = within * (len(all_sent) % 150) / 75
                    signal.setitimer(signal.ITIMER_REAL, max(1e-6, moment))
                    is_found = lent.reading.read(send, find, lent.taken, DEADLINE) is not None
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    signal.pthread_sigmask(signal.SIG_BLOCK, ())  # no signal comes later
                    within /= 1.02
                except KeyboardInterrupt:
                    stopped += 1
                    within *= 1.02
                if len(sent) < len(all_sent):
                    send()
                if not is_found:
                    lent.do(lambda: None)  # the loop reads it
    finally:
        signal.signal(signal.SIGALRM, former)
    lent.far.sendall(b"last.")
    eventually(lambda: b"".join(lent.on_loop).endswith(b"last."))
    heard = b"".join(lent.on_loop)
    left = [heard[at : at + 5] for at in range(0, len(heard), 5)]
    assert left == sorted(set(left)), "whole and in order"
    assert {*left, *found} == {*all_sent, b"last."}
    assert stopped >= 1000
    assert len(found) >= 1000
