"""The link breaks while the broker lives: nothing comes twice, and what is lost is counted."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from brokers import Server
from collected import DEADLINE, Collected, eventually
from commlib.exceptions import ConnectionLost, RPCTimeout
from commlib.node import Node
from faults.proxy import Proxy

MakeServer = Callable[..., Server]

UNANSWERED = RPCTimeout, ConnectionLost
LAST = -1


class Pair:
    """Two nodes behind a proxy; while ``busy``, one publishes and calls without a pause."""

    def __init__(self, proxy: Proxy) -> None:
        self.got = Collected()
        self.sent = 0
        self.wrong: list[object] = []
        self.base = Node("base", connection_params=proxy.url)
        self.far = Node("far", connection_params=proxy.url)
        self.subscriber = self.base.create_subscriber("numbers", self.got)
        self.base.create_rpc("double", lambda request: 2 * request)
        self.publisher = self.far.create_publisher("numbers")
        self.client = self.far.create_rpc_client("double")

    @contextmanager
    def busy(self) -> Iterator[None]:
        done = threading.Event()

        def publish_for_ever() -> None:
            while not done.wait(0.001):
                self.publisher.publish(self.sent)
                self.sent += 1

        def call_for_ever(number: int) -> None:
            while not done.is_set():
                number += 4
                self.call(number)

        threads = [threading.Thread(target=publish_for_ever)]
        threads += [threading.Thread(target=call_for_ever, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join()

    def call(self, number: int) -> bool:
        """Whether it is answered; a wrong answer is kept."""
        try:
            answer = self.client.call(number, timeout=0.5)
        except UNANSWERED:
            return False
        if answer != 2 * number:
            self.wrong.append((number, answer))
        return True

    def check(self) -> None:
        """All works; nothing came twice, and what is missing is counted."""
        eventually(lambda: self.call(1_000_000))

        def arrives() -> bool:
            self.publisher.publish(LAST)
            return LAST in self.got.items

        eventually(arrives)
        numbers = [number for number in self.got.items if number != LAST]
        assert self.wrong == []
        assert numbers == sorted(set(numbers)), "each of them once, in order"
        # Of the last ones, some may be missing, too: they were published until one came.
        assert self.sent - len(numbers) <= self.subscriber.stats.gaps

    def __enter__(self) -> Pair:
        self.base.run()
        self.far.run()
        self.publisher.publish(self.sent)  # gaps are counted from the first one on
        self.sent += 1
        self.got.wait(1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.far.stop()
        self.base.stop()


def test_bytes_may_come_one_by_one(make_server: MakeServer) -> None:
    with Proxy(make_server().url, piece=1) as proxy, Pair(proxy) as pair:
        for number in range(1, 20):
            pair.publisher.publish(number)
            assert pair.client.call(number, timeout=DEADLINE) == 2 * number
        assert pair.got.wait(20) == list(range(20))
        assert pair.publisher.stats.reconnects == 0


def test_a_link_that_is_cut_again_and_again(make_server: MakeServer) -> None:
    with Proxy(make_server().url) as proxy, Pair(proxy) as pair:
        with pair.busy():
            for _ in range(8):
                threading.Event().wait(random.uniform(0.01, 0.2))  # it is cut amid anything
                proxy.cut()
                eventually(lambda: pair.base.connected and pair.far.connected)
        pair.check()


def test_links_that_break_after_some_bytes(make_server: MakeServer) -> None:
    with Proxy(make_server().url) as proxy, Pair(proxy) as pair:
        for longest in (100, 1000, 10_000, 100_000):
            proxy.longest = longest
            proxy.cut()
            with pair.busy():
                threading.Event().wait(0.7)  # for so long they break again and again
        proxy.longest = 0
        proxy.cut()
        pair.check()
