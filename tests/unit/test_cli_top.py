"""`commlib top`: what it counts, how it is sorted, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from click.testing import CliRunner, Result

from announced import announced, answering_at_once
from brokers import Broker, RedisServer
from collected import DEADLINE
from commands import in_time, run
from commlib._discovery import EndpointInfo, Kind, NodeInfo
from commlib._packet import PROPERTIES, Header, Packet, now_ms
from commlib._wire import pack
from commlib.cli import _rates
from commlib.cli._main import commlib
from commlib.cli._rates import ORDERS, OTHERS, Rate, Tallies, count_ports, with_silent
from commlib.cli._topic_ports import topics_of
from commlib.cli._traffic import age_of, header_of
from commlib.cli.top import COLUMNS, columns_in
from commlib.node import Node
from commlib.transports import resolve
from commlib.transports.base import Traits
from raw_peer import RawPeer
from talking import talking

COMMAND = "from commlib.cli import main; main()"
LONGEST = 30.0
SOON = ("--interval", "0.1")


@pytest.fixture(autouse=True)
def _answers_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering_at_once(monkeypatch)
    monkeypatch.setattr("commlib.cli.top.NODES_SECONDS", 0.1)


@pytest.fixture
def url() -> str:
    """A broker in this process that no other test has."""
    return Broker.named("memory", lambda name: None).url


@pytest.fixture
def peer(url: str) -> Iterator[RawPeer]:
    """A peer with headers of its own."""
    with closing(RawPeer(url)) as peer:
        yield peer


def looks(url: str, *words: str) -> list[dict[str, Any]]:
    """What `commlib top --json` prints, a look each."""
    result = CliRunner().invoke(
        commlib, ["top", "--json", "--url", url, *words], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def look_in_time(url: str, wanted: str, *words: str) -> dict[str, Any]:
    """One look, long enough to see what the expression ``wanted`` matches."""

    def measure(seconds: str) -> Result:
        return run(url, "top", "--json", "--once", "--interval", seconds, *words)

    result = in_time(measure, wanted)
    assert result.exit_code == 0, result.output
    look: dict[str, Any] = json.loads(result.stdout)
    return look


def with_latency(topic: str) -> str:
    """Matches a look that tells how old a message on this topic was."""
    return rf'"topic":"{re.escape(topic)}"[^}}]*"latency":(?!null)'


def topics(look: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The topics of a look by name."""
    return {each["topic"]: each for each in look["topics"]}


def node(*ports: tuple[Kind, str]) -> NodeInfo:
    """What a node tells that has these ports."""
    return NodeInfo(name="n", id="1", endpoints=tuple(EndpointInfo(*port) for port in ports))


# ---- what is counted ----


def test_rates_are_those_of_the_seconds_that_have_passed() -> None:
    tallies = Tallies()
    for _ in range(10):
        tallies.note("t", 50, 0, None)
    (rate,) = tallies.take(2.0)
    assert (rate.topic, rate.rate, rate.bytes_rate) == ("t", 5.0, 250.0)
    (rate,) = tallies.take(2.0)
    assert (rate.rate, rate.bytes_rate) == (0.0, 0.0)


def test_latency_is_that_of_messages_that_tell_when_they_were_sent() -> None:
    tallies = Tallies()
    for age in (10, None, 30):
        tallies.note("t", 1, 0, age)
    (rate,) = tallies.take(1.0)
    assert (rate.latency, rate.latency_max) == (20.0, 30.0)
    tallies.note("t", 1, 0, None)
    (rate,) = tallies.take(1.0)
    assert (rate.latency, rate.latency_max) == (None, None)


def test_losses_add_up_and_what_was_only_late_is_taken_back() -> None:
    tallies = Tallies()
    tallies.note("t", 1, 5, None)
    tallies.take(1.0)
    tallies.note("t", 1, -1, None)
    assert tallies.take(1.0)[0].lost == 4


def test_topics_beyond_the_limit_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rates, "MAX_TOPICS", 2)
    tallies = Tallies()
    for topic in ("a", "b", "c", "d", "a"):
        tallies.note(topic, 1, 0, None)
    assert {each.topic: each.rate for each in tallies.take(1.0)} == {"a": 2, "b": 1, OTHERS: 2}


def test_quiet_topics_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rates, "MAX_TOPICS", 2)
    tallies = Tallies()
    for topic in ("a", "b", "c"):
        tallies.note(topic, 1, 0, None)
    tallies.take(1.0)
    tallies.note("a", 1, 0, None)
    tallies.take(1.0)
    tallies.note("d", 1, 0, None)
    assert {each.topic: each.rate for each in tallies.take(1.0)} == {"a": 0, "d": 1}


