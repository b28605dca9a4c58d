"""Sessions that an MQTT broker keeps: their names, their time, and who fights for them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from brokers import MosquittoServer, PlainPeer
from collected import DEADLINE, Collected, eventually, met
from commlib import _session
from commlib.aio import Node, Subscriber
from commlib.node import Node as SyncNode
from commlib.transports import _mqtt_lasting
from commlib.transports._mqtt_rivals import SHORT_LIVES
from commlib.transports.mqtt import ConnectionParameters, Offline
from faults.proxy import Proxy
from mqtt.fake_broker import FakeBroker

VERSIONS = pytest.mark.parametrize("protocol", ["MQTTv5", "MQTTv311"])
MakeMosquitto = Callable[..., MosquittoServer]


@pytest.fixture
def topic() -> str:
    return f"absence_{os.urandom(4).hex()}"


def robot(server: MosquittoServer, protocol: str = "MQTTv5", **options: Any) -> str:
    """The URL of a robot for which the broker keeps what it misses."""
    known = {"client_id": f"robot-{server.port}", "session_expiry": 60, **options}
    return server.url_with(protocol=protocol, **known)


def subscribed(url: str, topics: Iterable[str]) -> tuple[SyncNode, dict[str, Collected]]:
    """A node that does not run yet, and what its subscribers get."""
    node = SyncNode("robot", connection_params=url)
    got = {topic: Collected() for topic in topics}
    for topic, collected in got.items():
        node.create_subscriber(topic, collected)
    return node, got


def lasting(server: MosquittoServer) -> set[str]:
    """The client ids that sessions to be kept have had so far."""
    return set(re.findall(r" as (\S+) \(p\d, c0", server.log))


# ---- names ----


def test_one_session_is_kept_beside_a_clean_one_of_the_name_that_was_given(
    make_mosquitto: MakeMosquitto,
) -> None:
    server = make_mosquitto(config=["log_type all"])
    node, _ = subscribed(robot(server, client_id="r2d2"), ["a", "a.*", "*.b"])
    with node:
        eventually(lambda: lasting(server) == {"r2d2-lasting"})
        assert " as r2d2 (p5, c1" in server.log


def test_on_mqtt_3_1_1_names_share_a_session_and_each_pattern_has_one(
    make_mosquitto: MakeMosquitto,
) -> None:
    server = make_mosquitto(config=["log_type all"])
    node, _ = subscribed(robot(server, "MQTTv311", client_id="r2d2"), ["a", "b", "a.*", "*.b"])
    with node:
        names = {"names", "062f311a", "7af9480a"}
        eventually(lambda: lasting(server) == {f"r2d2-lasting-{name}" for name in names})
        assert " as r2d2 (p2, c1" in server.log


@VERSIONS
def test_where_nothing_is_subscribed_there_is_one_connection(
    make_mosquitto: MakeMosquitto, protocol: str
) -> None:
    server = make_mosquitto(config=["log_type all"])
    with SyncNode("robot", connection_params=robot(server, protocol)) as node:
        node.create_rpc("echo", lambda request: request)
        assert node.create_rpc_client("echo").call(1, timeout=5) == 1
    assert lasting(server) == set()


# ---- what is kept ----


@VERSIONS
def test_a_broker_that_writes_to_disk_keeps_it_over_its_own_restart(
    make_mosquitto: MakeMosquitto, tmp_path: Path, protocol: str
) -> None:
    server = make_mosquitto(config=["persistence true", f"persistence_location {tmp_path}/"])
    topics = ["a.b", "a.*", "*.b"]
    node, _ = subscribed(robot(server, protocol), topics)
    with node:
        pass
    with SyncNode("office", connection_params=server.url) as office:
        office.create_publisher("a.b", qos=1).publish("away")
    server.stop()
    server.start()
    node, got = subscribed(robot(server, protocol), topics)
    with node, SyncNode("office", connection_params=server.url) as office:
        office.create_publisher("a.b", qos=1).publish("live")
        for topic in topics:
            assert got[topic].until("live") == ["away"]


def test_a_broker_that_has_forgotten_what_was_to_be_kept_is_told_in_the_log(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_mosquitto()
    node, got = subscribed(robot(server), ["a"])
    with node:
        server.kill()
        eventually(lambda: not node.connected)
        server.start()
        with SyncNode("office", connection_params=server.url) as office:
            publisher = office.create_publisher("a", qos=1)
            eventually(lambda: node.health)
            publisher.publish("live")
            assert got["a"].first == "live"
    assert "has kept nothing" in caplog.text


@VERSIONS
def test_a_retained_message_that_was_missed_comes_once(
    mqtt_server: MosquittoServer, topic: str, protocol: str
) -> None:
    node, _ = subscribed(robot(mqtt_server, protocol), [topic])
    with node:
        pass
    with SyncNode("office", connection_params=mqtt_server.url) as office:
        office.create_publisher(topic, qos=1, retain=True).publish("kept and retained")
        node, got = subscribed(robot(mqtt_server, protocol), [topic])
        with node:
            office.create_publisher(topic, qos=1).publish("live")
            assert got[topic].until("live") == ["kept and retained"]


@VERSIONS
def test_what_an_earlier_version_has_subscribed_is_given_up(
    mqtt_server: MosquittoServer,
    topic: str,
    protocol: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_mqtt_lasting, "UNCLAIMED_SECONDS", 0.05)
    url = robot(mqtt_server, protocol)
    node, _ = subscribed(url, [f"{topic}.now", f"{topic}.before"])
    with node:
        pass
    with SyncNode("office", connection_params=mqtt_server.url) as office:
        before = office.create_publisher(f"{topic}.before", qos=1)
        before.publish("nobody wants it")
        node, got = subscribed(url, [f"{topic}.now"])
        subscriber = node.endpoints[-1]
        with node:
            eventually(lambda: subscriber.stats.discarded == 1)
        before.publish("it is not kept any more")
        office.create_publisher(f"{topic}.now", qos=1).publish("wanted")
    node, got = subscribed(url, [f"{topic}.now", f"{topic}.before"])
    with node:
        assert got[f"{topic}.now"].first == "wanted"
        with SyncNode("office", connection_params=mqtt_server.url) as office:
            office.create_publisher(f"{topic}.before", qos=1).publish("live")
            assert got[f"{topic}.before"].first == "live"
    assert f"subscribed to {topic}/before" in caplog.text


def test_what_nobody_wants_any_more_does_not_stand_in_the_way_of_the_others(
    make_mosquitto: MakeMosquitto, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mqtt_lasting, "UNCLAIMED_SECONDS", 0.05)
    server = make_mosquitto(config=["max_inflight_messages 20"])
    url = robot(server)
    node, _ = subscribed(url, [f"{topic}.now", f"{topic}.before"])
    with node:
        pass
    unwanted = 100  # of which 20 come without an acknowledgement
    with SyncNode("office", connection_params=server.url) as office:
        before = office.create_publisher(f"{topic}.before", qos=1)
        for number in range(unwanted):
            before.publish(number)
        office.create_publisher(f"{topic}.now", qos=1).publish("wanted")
    given_up = Collected()
    monkeypatch.setattr(_mqtt_lasting.LastingBoard, "_give_up", counted(given_up))
    node, got = subscribed(url, [f"{topic}.now"])
    subscriber = node.endpoints[-1]
    with node:
        assert got[f"{topic}.now"].first == "wanted"
        assert subscriber.stats.discarded == unwanted
    assert len(given_up.items) == 1, "the rest was waited for no more"


def counted(calls: Collected) -> Callable[[_mqtt_lasting.LastingBoard], None]:
    """Gives up what is unclaimed, and notes it."""
    give_up = _mqtt_lasting.LastingBoard._give_up

    def counting(board: _mqtt_lasting.LastingBoard) -> None:
        calls(board)
        give_up(board)

    return counting


@VERSIONS
def test_what_is_stopped_while_the_connection_breaks_is_ended_at_the_broker_as_well(
    mqtt_server: MosquittoServer, topic: str, protocol: str
) -> None:
    with Proxy(robot(mqtt_server, protocol)) as proxy:
        node, _ = subscribed(proxy.url, [topic, f"{topic}.other"])
        stopped = node.endpoints[0]
        with node:
            proxy.half_open()
            stopped.stop()
            proxy.cut()
            eventually(lambda: not node.connected)
            proxy.resume()
            eventually(lambda: node.health)
    with SyncNode("office", connection_params=mqtt_server.url) as office:
        office.create_publisher(topic, qos=1).publish("lost")
        node, got = subscribed(robot(mqtt_server, protocol), [topic])
        with node:
            office.create_publisher(topic, qos=1).publish("live")
            assert got[topic].first == "live"


def test_what_plain_programs_publish_is_kept_as_well(
    mqtt_server: MosquittoServer, topic: str
) -> None:
    node, _ = subscribed(robot(mqtt_server), [topic])
    with node:
        pass
    with PlainPeer(mqtt_server.url) as peer:
        for number in range(3):
            peer.publish(topic, str(number))
    node, got = subscribed(robot(mqtt_server), [topic])
    with node:
        assert got[topic].wait(3) == [0, 1, 2]


# ---- the time ----


async def test_a_broker_that_grants_less_time_is_told_in_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeBroker() as broker:
        broker.greeting = b"\x20\x08\x00\x00\x05\x11\x00\x00\x00\x05"
        url = f"{broker.url}&client_id=r2d2&session_expiry=60"
        for _ in range(2):
            async with (
                Subscriber("a", conn_params=url),
                Subscriber("b", conn_params=url.replace("r2d2", "c3po")),
            ):
                pass
        told = [r.message for r in caplog.records if "for 5 s only" in r.message]
    assert len(told) == 4, "once for each client and run"


def test_mqtt_3_1_1_has_no_time_and_says_so(
    mqtt_server: MosquittoServer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    node, _ = subscribed(robot(mqtt_server, "MQTTv311"), [topic, f"{topic}.*"])
    with node:
        pass
    assert caplog.text.count("MQTT 3.1.1 knows no such time") == 1


# ---- two programs of one name ----


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is thrown out is back soon."""
    monkeypatch.setattr(_session, "AUTH_PAUSE", 0.2)


