"""MQTT 5 and 3.1.1: Mosquitto, EMQX, HiveMQ, NATS and any other broker.

Features: PubSub and patterns (topics), RPC and everything built on it (topics), QoS 0, 1 and 2,
retained messages, will and birth, message expiry, services that share their requests (MQTT 5,
shared subscriptions), authentication, TLS.

Connections: one. On MQTT 3.1.1, and on brokers without subscription identifiers, a pattern that
overlaps with another one without being covered by it needs a further one.

Parameters: see ``ConnectionParameters``. URLs::

    mqtt://user:password@host:1883?keepalive=5
    mqtts://host                                     TLS, certificate and host name checked
    mqtt://host?protocol=MQTTv311

A name's dots are slashes on MQTT. Messages are published at QoS 0 unless a publisher is told
otherwise (``qos=1``); subscribers take each at the QoS that it was published at.

What MQTT cannot do: nobody is told when a topic has no subscriber, and at QoS 0 the broker says
nothing at all, so what is lost with a connection shows as gaps at the subscribers only; on 3.1.1
services of one name do not share their requests, each gets all of them; a broker without rights
for a topic may drop a message without a word (Mosquitto does). A queue exists as long as somebody
consumes it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from commlib import events, pubsub, rpc
from commlib._outbox import Outbox
from commlib._packet import Packet
from commlib._params import Offline as Offline
from commlib._session import Link, Session
from commlib._topics import to_mqtt
from commlib._typing import Req, Resp, T
from commlib.exceptions import CommlibError, ConnectError, PayloadTooBig
from commlib.transports import ACTION_CLASSES, loaded_when_needed
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_board import WILDCARDS, Board, Boards, Channel
from commlib.transports._mqtt_bytes import MAX_REMAINING, text
from commlib.transports._mqtt_control import PINGREQ, V5, V311
from commlib.transports._mqtt_deliveries import Deliveries, Delivery
from commlib.transports._mqtt_headers import write_pairs
from commlib.transports._mqtt_link import MqttLink, VersionRefused, dial
from commlib.transports._mqtt_params import ConnectionParameters as ConnectionParameters
from commlib.transports._mqtt_params import Credentials as Credentials
from commlib.transports._mqtt_params import MQTTProtocolType as MQTTProtocolType
from commlib.transports._mqtt_params import QoS as QoS
from commlib.transports._mqtt_params import Will as Will
from commlib.transports._mqtt_queues import Consumer, Inbox
from commlib.transports._sessions import Sessions
from commlib.transports.base import (
    Address,
    Handler,
    LinkStats,
    ReplyHandler,
    StateHandler,
    Traits,
)

if TYPE_CHECKING:
    from commlib.transports._mqtt_actions import ActionClient as ActionClient
    from commlib.transports._mqtt_actions import ActionService as ActionService

log = logging.getLogger("commlib.mqtt")

FLUSH_SECONDS = 0.8  # how long closing waits for what is not written yet
MAX_TOPICS = 10_000  # names whose spelling is kept


class _Subscription:
    """A handler on a channel."""

    def __init__(self, boards: Boards, channel: Channel, handler: Handler) -> None:
        self._boards = boards
        self._channel = channel
        self._handler = handler

    async def close(self) -> None:
        self._boards.remove(self._channel, self._handler)


class MqttTransport:
    """The seven verbs on MQTT."""

    def __init__(self, params: ConnectionParameters) -> None:
        self.params = params
        self.stats = LinkStats()
        self.on_state: StateHandler = lambda connected, reason: None
        self.on_refused: Callable[[str, Exception], None] = lambda target, error: None
        assert isinstance(params.protocol, MQTTProtocolType), "seen to when it was made"
        self._version = int(params.protocol)
        self.traits = _traits(self._version == V5)
        self._name = str(params)
        self._client_id = params.client_id or f"commlib-{os.urandom(8).hex()}"
        self._sessions = Sessions(
            params, self.stats, lambda connected, reason: self.on_state(connected, reason)
        )
        self._main = self._sessions.add("main", self._dial_main, self._on_main)
        self._outbox = self._make_outbox()
        self._reliable = self._make_outbox()
        self._main.on_failure = self._wake
        self._deliveries = Deliveries(self.stats, self._note_refused)
        self._deliveries.on_room = self._reliable.on_room
        self._boards = Boards(self._open_board, self._close_board)
        self._extra: dict[Board, Session] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        # Written by the loop alone, read by all threads.
        self._link: MqttLink | None = None
        self._max_packet = MAX_REMAINING
        self._topics: dict[str, bytes] = {}
        self._no_properties = frames.NO_PROPERTIES if self._is_5 else b""
        self._degraded: set[str] = set()
        self._full = self._outbox

    @property
    def _is_5(self) -> bool:
        return self._version == V5

    def _make_outbox(self) -> Outbox:
        return Outbox(
            self._name,
            self.params.offline_policy,
            self.stats,
            failure=lambda: self._main.failure,
            connecting=lambda: not (self._main.failed or self._sessions.was_connected),
        )

    def _wake(self) -> None:
        self._outbox.wake()
        self._reliable.wake()

    # The verbs.

    async def connect(self) -> None:
        await self._main.ready()

    async def close(self) -> None:
        if self._link is not None or not (self._is_empty or self._main.failed):
            # What is not confirmed by then is counted when the link goes.
            with suppress(TimeoutError, CommlibError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self.flush()
        for session in self._extra.values():
            await self._sessions.drop(session)
        if self._leaving:
            await asyncio.wait(self._leaving)
        await self._main.close()
        self._outbox.close()
        self._reliable.close()

    @property
    def _is_empty(self) -> bool:
        return self._outbox.empty and self._reliable.empty

    def publish(self, topic: str, packet: Packet) -> bool:
        head = self._topics.get(topic)
        if head is None:
            head = self._spell(topic)
        if not (packet.qos or packet.retain) and packet.header is None and packet.ttl is None:
            frame = frames.publish(head, packet.payload, 0, self._no_properties)
            if len(frame) > self._max_packet:
                raise PayloadTooBig(len(frame), self._max_packet)
            return self._outbox.put(frame, topic) or self._note_full(self._outbox)
        return self._publish_as_told(topic, head, packet)

    def _spell(self, topic: str) -> bytes:
        if len(self._topics) >= MAX_TOPICS:
            self._topics.clear()
        head = self._topics[topic] = text(to_mqtt(topic))
        return head

    def _publish_as_told(self, topic: str, head: bytes, packet: Packet) -> bool:
        """Publish what is more than a payload at QoS 0."""
        qos, retain = self._as_broker_can(packet)
        flags = qos << frames.QOS_SHIFT | retain
        properties = b""
        if self._is_5:
            pairs = write_pairs(packet.header) if packet.header is not None else []
            properties = frames.publish_properties(packet.ttl, pairs)
        if qos:
            before, behind = frames.publish_parts(head, packet.payload, flags, properties)
            frame, outbox = before + behind, self._reliable
            note: object = Delivery(topic, qos, len(before))
        else:
            frame, outbox = frames.publish(head, packet.payload, flags, properties), self._outbox
            note = topic
        if len(frame) > self._max_packet:
            raise PayloadTooBig(len(frame), self._max_packet)
        return outbox.put(frame, note) or self._note_full(outbox)

    def _as_broker_can(self, packet: Packet) -> tuple[int, bool]:
        link = self._link
        qos, retain = packet.qos, packet.retain
        if link is not None and qos > link.granted.max_qos:
            self._warn_once(f"the broker delivers at most at QoS {link.granted.max_qos}, not {qos}")
            qos = link.granted.max_qos
        if link is not None and retain and not link.granted.retains:
            self._warn_once("the broker keeps no messages, so retain=True has no effect")
            retain = False
        return qos, retain

    def _warn_once(self, text: str) -> None:
        if text not in self._degraded:
            self._degraded.add(text)
            log.warning("%s: %s", self._name, text)

    def _note_full(self, outbox: Outbox) -> bool:
        self._full = outbox
        return False

    async def subscribe(self, topic: str, handler: Handler) -> _Subscription:
        channel = self._boards.add(topic, handler)
        await self._confirmed(channel, handler)
        return _Subscription(self._boards, channel, handler)

    async def _confirmed(self, channel: Channel, handler: Handler) -> None:
        try:
            await self._main.ready()
            await asyncio.shield(channel.confirmed)
        except BaseException:  # cancellation, too
            self._boards.remove(channel, handler)
            raise

    def send(self, to: str | Address, packet: Packet) -> bool:
        return self.publish(to if isinstance(to, str) else to.reply_to, packet)

    async def consume(self, queue: str, handler: Handler, prefetch: int) -> Consumer:
        consumer = Consumer(handler, prefetch, self.stats)
        channel = self._boards.add(queue, consumer.take, shares=True)
        await self._confirmed(channel, consumer.take)
        consumer.on_close(lambda: self._boards.remove(channel, consumer.take))
        return consumer

    async def open_inbox(self, handler: ReplyHandler) -> Inbox:
        inbox = Inbox(self._boards, f"rpc-{os.urandom(16).hex()}", handler)
        await self._confirmed(inbox.channel, inbox.take)
        return inbox

    # Beside the verbs.

    @property
    def connected(self) -> bool:
        return self._sessions.connected

    async def room(self) -> None:
        await self._full.room()

    async def flush(self) -> None:
        await self._main.ready()
        while not self._reliable.empty:
            await self._reliable.room()
        await self._deliveries.drained()
        link = self._link
        if link is not None:
            await self._outbox.confirm(PINGREQ, link.closed)

    def clock(self) -> int:
        return int(time.time() * 1000)

    def abandon(self) -> None:
        self._sessions.abandon()

    # The connections.

    async def _dial_main(self) -> MqttLink:
        link = await self._dial_any_version()
        try:
            link.allow_direct()
            self._boards.settle(numbered=link.granted.numbers and link.granted.shares)
            await self._boards.main.restore(link)
        except BaseException:  # stopped, or no answer in time: nobody else knows of this link
            self._boards.main.attach(None)
            link.abort(None)
            raise
        return link

    async def _dial_any_version(self) -> MqttLink:
        try:
            return await self._dial(self._version, "")
        except VersionRefused as refused:
            if not self._is_5:
                raise
            link = await self._dial(V311, "")
            self._warn_once(f"{refused}; taken: MQTT 3.1.1 (protocol=MQTTv311 asks for it at once)")
            return link

    async def _dial(self, version: int, suffix: str) -> MqttLink:
        client_id = self._client_id + suffix
        link = await dial(self._name, self.params, client_id, version, is_main=not suffix)
        link.downgrades = version is not self._version
        return link

    def _on_main(self, link: Link | None) -> None:
        assert link is None or isinstance(link, MqttLink)
        self._link = link
        if link is None:
            self._boards.main.attach(None)
            lost = self._deliveries.detach()
            self._reliable.put_back([delivery.frame for delivery in lost], lost)
            self._outbox.set_link(None)
            self._reliable.set_link(None)
            return
        self.traits = _traits(link.granted.numbers and link.granted.shares)
        self._max_packet = link.granted.max_packet
        link.on_room = self._outbox.on_room
        self._deliveries.attach(link)
        self._outbox.set_link(link)
        self._reliable.set_link(self._deliveries)
        if (birth := self.params.birth) is not None:
            will = birth.as_will()
            self.publish(will.topic, Packet(will.payload, qos=will.qos, retain=will.retain))

    def _open_board(self) -> Board:
        """A further connection, for filters that must not meet those of the others."""
        board = Board()
        suffix = f"-{len(self._extra) + 1}-{os.urandom(2).hex()}"

        async def dial_extra() -> MqttLink:
            if self._link is None:
                raise ConnectError(f"{self._name}: a further connection waits for the first one")
            link = await self._dial(self._link.version, suffix)
            try:
                await board.restore(link)
            except BaseException:
                board.attach(None)
                link.abort(None)
                raise
            return link

        def on_link(link: Link | None) -> None:
            if link is None:
                board.attach(None)

        session = self._extra[board] = self._sessions.add("overlaps", dial_extra, on_link)
        session.start()
        return board

    def _close_board(self, board: Board) -> None:
        leaving = asyncio.get_running_loop().create_task(
            self._sessions.drop(self._extra.pop(board))
        )
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _note_refused(self, topic: str, error: Exception) -> None:
        self.on_refused(topic, error)


def _traits(is_5: bool) -> Traits:
    return Traits(
        competing=is_5,
        native_wildcards=WILDCARDS,
        separator="/",
        header_beside_bare=is_5,
        delivery_levels=(0, 1, 2),
        retained=True,
    )


class Publisher(pubsub.Publisher[T]):
    """``commlib.pubsub.Publisher`` on MQTT."""

    scheme = "mqtt"


class MPublisher(pubsub.MPublisher[T]):
    """``commlib.pubsub.MPublisher`` on MQTT."""

    scheme = "mqtt"


class Subscriber(pubsub.Subscriber[T]):
    """``commlib.pubsub.Subscriber`` on MQTT."""

    scheme = "mqtt"


class PSubscriber(pubsub.PSubscriber[T]):
    """``commlib.pubsub.PSubscriber`` on MQTT."""

    scheme = "mqtt"


class WPublisher(pubsub.WPublisher[T]):
    """``commlib.pubsub.WPublisher`` on MQTT."""

    scheme = "mqtt"


class WSubscriber(pubsub.WSubscriber):
    """``commlib.pubsub.WSubscriber`` on MQTT."""

    scheme = "mqtt"


class RPCService(rpc.RPCService):
    """``commlib.rpc.RPCService`` on MQTT."""

    scheme = "mqtt"


class RPCServer(rpc.RPCServer):
    """``commlib.rpc.RPCServer`` on MQTT."""

    scheme = "mqtt"


class RPCClient(rpc.RPCClient[Req, Resp]):
    """``commlib.rpc.RPCClient`` on MQTT."""

    scheme = "mqtt"


class EventEmitter(events.EventEmitter):
    """``commlib.events.EventEmitter`` on MQTT."""

    scheme = "mqtt"


if not TYPE_CHECKING:
    __getattr__ = loaded_when_needed("commlib.transports._mqtt_actions", *ACTION_CLASSES)
