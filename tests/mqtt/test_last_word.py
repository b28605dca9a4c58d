"""The will of a node's connection: what the broker tells of nodes that end without a word."""

from __future__ import annotations

import logging

import pytest

from commlib import aio
from commlib._discovery import Announcement
from commlib._last_word import ANNOUNCE
from commlib._packet import Packet
from commlib._wire import Reader
from commlib.exceptions import AuthError
from commlib.transports.mqtt import ConnectionParameters, MqttTransport, Will

from .fake_broker import FakeBroker


def will_of(node: aio.Node) -> Will | None:
    transport = node.hub.transport
    assert isinstance(transport, MqttTransport)
    return transport.params.will


def test_a_node_has_a_will_that_names_its_connection_and_its_parameters_are_as_given() -> None:
    params = ConnectionParameters()
    node = aio.Node("robot", params)
    will = will_of(node)
    assert will is not None
    assert will.topic == ANNOUNCE
    said = Reader(Announcement).read(Packet(will.payload)).data
    assert said == Announcement("death", link=node.hub.link)
    assert node.hub.params is params
    assert params == ConnectionParameters()


async def test_only_a_node_with_a_connection_of_its_own_and_discovery_has_one() -> None:
    mine = Will("mine", "gone")
    assert will_of(aio.Node("robot", ConnectionParameters(will=mine))) == mine
    assert will_of(aio.Node("robot", ConnectionParameters(), discovery=False)) is None
    assert will_of(aio.Node("robot", ConnectionParameters(), share_connection=True)) is None
    transport = aio.Publisher("t", None, ConnectionParameters()).hub.transport
    assert isinstance(transport, MqttTransport)
    assert transport.params.will is None


async def test_a_broker_that_lets_nobody_in_with_such_a_will_is_entered_without() -> None:
    async with FakeBroker() as broker:
        broker.refuses_wills = True
        async with aio.Node("robot", broker.url, heartbeats=False) as node:
            assert node.connected
            assert broker.wills == [True, False]
            broker.hang_up()
            assert await node.wait_connected()
        assert set(broker.wills[1:]) == {False}


async def test_a_will_that_the_program_wants_is_not_left_out() -> None:
    async with FakeBroker() as broker:
        broker.refuses_wills = True
        params = ConnectionParameters(host="127.0.0.1", port=broker.port, will=Will("mine"))
        node = aio.Node("robot", params)
        with pytest.raises(AuthError):
            await node.run()
        await node.stop()
        assert broker.wills == [True]


async def test_who_has_no_right_at_all_is_refused_and_asks_once_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeBroker() as broker:
        broker.greeting = b"\x20\x03\x00\x86\x00"  # bad user name or password
        broker.closes_at_once = True
        node = aio.Node("robot", broker.url, heartbeats=False)
        with pytest.raises(AuthError):
            await node.run()
        assert broker.wills == [True, False]
        await node.stop()
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1


def test_the_will_of_another_life_names_another_connection() -> None:
    node = aio.Node("robot", ConnectionParameters())
    first = node.hub.link
    node.hub.abandon()  # as after a fork
    assert node.hub.link != first
    will = will_of(node)
    assert will is not None
    assert node.hub.link.encode() in will.payload
