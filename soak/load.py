"""The load: two nodes of ours, publishing, calling and pursuing goals without a pause."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from commlib.exceptions import CommlibError, ConnectionLost, RPCTimeout, ServiceNotFound
from commlib.node import Node
from commlib.transports import resolve
from soak.complaints import Complaints
from soak.messages import Climb, Double, Tick
from soak.streams import Listening, Stream
from soak.tally import Once

RATE, ASSURED_RATE = 1000, 100  # messages a second, at QoS 0 and 1
TICK = 0.01  # s between bursts of them
CALLERS = 4
CALL_PAUSE = 0.02
CALL_TIMEOUT = 2.0
GOAL_PAUSE = 0.1
GOAL_TIMEOUT = 120.0
STEPS = 3
RESULT_TTL = 20.0  # s; more than a fault lasts, and not so much that there are very many
FINISH_SECONDS = 60.0


class Load:
    """Two nodes, each with a link of its own: one publishes, calls and sends goals to the other."""

    def __init__(self, base_url: str, far_url: str, complaints: Complaints) -> None:
        self._url = far_url
        self._complaints = complaints
        self._done = threading.Event()
        self.calls: Counter[str] = Counter()
        self.goals: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._call_ok = self._goal_ok = 0.0
        """When the youngest call, the youngest goal that has succeeded had begun."""
        self._calm_since: float | None = None
        self._gaps_before = 0
        self._handled, self._worked_on, self._told = Once(), Once(), Once()
        self._reports = self._visits = 0

        self.base = Node("base", connection_params=base_url)
        self.far = Node("far", connection_params=far_url)
        self.exact, pattern = Listening(complaints), Listening(complaints)
        self.exact.subscriber = self.base.create_subscriber("soak.ticks", self.exact.take, Tick)
        pattern.subscriber = self.base.create_psubscriber("soak.*", pattern.take_with_topic, Tick)
        ticks = self.far.create_publisher("soak.ticks", Tick)
        self.streams = [Stream(ticks, RATE, [self.exact, pattern])]
        if 1 in resolve(far_url).make_transport().traits.delivery_levels:
            self.streams.append(self._assured())
        self.service = self.base.create_rpc("soak-double", self._double, Double)
        self.action = self.base.create_action(
            "soak-climb", Climb, self._climb, result_ttl=RESULT_TTL
        )
        self.client = self.far.create_rpc_client("soak-double", Double)
        self.climber = self.far.create_action_client("soak-climb", Climb, on_result=self._reached)
        self._threads = [
            threading.Thread(target=target, args=args, name=target.__name__, daemon=True)
            for target, args in (
                (self._publish_for_ever, ()),
                (self._pursue_for_ever, ()),
                *((self._call_for_ever, (n,)) for n in range(CALLERS)),
            )
        ]

    def _assured(self) -> Stream:
        """Messages at QoS 1: they may come twice."""
        listening = Listening(self._complaints)
        listening.subscriber = self.base.create_subscriber("assured.ticks", listening.take, Tick)
        publisher = self.far.create_publisher("assured.ticks", Tick, qos=1)
        return Stream(publisher, ASSURED_RATE, [listening])

    def begin(self) -> None:
        """Start the nodes, and the load as soon as the first message has come."""
        self.base.run()
        self.far.run()
        for stream in self.streams:
            stream.publish()  # gaps are counted from the first one on
            self._require("the first message", lambda stream=stream: stream.last >= 0)
        for thread in self._threads:
            thread.start()

    # ---- what the other node does ----

    def _double(self, request: Double.Request) -> Double.Response:
        with self._counting:
            self._handled.note(request.number)
        return Double.Response(number=request.number, double=2 * request.number)

    def _climb(self, goal: Any) -> Climb.Result:
        number = goal.data.number
        self._worked_on.note(number)
        for step in range(STEPS):
            goal.cancel_event.wait(0.01)
            goal.send_feedback(Climb.Feedback(number=number, step=step))
        return Climb.Result(number=number)

    # ---- the load ----

    def _publish_for_ever(self) -> None:
        while not self._done.wait(TICK):
            for stream in self.streams:
                stream.publish_what_is_due()

    def _call_for_ever(self, number: int) -> None:
        while not self._done.wait(CALL_PAUSE):
            number += CALLERS
            begun = time.monotonic()
            outcome = self._call(self.client, number)
            with self._counting:
                self.calls[outcome] += 1
                if outcome == "ok":
                    self._call_ok = max(self._call_ok, begun)
            self._demand("call", outcome, begun)

    def _call(self, client: Any, number: int) -> str:
        """How a call has ended, in a word or two."""
        try:
            answer = client.call(Double.Request(number=number), timeout=CALL_TIMEOUT)
        except ServiceNotFound:
            return "not found"
        except RPCTimeout:
            return "timed out"
        except ConnectionLost:
            return "connection lost"
        except CommlibError as exc:
            return _name_of(exc)
        except Exception as exc:
            self._complaints.note("call", repr(exc))
            return _name_of(exc)
        if (answer.number, answer.double) != (number, 2 * number):
            self._complaints.note("wrong reply", f"{answer} to {number}")
            return "wrong"
        return "ok"

    def _pursue_for_ever(self) -> None:
        number = 0
        while not self._done.wait(GOAL_PAUSE):
            number += 1
            begun = time.monotonic()
            outcome = self._pursue(number)
            self.goals[outcome] += 1
            if outcome == "succeeded":
                self._goal_ok = begun
            self._demand("goal", outcome, begun)

    def _pursue(self, number: int) -> str:
        """How a goal has ended, in a word or two."""
        try:
            goal = self.climber.send_goal(Climb.Goal(number=number), timeout=CALL_TIMEOUT)
            last = -1
            for feedback in goal.feedback:
                if feedback.number != number or feedback.step <= last:
                    self._complaints.note("wrong feedback", f"{feedback} after {last} of {number}")
                last = feedback.step
            result = goal.result(GOAL_TIMEOUT)
        except CommlibError as exc:
            return _name_of(exc)
        except Exception as exc:
            self._complaints.note("goal", repr(exc))
            return _name_of(exc)
        if result.number != number:
            self._complaints.note("wrong result", f"{result} of {number}")
        return "succeeded"

    def _reached(self, result: Any) -> None:
        if result is not None:
            self._reports += 1
            self._told.note(result.number)

    def _demand(self, what: str, outcome: str, begun: float) -> None:
        """While all is calm, from begin to end, everything has to succeed."""
        since = self._calm_since
        if since is not None and begun > since and outcome not in ("ok", "succeeded"):
            took = time.monotonic() - begun
            self._complaints.note(
                f"a {what} failed in a calm time", f"{outcome} after {took:.2f} s"
            )

    def _require(self, what: str, holds: Callable[[], bool]) -> None:
        if not eventually(holds, FINISH_SECONDS):
            self._complaints.note("missing", f"{what} did not come in {FINISH_SECONDS:g} s")


def eventually(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether it holds within so many seconds; nobody tells when, so this is a series of looks."""
    deadline = time.monotonic() + seconds
    look = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            return False
        look.wait(0.005)
    return True


def _name_of(exc: Exception) -> str:
    remote = getattr(exc, "type", "")
    return f"{type(exc).__name__} {remote}".rstrip()