TAKEN_OVER = b"\xe0\x01\x8e"


async def test_who_is_said_to_be_thrown_out_waits_as_in_any_outage_and_is_back(
    hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    # Perhaps there is no other client: it may be an earlier CONNECT of ours that was slow.
    async with FakeBroker() as broker:
        broker.once_subscribed = [TAKEN_OVER, TAKEN_OVER]
        url = f"{broker.url}&client_id=r2d2"
        async with Node("robot", url, heartbeats=False, discovery=False) as node:
            await node.create_subscriber("a").run()
            publisher = node.create_publisher("a")
            await met(lambda: not node.connected)
            await publisher.publish("kept meanwhile")
            await node.wait_connected(DEADLINE)
            assert broker.connects == 3
            await met(lambda: broker.heard.count(0x30) == 1)
    assert caplog.text.count("'r2d2'; give each program its own") == 1
    assert caplog.text.count("'r2d2' again") == 1


async def test_who_is_thrown_out_while_it_begins_tries_again_later(hasty: None) -> None:
    async with FakeBroker() as broker:
        broker.once_subscribed = [TAKEN_OVER]
        node = Node("robot", f"{broker.url}&client_id=r2d2")
        node.create_subscriber("a")
        await node.run()
        assert broker.connects == 2
        await node.stop()


@VERSIONS
def test_two_clients_of_one_name_come_in_turns_with_long_pauses_where_nothing_tells_them(
    hasty: None, mqtt_server: MosquittoServer, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = mqtt_server.url_with(client_id="r2d2", protocol=protocol)
    with (
        Proxy(url) as proxy,  # to us it is another broker
        SyncNode("first", connection_params=url),
        SyncNode("second", connection_params=proxy.url),
    ):
        eventually(lambda: caplog.text.count("as it seems; give each program its own") == 2)
        known = len(caplog.text)
        eventually(lambda: caplog.text[known:].count("'r2d2' again") >= 6)
    told = caplog.text[known:]
    assert told.count(" lost: ") == told.count("'r2d2' again"), "and no other ones between"


@VERSIONS
def test_a_broker_that_is_restarted_thrice_is_taken_for_no_fight(
    make_mosquitto: MakeMosquitto, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_mosquitto()
    params = ConnectionParameters.from_url(server.url_with(client_id="r2d2", protocol=protocol))
    params.offline = Offline(max_age=60)
    with SyncNode("robot", connection_params=params) as node:
        got = Collected()
        node.create_subscriber("a", got)
        publisher = node.create_publisher("a", qos=1)
        for outage in range(1, SHORT_LIVES + 2):
            eventually(lambda: node.health)
            server.kill()
            eventually(lambda: caplog.text.count("cannot be reached") == outage)  # noqa: B023
            publisher.publish(outage)
            server.start()
            got.until(outage)  # at least once: after a kill perhaps twice
    assert "another client" not in caplog.text
