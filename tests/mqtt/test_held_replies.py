"""Replies that wait for further ones, on a connection to Mosquitto."""

from __future__ import annotations

import asyncio
import threading

from brokers import MosquittoServer
from collected import DEADLINE, Collected
from commlib._packet import Packet
from commlib.transports.base import Address
from commlib.transports.mqtt import ConnectionParameters, MqttTransport


async def test_a_held_reply_does_not_overtake_what_was_published_before(
    mqtt_server: MosquittoServer,
) -> None:
    came = Collected()
    transport = MqttTransport(ConnectionParameters.from_url(mqtt_server.url))
    await transport.connect()
    await transport.subscribe("inbox/*", lambda packet: came(packet.payload))

    def serve() -> None:
        assert transport.publish("inbox/topic", Packet(b"published", qos=1))
        assert transport.hold(Address("inbox/of-a-call"), Packet(b"replied"))
        transport.let_go()

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(DEADLINE)  # on the loop, which writes nothing meanwhile
    assert await asyncio.to_thread(came.wait, 2) == [b"published", b"replied"]
    await transport.close()