def traits_of(broker: str) -> Traits:
    return resolve(f"{broker}://x").make_transport().traits


@pytest.mark.parametrize("broker", ["redis", "mqtt", "amqp", "memory"])
def test_topics_of_nodes_are_there_though_nothing_is_said(broker: str) -> None:
    traits = traits_of(broker)
    nodes = [node(("publisher", "quiet"), ("subscriber", "a.*"), ("service", "s"))]
    found = with_silent([Rate("loud")], topics_of(nodes, None, traits), traits)
    assert [each.topic for each in found] == ["loud", "quiet"]


@pytest.mark.parametrize("broker", ["redis", "mqtt", "amqp", "memory"])
def test_ports_are_counted_with_the_patterns_that_take_a_topic(broker: str) -> None:
    traits, rates = traits_of(broker), [Rate("a.b"), Rate("c")]
    ports: list[tuple[Kind, str]] = [
        ("publisher", "a.b"),
        ("subscriber", "a.*"),
        ("subscriber", "*"),
    ]
    count_ports(rates, topics_of([node(*ports)], None, traits), traits)
    assert [(each.publishers, each.subscribers) for each in rates] == [(1, 2), (0, 1)]


def test_a_name_that_is_spelled_in_two_ways_is_one_topic_on_mqtt() -> None:
    traits, nodes = traits_of("mqtt"), [node(("publisher", "a/b"), ("subscriber", "a/+"))]
    topics = topics_of(nodes, None, traits)
    (rate,) = with_silent([Rate("a.b", rate=5)], topics, traits)
    count_ports([rate], topics, traits)
    assert (rate.topic, rate.rate, rate.publishers, rate.subscribers) == ("a.b", 5, 1, 1)


@pytest.mark.parametrize(
    ("order", "names"),
    [("rate", "bac"), ("bytes", "cba"), ("latency", "abc"), ("lost", "acb"), ("topic", "abc")],
)
def test_what_there_is_most_of_comes_first(order: str, names: str) -> None:
    rates = [Rate("a", 1, 1, 9, lost=2), Rate("c", 1, 3, lost=1), Rate("b", 2, 2, lost=0)]
    assert "".join(each.topic for each in sorted(rates, key=ORDERS[order])) == names


# ---- what is heard ----


def test_the_header_is_read_in_each_form() -> None:
    header = Header(5, PROPERTIES, origin="o", seq=3)
    wrapped, native = pack({"a": 1}, header, False), pack({"a": 1}, header, True)
    small = Packet(zlib.compress(wrapped.payload))
    for packet in (wrapped, native, small):
        found = header_of(packet)
        assert found is not None
        assert (found.origin, found.seq, found.timestamp) == ("o", 3, 5)


@pytest.mark.parametrize("payload", [b"", b"21.5", b'{"a": 1}', b"\xff\x00", b"x\x9c\x00", b"[[["])
def test_what_has_no_header_has_none(payload: bytes) -> None:
    assert header_of(Packet(payload)) is None


