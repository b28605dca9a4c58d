"""Whatever happens to broker, link and nodes, in whatever order: everything adds up in the end.

What happens is drawn by Hypothesis. A failure is told as the steps that led to it and as a line
``@reproduce_failure(...)``, which above ``class Schedule`` plays them again; ``--hypothesis-seed``
draws the same steps once more. Threads and sockets are as random as ever: steps that fail may not
do so each time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from brokers import Broker, Server
from collected import DEADLINE, Collected, eventually
from commlib.action import GoalStatus
from commlib.exceptions import ConnectionLost, EndpointClosed, GoalLost, GoalTimeout, RPCTimeout
from commlib.node import Node
from faults.proxy import Proxy

MakeServer = Callable[..., Server]

CALL_SECONDS = 0.3
UNANSWERED = RPCTimeout, ConnectionLost
UNKNOWN = *UNANSWERED, GoalLost, GoalTimeout
"""How a goal may end of which nobody can tell what became of it."""
LAST = -1


class Schedule(RuleBasedStateMachine):
    """Two nodes behind a proxy: ``far`` publishes, calls and sends goals, ``base`` takes them."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.origins: list[list[int]] = []  # what was published in each life of ``far``
        self.got = Collected()
        self.asked, self.pursued = Collected(), Collected()
        self.pending: list[tuple[int, Future[Any]]] = []
        self.sent = 0

    @initialize()
    def begin(self) -> None:
        self.is_up = True
        self.proxy = Proxy(self.server.url)
        self.proxy.__enter__()
        url = Broker(self.proxy.url).with_options(connect_timeout=CALL_SECONDS)
        self.base = Node("base", connection_params=url, heartbeats=False)
        self.subscriber = self.base.create_subscriber("numbers", self.got)
        self.service = self.base.create_rpc("double", self._double)
        # A goal whose answer was lost may still be at work when the next one comes.
        self.turning = self.base.create_action("turn", on_goal=self._turn, concurrency=1000)
        self.far = Node("far", connection_params=url, heartbeats=False)
        self.publisher = self.far.create_publisher("numbers")
        self.client = self.far.create_rpc_client("double")
        self.action = self.far.create_action_client("turn")
        self.running: set[Node] = set()
        for node in (self.base, self.far):
            self._run(node)

    def _double(self, number: int) -> int:
        self.asked(number)
        return 2 * number

    def _turn(self, goal: Any) -> int:
        self.pursued(goal.data)
        return int(goal.data) + 1

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _run(self, node: Node) -> None:
        node.run()
        self.running.add(node)
        if node is self.far:
            self.origins.append([])

    def _publish(self) -> None:
        self.origins[-1].append(self._next())
        self.publisher.publish(self.number)
        self.sent += 1

    # ---- what is done ----

    far_runs = precondition(lambda self: self.far in self.running)

    @far_runs
    @rule(count=st.integers(1, 30))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self._publish()

    @far_runs
    @rule()
    def call(self) -> None:
        number = self._next()
        try:
            assert self.client.call(number, timeout=CALL_SECONDS) == 2 * number
        except UNANSWERED:
            return

    @far_runs
    @rule(count=st.integers(1, 30))
    def call_and_go_on(self, count: int) -> None:
        for _ in range(count):
            number = self._next()
            self.pending.append((number, self.client.call_async(number, timeout=CALL_SECONDS)))

    @far_runs
    @rule()
    def pursue(self) -> None:
        number = self._next()
        try:
            goal = self.action.send_goal(number, timeout=CALL_SECONDS)
            assert goal.result(CALL_SECONDS) == number + 1
        except UNKNOWN:
            return
        assert goal.status == GoalStatus.SUCCEEDED

    # ---- what happens ----

    @rule()
    def time_passes(self) -> None:
        threading.Event().wait(0.05)

    @rule()
    def cut(self) -> None:
        self.proxy.cut()

    @precondition(lambda self: self.is_up)
    @rule()
    def kill(self) -> None:
        self.server.kill()
        self.is_up = False

    @precondition(lambda self: not self.is_up)
    @rule()
    def restart(self) -> None:
        self.server.start()
        self.is_up = True

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from([n for n in (self.base, self.far) if n in self.running]))
        node.stop()
        self.running.discard(node)
        if node is self.far:
            self._settle_calls(0.0)

    @precondition(lambda self: len(self.running) < 2)
    @rule()
    def run(self) -> None:
        for node in (self.base, self.far):
            if node not in self.running:
                self._run(node)

    @precondition(lambda self: self.is_up and len(self.running) == 2)
    @rule()
    def all_is_well(self) -> None:
        """Without a new start of anything, all that was broken works again."""
        eventually(self._answers)
        eventually(self._arrives)
        eventually(self._pursues)

    def _answers(self) -> bool:
        number = self._next()
        try:
            return bool(self.client.call(number, timeout=1) == 2 * number)
        except UNANSWERED:
            return False

    def _arrives(self) -> bool:
        self._publish()
        return self.number - 1 in self.got.items[-30:] or self.number in self.got.items[-30:]

    def _pursues(self) -> bool:
        number = self._next()
        try:
            return bool(self.action.send_goal(number, timeout=1).result(1) == number + 1)
        except UNKNOWN:
            return False

    # ---- what holds ----

    @invariant()
    def nothing_came_twice_or_too_early(self) -> None:
        items = list(self.got.items)
        assert items == sorted(set(items)), "each of them once, in order"
        for handled in (self.asked, self.pursued):
            twice = [number for number, count in Counter(handled.items).items() if count > 1]
            assert twice == []

    def _settle_calls(self, seconds: float) -> None:
        pending, self.pending = self.pending, []
        for number, future in pending:
            try:
                assert future.result(seconds + DEADLINE) == 2 * number
            except (*UNANSWERED, EndpointClosed):
                continue

    def _holes(self) -> int:
        """What is missing between the first and the last that came of each life of ``far``."""
        came = set(self.got.items)
        holes = 0
        for numbers in self.origins:
            there = [number in came for number in numbers]
            if any(there):
                within = there[there.index(True) : len(there) - there[::-1].index(True)]
                holes += within.count(False)
        return holes

    def teardown(self) -> None:
        if not hasattr(self, "proxy"):
            return
        try:
            if not self.is_up:
                self.restart()
            self.run()
            self.all_is_well()
            self._settle_calls(CALL_SECONDS)
            self.nothing_came_twice_or_too_early()
            stats = self.publisher.stats
            assert stats.sent == self.sent
            eventually(lambda: self.subscriber.stats.received == len(self.got.items))
            stats = self.subscriber.stats
            assert (stats.duplicates, stats.reordered, stats.refused, stats.errors) == (0, 0, 0, 0)
            assert stats.gaps == self._holes()
            assert self.service.stats.errors == self.turning.stats.errors == 0
            eventually(lambda: not self.turning.core._active, lambda: self.turning.core._active)
        finally:
            self.far.stop()
            self.base.stop()
            self.proxy.__exit__()


# What it forbids in strategies, a session does meanwhile in its own thread, for the jitter.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.restarts
@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        pytest.param(4, 12, id="short"),
        pytest.param(60, 30, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)]),
    ],
)
def test_in_whatever_order_things_happen_all_works_and_adds_up(
    make_server: MakeServer, examples: int, steps: int
) -> None:
    class Here(Schedule):
        server = make_server()

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            database=None,
            # To shrink what happens in real time takes hours, and says little.
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
