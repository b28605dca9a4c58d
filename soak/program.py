"""The program under load, in a process of its own, with orders on standard input.

    python -m soak.program BASE_URL FAR_URL

Each order is a line: ``fault``, ``stop PART``, ``run PART``, ``check``, ``look``, ``finish`` or
``leave``. Each is answered by a line of JSON. When the input ends, so does the process: nothing is
left of a run that was killed.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any

from commlib.node import Node
from soak.complaints import Complaints, Heard
from soak.load import FINISH_SECONDS, Load, eventually
from soak.messages import Double
from soak.streams import Stream

RECOVERY_SECONDS = 60.0
"""Within which all must work after a fault. The slowest is a goal whose service is gone: its client
gives it up after 10 s of silence, and on a busy machine everything takes longer."""


class Program(Load):
    """The load, and what it is told to do."""

    def fault(self) -> dict[str, Any]:
        """A fault is coming."""
        self._calm_since = None
        if lost := self._gaps() - self._gaps_before:
            self._complaints.note("messages lost in a calm time", lost)
        return {}

    def stop(self, part: str) -> dict[str, Any]:
        """Stop a part of this."""
        self._part(part).stop()
        return {}

    def run(self, part: str) -> dict[str, Any]:
        """Run it again."""
        self._part(part).run()
        return {}

    def _part(self, part: str) -> Any:
        return self.exact.subscriber if part == "subscriber" else getattr(self, _PARTS[part])

    def check(self) -> dict[str, Any]:
        """Return when all works again: in seconds, by pattern. Calm begins then."""
        begun = time.monotonic()
        # Not the one that is just being published.
        marks = [stream.sent + 1 for stream in self.streams]
        signs: dict[str, Callable[[], bool]] = {
            "PubSub": lambda: self._have_come(marks),
            "RPC": lambda: self._call_ok >= begun,
            "actions": lambda: self._goal_ok >= begun,
        }
        took: dict[str, float] = {}

        def all_seen() -> bool:
            for name, sign in signs.items():
                if name not in took and sign():
                    took[name] = round(time.monotonic() - begun, 3)
            return len(took) == len(signs)

        if not eventually(all_seen, RECOVERY_SECONDS):
            missing = ", ".join(signs.keys() - took.keys())
            return {"failure": f"{missing}: not working after {RECOVERY_SECONDS:g} s"}
        if failure := self._visit():
            return {"failure": failure}
        self._gaps_before = self._gaps()
        self._calm_since = time.monotonic()
        return {"took": took}

    def _have_come(self, marks: list[int]) -> bool:
        return all(each.last >= mark for each, mark in zip(self.streams, marks, strict=True))

    def _gaps(self) -> int:
        return sum(stream.gaps for stream in self.streams)

    def _visit(self) -> str:
        """A node that comes, publishes, hears, calls and goes; what did not work, if anything."""
        self._visits += 1
        came = threading.Event()
        # Not another name each time: each has a logger, for ever.
        with Node("visitor", connection_params=self._url) as node:
            node.create_subscriber("visitors", lambda msg: came.set())
            node.create_publisher("visitors").publish(self._visits)
            # Numbers of its own, and the same one never twice.
            outcome = self._call(node.create_rpc_client("soak-double", Double), -self._visits)
            if outcome != "ok":
                return f"the call of a new node: {outcome}"
            if not came.wait(RECOVERY_SECONDS):
                return "the message of a new node did not come"
        return ""

    def look(self) -> dict[str, Any]:
        """How many objects there are."""
        gc.collect()
        return {"objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks()}

    def finish(self) -> dict[str, Any]:
        """End the load, and tell what came of it."""
        self._done.set()
        deadline = time.monotonic() + FINISH_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._complaints.note("hangs", thread.name)
        for stream in self.streams:
            self._settle(stream)
        self._require("the report of each goal", lambda: self._reports == self.goals["succeeded"])
        for once, what in (
            (self._handled, "requests were handled"),
            (self._worked_on, "goals were worked on"),
            (self._told, "goals were reported"),
        ):
            if once.twice:
                self._complaints.note("twice", f"{once.twice} {what} twice")
        return self._outcome()

    def _settle(self, stream: Stream) -> None:
        """Publish until one has come, and compare the accounts."""
        before = stream.sent

        def ends() -> bool:
            stream.publish()
            threading.Event().wait(0.1)  # for it to arrive
            return stream.last >= before

        self._require("the last message", ends)
        may_repeat = stream is not self.streams[0]
        for listening in stream.listening:
            subscriber = listening.subscriber
            stats, name = subscriber.stats, subscriber.topic
            faults = listening.numbers.faults(name, stream.sent, stats.gaps, stream.sent - before)
            for kind, text in faults:
                if not (may_repeat and kind == "repeated"):
                    self._complaints.note(kind, text)

    def _outcome(self) -> dict[str, Any]:
        listening = {
            each.subscriber.topic: {
                "sent": stream.sent,
                "unsent": stream.unsent,
                "received": each.numbers.received,
                "lost": each.subscriber.stats.gaps,
                "duplicates": each.numbers.duplicates,
                "reordered": each.numbers.reordered,
            }
            for stream in self.streams
            for each in stream.listening
        }
        return {
            "listening": listening,
            "calls": self.calls,
            "goals": self.goals,
            "publisher": asdict(self.streams[0].publisher.stats),
            "subscriber": asdict(self.exact.subscriber.stats),
            "client": asdict(self.client.stats),
            "service": asdict(self.service.stats),
        }

    def leave(self) -> dict[str, Any]:
        """Stop the nodes."""
        begun = time.monotonic()
        self.far.stop()
        self.base.stop()
        return {"seconds": round(time.monotonic() - begun, 2)}


_PARTS = {"service": "service", "action": "action", "node": "base"}


def main() -> None:
    """Obey until told to leave."""
    complaints = Complaints()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger().addHandler(Heard(complaints))
    logging.captureWarnings(True)
    warnings.simplefilter("always", ResourceWarning)
    threading.excepthook = lambda args: complaints.note("a thread ended", repr(args.exc_value))
    faulthandler.register(signal.SIGUSR1)
    program = Program(*sys.argv[1:], complaints)
    program.begin()
    orders: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(orders,), name="orders", daemon=True).start()
    answer: dict[str, Any] = {}
    word = ""
    while word != "leave":
        answer["complaints"] = {"kinds": complaints.kinds, "first": complaints.first}
        print(json.dumps(answer), flush=True)
        word, *rest = orders.get().split()
        answer = getattr(program, word)(*rest)
    print(json.dumps(answer), flush=True)


def _read(orders: SimpleQueue[str]) -> None:
    # Not sys.stdin, on whose lock the interpreter would wait when it ends.
    with open(0, "rb", buffering=0) as lines:
        for line in lines:
            orders.put(line.decode())
    os._exit(1)  # whoever gives the orders is gone


if __name__ == "__main__":
    main()
