"""Each fault on each kind of broker under load, measured: docs/reliability.md has the figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import pytest

from brokers import Broker, Server
from collected import Collected, eventually
from faults import reliability_page
from faults.pair import Pair
from faults.proxy import Proxy
from faults.reliability_page import Outcome, Outcomes

KEEPALIVE = 1
WORN_SECONDS = 3.0
"""How long a fault lasts that has no end of its own."""
RATE = 50_000
BROKERS = {"Redis": "make_redis", "MQTT": "make_mosquitto", "AMQP": "make_rabbitmq"}


class Scene(NamedTuple):
    """What a fault is done to."""

    server: Server
    proxy: Proxy
    pair: Pair

    def note_loss(self) -> None:
        """Return when both nodes know."""
        eventually(lambda: not (self.pair.base.connected or self.pair.far.connected))


Act = Callable[[Scene], float | None]
"""Does it and undoes it; returns how long it took the nodes to notice, if that is to be known."""


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def hold(
    scene: Scene, begin: Callable[[], object], end: Callable[[], object], seconds: float = 0.0
) -> float:
    """Begin and end a fault, ``seconds`` after both nodes know of it; when they knew, in s."""
    begun = time.monotonic()
    begin()
    scene.note_loss()
    seen = time.monotonic() - begun
    wait(seconds)
    end()
    return seen


def restart(scene: Scene, seconds: float) -> float:
    return hold(scene, scene.server.kill, scene.server.start, seconds)


def freeze(scene: Scene) -> float:
    return hold(scene, scene.server.freeze, scene.server.thaw)


def cut(scene: Scene) -> None:
    scene.proxy.cut()


def half_open(scene: Scene) -> float:
    return hold(scene, scene.proxy.half_open, scene.proxy.resume)


def stall(scene: Scene) -> None:
    scene.proxy.stall()
    wait(KEEPALIVE / 2)
    scene.proxy.resume()


def break_off(scene: Scene) -> None:
    scene.proxy.longest = 10_000
    scene.proxy.cut()
    wait(WORN_SECONDS)
    scene.proxy.longest = 0
    scene.proxy.cut()


def refuse(scene: Scene) -> float:
    def begin() -> None:
        scene.proxy.refuses = True
        scene.proxy.cut()

    def end() -> None:
        scene.proxy.refuses = False

    return hold(scene, begin, end, WORN_SECONDS)


def wear(scene: Scene) -> None:
    wait(WORN_SECONDS)


def send_image(scene: Scene) -> None:
    images = Collected()
    scene.pair.base.create_subscriber("image", images, bytes)
    scene.pair.far.create_publisher("image", bytes).publish(bytes(250_000))
    assert images.wait(1) == [bytes(250_000)]


@dataclass(frozen=True)
class Fault:
    """What is done, under which load and on which link; ``wait`` is the time-out of a call."""

    name: str
    text: str
    act: Act
    pause: float = 0.001
    wait: float = 0.5
    link: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


RESTARTS = [
    Fault(
        f"restart-{seconds}s",
        f"broker killed, started again empty after {seconds} s",
        partial(restart, seconds=seconds),
    )
    for seconds in (1, 10, 60)
]
FAULTS = [
    *RESTARTS,
    Fault("freeze", "broker stopped (`SIGSTOP`) until noticed", freeze),
    Fault("cut", "link cut", cut),
    Fault("stall", f"link silent for {KEEPALIVE / 2} s", stall),
    Fault("half-open", "link half-open until noticed", half_open),
    Fault("break-off", f"links cut after 1 to 10 000 bytes, for {WORN_SECONDS:g} s", break_off),
    Fault("refuse", f"connections refused for {WORN_SECONDS:g} s", refuse),
    Fault("pieces", "bytes one by one", wear, pause=0.02, link={"piece": 1}),
    Fault("delay", "0.3 s of delay in each direction", wear, wait=10, link={"delay": 0.3}),
    Fault(
        "rate", "50 kB/s, while 250 kB pass", send_image, pause=0.02, wait=15, link={"rate": RATE}
    ),
]
CELLS = [(fault.text, broker) for fault in FAULTS for broker in BROKERS]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Outcomes]:
    """What this run has shown."""
    outcomes: Outcomes = {}
    yield outcomes
    reliability_page.settle(outcomes, CELLS)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_what_a_fault_loses_is_counted_and_all_works_again(
    request: pytest.FixtureRequest, outcomes: Outcomes, fault: Fault, broker: str
) -> None:
    server: Server = request.getfixturevalue(BROKERS[broker])()
    with Proxy(server.url, **fault.link) as proxy:  # type: ignore[arg-type]
        url = Broker(proxy.url).with_options(keepalive=KEEPALIVE)
        with Pair(url, pause=fault.pause, timeout=fault.wait) as pair:
            with pair.busy():
                pair.works_again()
                seen = fault.act(Scene(server, proxy, pair))
                over = time.monotonic()
                pair.works_again()
                again = time.monotonic() - over
            pair.check()
            stats = pair.publisher.stats
            outcomes[fault.text, broker] = Outcome(
                published=pair.sent,
                lost=pair.lost,
                gaps=pair.subscriber.stats.gaps,
                discarded=stats.discarded,
                unconfirmed=stats.unconfirmed,
                twice=pair.duplicated,
                wrong=len(pair.wrong),
                calls=pair.answered + pair.unanswered,
                unanswered=pair.unanswered,
                noticed=seen,
                again=again,
            )


# ---- the page ----


def test_every_test_that_the_page_names_exists() -> None:
    assert reliability_page.missing_tests() == []


def test_the_page_tells_of_each_fault_on_each_broker_and_of_nothing_that_must_not_be() -> None:
    rows = reliability_page.rows()
    told = [(row["fault"], row["broker"]) for row in rows]
    assert told == CELLS
    for row in rows:
        assert row["lost"] == row["`gaps`"]
        assert row["twice"] == row["wrong"] == "0"
