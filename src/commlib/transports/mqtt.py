"""MQTT 5 and 3.1.1: Mosquitto, EMQX, HiveMQ, NATS and any other broker.

Features: PubSub and patterns (topics), RPC and everything built on it (topics), QoS 0, 1 and 2,
retained messages, will and birth, message expiry, services that share their requests (MQTT 5,
shared subscriptions), sessions that the broker keeps, authentication, TLS, websockets.

Connections: one, and with ``session_expiry`` one more for the subscribers. On MQTT 3.1.1, and on
brokers without subscription identifiers, a pattern that overlaps with another one without being
covered by it needs a further one, and with ``session_expiry`` each pattern does.

Parameters: see ``ConnectionParameters``. URLs::

    mqtt://user:password@host:1883?keepalive=5
    mqtts://host                                     TLS, certificate and host name checked
    mqtt://host?protocol=MQTTv311
    ws://host:8083/mqtt, wss://host                  over websockets, with TLS on port 443

A name's dots are slashes on MQTT. Messages are published at QoS 0 unless a publisher is told
otherwise (``qos=1``); subscribers take each at the QoS that it was published at.

What MQTT cannot do: nobody is told when a topic has no subscriber, and at QoS 0 the broker says
nothing at all, so what is lost with a connection shows as gaps at the subscribers only; on 3.1.1
services of one name do not share their requests, each gets all of them; a message for which the
user has no right may be dropped without a word, or end the connection (Mosquitto 2.0 does). A queue
exists as long as somebody consumes it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from commlib import events, pubsub, rpc
from commlib._packet import Packet
from commlib._params import Offline as Offline
from commlib._parts import Frame, head_of, with_head
from commlib._session import Link, Session
from commlib._topics import MQTT_WILDCARDS, check_topic, to_mqtt
from commlib._typing import Req, Resp, T
from commlib.exceptions import (
    AuthError,
    CommlibError,
    ConnectError,
    PayloadTooBig,
    SerializationError,
)
from commlib.transports import ACTION_CLASSES, loaded_when_needed
from commlib.transports import _mqtt_frames as frames
from commlib.transports._confirmation import Ending
from commlib.transports._main_transport import MainTransport
from commlib.transports._mqtt_board import Board, Boards
from commlib.transports._mqtt_bytes import MAX_REMAINING, text
from commlib.transports._mqtt_channel import Channel
from commlib.transports._mqtt_control import FOREVER, PINGREQ, V5, V311
from commlib.transports._mqtt_deliveries import Deliveries, Delivery
from commlib.transports._mqtt_headers import write_pairs
from commlib.transports._mqtt_link import ClosedEarly, MqttLink, VersionRefused, dial
from commlib.transports._mqtt_params import ConnectionParameters as ConnectionParameters
from commlib.transports._mqtt_params import Credentials as Credentials
from commlib.transports._mqtt_params import MQTTProtocolType as MQTTProtocolType
from commlib.transports._mqtt_params import QoS as QoS
from commlib.transports._mqtt_params import Will as Will
from commlib.transports._mqtt_queues import Consumer, Inbox, Queue
from commlib.transports._mqtt_rivals import Rivals
from commlib.transports.base import (
    Address,
    Handler,
    ReplyHandler,
    Traits,
)

if TYPE_CHECKING:
    from commlib.transports._mqtt_actions import ActionClient as ActionClient
    from commlib.transports._mqtt_actions import ActionService as ActionService
    from commlib.transports._mqtt_lasting import Lasting, LastingBoard, LastingBoards

log = logging.getLogger("commlib.mqtt")

MAX_TOPICS = 10_000  # names whose spelling is kept
USUAL_ADDRESS = 200  # characters at most of an address of which something is kept


class MqttTransport(MainTransport[Deliveries, ConnectionParameters]):
    """The seven verbs on MQTT."""

    _question = PINGREQ

    def __init__(self, params: ConnectionParameters) -> None:
        super().__init__(params)
        assert isinstance(params.protocol, MQTTProtocolType), "seen to when it was made"
        self._version = int(params.protocol)
        self.traits = _traits(
            self._version, competing=self._version == V5, lasting=params.session_expiry > 0
        )
        # Of 3.1.1 every broker takes 23 bytes (section 3.1.3.1), with what `_open_board` adds.
        self._client_id = params.client_id or f"commlib-{os.urandom(6).hex()}"
        self._deliveries = Deliveries(self.stats, self._note_refused)
        self._deliveries.on_room = self._reliable.on_room
        self._boards = Boards(self.stats, self._open_board, self._close_board)
        self._lasting = self._make_lasting() if self.traits.lasting else None
        self._queues: dict[str, Queue] = {}
        self._extra: dict[Board, Session] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._spoke_5 = False
        self._has_will = True
        self._tried_without_will = not params.can_do_without_will
        self._suffixes = count(1)
        self._closed_early = 0  # how often in a row instead of an answer
        self._rivals = Rivals(self._name, self._client_id)
        # Written by the loop alone, read by all threads.
        self._link: MqttLink | None = None
        self._max_packet = MAX_REMAINING
        # Used by all threads, each operation whole by itself.
        self._topics: dict[str, bytes] = {}
        self._parents: set[str] = set()
        self._no_properties = frames.NO_PROPERTIES if self._is_5 else b""

    @property
    def _is_5(self) -> bool:
        return self._version == V5

    # The verbs.

    async def _close_rest(self) -> None:
        extra, self._extra = self._extra, {}
        for session in extra.values():
            await self._leave(session)
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def close(self) -> None:
        await super().close()
        self._rivals.forget()
        owner = _client_ids.get(self._client_id_key)
        if owner is not None and owner() is self:  # else this one was refused
            del _client_ids[self._client_id_key]

    def publish(
        self,
        topic: str,
        packet: Packet,
        urgent: bool | None = False,
        *,
        more: bool = False,
        head: bytes | None = None,
    ) -> bool:
        head = head or self._topics.get(topic) or self._spell(topic)
        if not (packet.qos or packet.retain) and packet.header is None:
            properties = self._no_properties
            if packet.ttl is not None and properties:
                properties = frames.expiry(packet.ttl)
            frame = frames.publish(head, packet.payload, 0, properties)
            if len(frame) > self._max_packet:
                raise PayloadTooBig(len(frame), self._max_packet, by_broker=True)
            return self._outbox.put(frame, topic, urgent, more)
        frame, note = self._frame(topic, head, packet)
        if len(frame) > self._max_packet:
            raise PayloadTooBig(len(frame), self._max_packet, by_broker=True)
        return self._outbox_for(packet).put(frame, note, urgent)

    def _spell_once(self, topic: str) -> bytes:
        """The same of the address of a reply, which does not come again.

        What stands before its last word does, and is not looked at each time.
        """
        if len(topic) > USUAL_ADDRESS:
            return self._spell(topic, keep=False)
        parent, _, last = topic.rpartition("/")
        if parent in self._parents and last.isascii() and last.replace("-", "").isalnum():
            return text(topic)
        head = self._spell(topic, keep=False)
        if parent:
            if len(self._parents) >= MAX_TOPICS:
                self._parents.clear()
            self._parents.add(parent)
        return head

    def _spell(self, topic: str, keep: bool = True) -> bytes:
        """A name as it stands in a packet. Raises SerializationError for what MQTT cannot spell.

        ``keep``: it is to come again. Names come from peers, too, as the address of a reply, and
        for a wrong one the broker would end the connection.
        """
        spelled = to_mqtt(topic)
        try:
            check_topic(topic)
            if set(spelled) & set(MQTT_WILDCARDS):
                raise ValueError(f"{topic!r} holds a wildcard of MQTT, and is no name")
            if spelled.startswith(("$SYS/", "$share/")):
                raise ValueError(f"{topic!r} belongs to the broker")
        except ValueError as exc:
            raise SerializationError(str(exc)) from exc
        head = text(spelled)
        if keep:
            if len(self._topics) >= MAX_TOPICS:
                self._topics.clear()
            self._topics[topic] = head
        return head

    def _frame(self, topic: str, head: bytes, packet: Packet) -> tuple[Frame, object]:
        """What is more than a payload at QoS 0, and its note."""
        qos, retain = self._as_broker_can(packet)
        flags = qos << frames.QOS_SHIFT | retain
        properties = b""
        if self._is_5:
            pairs = write_pairs(packet.header) if packet.header is not None else []
            properties = frames.publish_properties(packet.ttl, pairs)
        if not packet.qos:
            return frames.publish(head, packet.payload, flags, properties), topic
        before, behind = frames.publish_parts(head, packet.payload, flags, properties)
        return before + behind, Delivery(topic, qos, time.monotonic(), split=len(before))

    def _as_broker_can(self, packet: Packet) -> tuple[int, bool]:
        link = self._link
        qos, retain = packet.qos, packet.retain
        if link is not None and qos > link.granted.max_qos:
            self._warn_once(f"the broker delivers at most at QoS {link.granted.max_qos}, not {qos}")
            qos = max(link.granted.max_qos, 1)  # if not even that, it is refused, and told
        if link is not None and retain and not link.granted.retains:
            self._warn_once("the broker keeps no messages, so retain=True has no effect")
            retain = False
        return qos, retain

    async def subscribe(self, topic: str, handler: Handler) -> Ending:
        channel = self._boards.add(topic, handler)
        await self._confirmed(channel, handler)
        return Ending(self._boards.remove, channel, handler)

    async def subscribe_lasting(self, topic: str, handler: Handler) -> Lasting:
        assert self._lasting is not None, "its trait says so"
        subscription = self._lasting.add(topic, handler)
        try:
            await self._answered(subscription.channel)
        except BaseException:  # cancellation, too
            subscription.keep()
            await subscription.close()
            raise
        return subscription

    async def _confirmed(self, channel: Channel, handler: Handler) -> None:
        """Return when the broker has said yes. Raises what keeps it from that for good."""
        try:
            await self._answered(channel)
        except BaseException:  # cancellation, too
            self._boards.remove(channel, handler)
            raise

    async def _answered(self, channel: Channel) -> None:
        await self._main.ready()
        if channel.wanted is not None and channel.wanted.board in self._extra:
            await self._extra[channel.wanted.board].ready()
        await channel.answer()

    def send(self, to: str | Address, packet: Packet) -> bool:
        # What the same thread has published before at QoS 1 goes first.
        urgent = self._reliable.is_written or None
        if isinstance(to, str):
            return self.publish(to, packet, urgent)
        return self.publish(to.reply_to, packet, urgent, head=self._spell_once(to.reply_to))

    def hold(self, to: Address, packet: Packet) -> bool:
        if not self._reliable.is_written:
            return self.send(to, packet)  # in its turn behind that
        return self.publish(to.reply_to, packet, more=True, head=self._spell_once(to.reply_to))

    async def consume(self, queue: str, handler: Handler, prefetch: int) -> Consumer:
        self._spell(queue)  # no pattern
        found = self._queues.get(queue) or Queue(
            queue, self._queues, self._boards, self.stats, self._give_back
        )
        consumer = found.join(handler, prefetch)
        try:
            # Not `_confirmed`: others may consume there, and the last one ends the subscription.
            await self._answered(found.channel)
        except BaseException:  # cancellation, too
            await consumer.close()
            raise
        return consumer

    def _give_back(self, queue: str, packet: Packet) -> None:
        """A request that no consumer of ours will take any more: others may."""
        if not self.traits.competing:
            return  # they have it already
        try:
            if self.send(queue, packet):
                return
        except CommlibError as exc:
            log.debug("%s: a request could not be given back: %s", self._name, exc)
        self.stats.unconfirmed += 1

    async def open_inbox(self, handler: ReplyHandler) -> Inbox:
        inbox = Inbox(self._boards, f"rpc-{os.urandom(16).hex()}", handler)
        await self._confirmed(inbox.channel, inbox.take)
        return inbox

    # The connections.

    async def _dial_main(self) -> MqttLink:
        try:
            link = await self._dial_any_version()
        except (ConnectError, OSError):
            self._rivals.forget()  # the broker was away
            raise
        self._watch_life(link)
        try:
            link.allow_direct()
            self._boards.settle(numbered=link.granted.numbers and link.granted.shares)
            if self._lasting is not None:
                self._lasting.settle(numbered=link.granted.numbers)
            await self._boards.main.restore(link)
        except BaseException:  # stopped, or no answer in time: nobody else knows of this link
            self._boards.main.attach(None)
            await link.give_up()
            raise
        return link

    def _watch_life(self, link: MqttLink) -> None:
        if not self.params.client_id:
            return
        loop = asyncio.get_running_loop()
        begun = loop.time()
        link.explain = lambda reason: self._rivals.judge(reason, begun, loop.time())

    async def _dial_any_version(self) -> MqttLink:
        """Try MQTT 5 first, if that is wanted, and 3.1.1 where it is refused.

        Some brokers refuse it by closing the connection. But so does one that is just starting, or
        a proxy in front of it; so that counts only if it is all that was ever seen, and again.
        """
        try:
            link = await self._dial(self._version, "")
        except (VersionRefused, ClosedEarly) as exc:
            self._closed_early += 1
            is_refusal = isinstance(exc, VersionRefused) or self._closed_early > 1
            if not self._is_5 or self._spoke_5 or not is_refusal:
                raise
            link = await self._dial(V311, "")
            self._warn_once(f"{exc}; taken: MQTT 3.1.1 (protocol=MQTTv311 asks for it at once)")
            return link
        self._closed_early = 0
        self._spoke_5 = self._is_5
        return link

    async def _dial(
        self, version: int, suffix: str, prepare: Callable[[MqttLink], None] | None = None
    ) -> MqttLink:
        self._take_client_id()
        client_id = self._client_id + suffix
        place = self._sessions.params
        has_will = self._has_will and not suffix
        try:
            link = await dial(
                str(place), place, client_id, version, has_will=has_will, prepare=prepare
            )
        except AuthError:
            if not has_will or self._tried_without_will:
                raise
            # Some brokers let nobody in who has no right to his will, and nobody has asked for it.
            self._tried_without_will = True
            link = await dial(str(place), place, client_id, version, has_will=False)
            self._has_will = False
        link.downgrades = version != self._version
        return link

    def _take_client_id(self) -> None:
        """Two connections of one client id would throw each other out, for ever."""
        owner = _client_ids.setdefault(self._client_id_key, weakref.ref(self))()
        if owner is not self:
            if owner is not None:
                raise AuthError(
                    f"{self._name}: another connection of this program has the client id "
                    f"{self._client_id!r}; give each its own, or nodes share_connection=True"
                )
            _client_ids[self._client_id_key] = weakref.ref(self)

    @property
    def _client_id_key(self) -> tuple[str, str]:
        return self.params.address, self._client_id

    def _on_main(self, link: Link | None) -> None:
        assert link is None or isinstance(link, MqttLink)
        self._link = link
        if link is None:
            self._boards.main.attach(None)
            self._take_back()
            return
        granted = link.granted
        self.traits = _traits(
            link.version,
            competing=granted.numbers and granted.shares,
            lasting=self.params.session_expiry > 0,
        )
        self._max_packet = granted.max_packet
        link.on_room = self._outbox.on_room
        self._deliveries.attach(link)
        self._announce(link)
        self._outbox.revise(self._as_granted)
        self._outbox.set_link(link)
        self._reliable.set_link(self._deliveries)
        for session in self._extra.values():
            session.start()

    def _announce(self, link: MqttLink) -> None:
        """The birth message, before all that waits."""
        if self.params.birth is None:
            return
        birth = self.params.birth.as_will()
        packet = Packet(birth.payload, qos=birth.qos, retain=birth.retain)
        try:
            frame, note = self._frame(birth.topic, self._spell(birth.topic), packet)
            if len(frame) > self._max_packet:
                raise PayloadTooBig(len(frame), self._max_packet, by_broker=True)
        except SerializationError as exc:
            self._note_refused(birth.topic, exc)
            return
        (self._deliveries if birth.qos else link).write([frame], [note])

    def _as_granted(self, frame: Frame, note: object) -> Frame | None:
        """What was written for an unknown broker as this one takes it, None if it does not."""
        assert self._link is not None, "called when it is known"
        if len(frame) > self._max_packet:
            self._note_refused(
                str(note), PayloadTooBig(len(frame), self._max_packet, by_broker=True)
            )
            return None
        head = head_of(frame)
        if head[0] & 0xF1 == frames.PUBLISH | frames.RETAIN and not self._link.granted.retains:
            return with_head(frame, bytes((head[0] & ~frames.RETAIN,)) + head[1:])
        return frame

    def _open_board(self) -> Board:
        """A further connection, for filters that must not meet those of the others."""
        board = Board(self.stats)
        self._add_extra(board, "overlaps", f"-{next(self._suffixes)}")
        return board

    def _make_lasting(self) -> LastingBoards:
        from commlib.transports._mqtt_lasting import LastingBoards  # hardly any program needs it

        return LastingBoards(self._open_lasting, self._close_board)

    def _open_lasting(self, suffix: str) -> LastingBoard:
        """A further connection, of which the broker keeps the session."""
        from commlib.transports._mqtt_lasting import LastingBoard

        board = LastingBoard(self.stats, self._name)
        self._add_extra(board, "lasting", suffix, board.prepare)
        return board

    def _add_extra(
        self,
        board: Board,
        role: str,
        suffix: str,
        prepare: Callable[[MqttLink], None] | None = None,
    ) -> None:
        async def dial_extra() -> MqttLink:
            if self._link is None:
                raise ConnectError(f"{self._name}: a further connection waits for the first one")
            link = await self._dial(self._link.version, suffix, prepare)
            try:
                if prepare is not None:
                    self._heed_session(link)
                await board.restore(link)
            except BaseException:
                board.attach(None)
                await link.give_up()
                raise
            return link

        def on_link(link: Link | None) -> None:
            if link is None:
                board.attach(None)

        session = self._extra[board] = self._sessions.add(role, dial_extra, on_link)
        if self._link is not None:  # else it begins with the first one
            session.start()

    def _heed_session(self, link: MqttLink) -> None:
        """Say so if the broker does not keep a session for as long as it was asked to."""
        wanted, granted = self.params.session_expiry, link.granted.session_expiry
        if link.version == V311:
            self._warn_once(
                f"session_expiry={wanted:g}: MQTT 3.1.1 knows no such time; the broker keeps what "
                "comes for as long as it is set to"
            )
        elif granted is not None and granted < min(wanted, FOREVER):
            self._warn_once(
                f"session_expiry={wanted:g}: the broker keeps what comes for {granted} s only"
            )

    def _close_board(self, board: Board) -> None:
        session = self._extra.pop(board, None)
        if session is not None:  # else all is being closed
            leaving = asyncio.get_running_loop().create_task(self._leave(session))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)


_client_ids: dict[tuple[str, str], weakref.ref[MqttTransport]] = {}


def _traits(version: int, *, competing: bool, lasting: bool) -> Traits:
    return Traits(
        competing=competing,
        native_wildcards=MQTT_WILDCARDS,
        never_in_names=MQTT_WILDCARDS,  # MQTT 3.1.1, section 4.7.1
        separator="/",
        header_beside_bare=version == V5,
        delivery_levels=(0, 1, 2),
        retained=True,
        lasting=lasting,
        takes_parts=True,
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