def test_an_age_is_told_only_where_it_can_be() -> None:
    now = now_ms()
    age = age_of(Header(now - 5000))
    assert age is not None
    assert 5000 <= age < 5000 + LONGEST * 1000
    assert age_of(None) is None
    assert age_of(Header()) is None
    assert age_of(Header(now // 1000)) is None  # a peer that counts in s
    assert age_of(Header(now * 1000)) is None  # or in µs
    assert age_of(Header(now - 5000), since=now) is None  # the broker had kept it


# ---- the command ----


def test_messages_are_counted_with_their_latency_and_losses(url: str, peer: RawPeer) -> None:
    def say(number: int) -> None:
        peer.publish_message("sonar", {}, Header(now_ms(), PROPERTIES, origin="a", seq=2 * number))

    with talking(say):
        look = look_in_time(url, with_latency("sonar"))
    sonar = topics(look)["sonar"]
    assert sonar["rate"] > 0
    assert sonar["bytes_rate"] == pytest.approx(2 * sonar["rate"], rel=0.01)
    assert sonar["lost"] == pytest.approx(sonar["rate"] * look["seconds"] - 1, abs=0.01)
    assert 0 <= sonar["latency"] <= sonar["latency_max"]


def test_ports_of_nodes_are_shown_beside_their_topics(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commlib.cli.top.NODES_SECONDS", DEADLINE)  # until the first answer
    robot = Node("robot", connection_params=url, heartbeats=False)
    robot.create_publisher("sonar.front")
    robot.create_psubscriber("sonar.*", lambda msg, topic: None)
    with announced(url, robot):
        (look,) = looks(url, "--once", *SOON)
    found = topics(look)["sonar.front"]
    assert (found["publishers"], found["subscribers"], found["rate"]) == (1, 1, 0.0)


def test_without_a_terminal_it_looks_once(url: str) -> None:
    assert len(looks(url, *SOON)) == 1


def test_it_looks_again_and_again_for_as_long_as_it_is_told(url: str) -> None:
    found = looks(url, "--interval", "0.1", "--duration", "0.35")
    assert 1 <= len(found) <= 4  # as many as a busy machine gets done
    assert sum(look["seconds"] for look in found) >= 0.34


def test_its_own_topics_are_shown_when_asked_for(url: str, peer: RawPeer) -> None:
    with talking(lambda number: peer.publish(f"rpc-ab/{number}", b"{}")):
        (hidden,) = looks(url, "--once", *SOON)
        shown = look_in_time(url, r'"topic":"\(replies\)"', "--all")
    assert topics(hidden) == {}
    assert list(topics(shown)) == ["(replies)"]


def test_the_table_has_a_line_for_each_topic_up_to_the_limit(url: str, peer: RawPeer) -> None:
    def say(number: int) -> None:
        for topic in ("a", "b", "c"):
            peer.publish(topic, b"{}")

    with talking(say):
        words = ("top", "--sort", "topic", "--limit", "2", "--interval")
        result = in_time(lambda s: run(url, *words, s), "^a .*\nb ")
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["TOPIC", "MSG/S", "BYTES/S", "LATENCY", "WORST", "LOST", "PUBS", "SUBS"]
    assert [line.split()[0] for line in lines] == ["a", "b"]


def test_where_nothing_is_said_it_says_so(url: str) -> None:
    result = CliRunner().invoke(commlib, ["top", "--url", url, *SOON])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("nothing was published")


@pytest.mark.parametrize("broker", ["redis", "mqtt", "amqp"], indirect=True)
def test_rates_are_counted_on_every_broker(broker: Broker, topic: str) -> None:
    with closing(RawPeer(broker.url)) as peer:
        with talking(lambda number: peer.publish_message(topic, {}, Header(now_ms(), PROPERTIES))):
            look = look_in_time(broker.url, with_latency(topic))
    assert topics(look)[topic]["rate"] > 0
    assert topics(look)[topic]["latency"] is not None


# ---- on a terminal ----


@pytest.fixture
def start(redis_server: RedisServer) -> Iterator[Callable[[], tuple[subprocess.Popen[bytes], int]]]:
    """Starts it on a terminal; gives the process and the terminal's other end."""
    started: list[tuple[subprocess.Popen[bytes], int]] = []

    def start() -> tuple[subprocess.Popen[bytes], int]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "top", "--interval", "0.1", "--url", redis_server.url],
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "20"},
        )
        os.close(theirs)
        started.append((process, ours))
        return process, ours

    yield start
    for process, ours in started:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, text: bytes) -> bytes:
    """What is on the terminal, as soon as this is."""
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 65536)
    return seen


def drain(terminal: int) -> bytes:
    """All that comes until the program has gone."""
    seen = b""
    try:
        while more := os.read(terminal, 65536):
            seen += more
    except OSError:  # Linux's word for it
        pass
    return seen


@pytest.mark.parametrize(("width", "columns"), [(120, 8), (80, 8), (40, 3), (10, 2)])
def test_on_a_narrow_terminal_the_last_columns_go_first(width: int, columns: int) -> None:
    assert columns_in(width) == COLUMNS[:columns]


@pytest.mark.parametrize("how", ["q", "Ctrl-C"])
def test_on_a_terminal_it_goes_on_until_it_is_told_to_end(
    start: Callable[[], tuple[subprocess.Popen[bytes], int]], how: str
) -> None:
    process, terminal = start()
    read_until(terminal, b"q ends it")
    read_until(terminal, b"q ends it")  # and it is drawn again
    if how == "q":
        os.write(terminal, b"xq")
    else:
        process.send_signal(signal.SIGINT)
    rest = drain(terminal)
    assert process.wait(LONGEST) == 0
    assert b"\x1b[?1049l" in rest  # the screen is what it was
    assert b"Traceback" not in rest
