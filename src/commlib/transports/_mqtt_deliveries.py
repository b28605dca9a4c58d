"""Messages at QoS 1 and 2 on their way out, until the broker has taken them over.

Theory. At QoS 1 the broker answers PUBLISH with PUBACK. At QoS 2 it answers with PUBREC, we say
PUBREL, it says PUBCOMP. At most ``link.granted.window`` of them may be unanswered. Sessions are
clean, so a new connection knows nothing of the last one: what was not answered to the end is sent
again at QoS 1 (at least once), and given up and counted at QoS 2 (exactly once: the broker may have
had it). That may be the very message for which the broker has ended the connection. So all that
were under way go one by one then, and one with which the connection was lost several times is given
up.

Source: MQTT 5.0, sections 4.3 and 4.9.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from commlib.exceptions import ConnectError
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_bytes import u16
from commlib.transports._mqtt_codes import (
    FAILURE,
    PACKET_TOO_LARGE,
    QOS_NOT_SUPPORTED,
    RETAIN_NOT_SUPPORTED,
    refusal,
)
from commlib.transports._mqtt_link import MqttLink
from commlib.transports.base import LinkStats

MAX_LOSSES = 3
MAX_WAITING = 1000  # taken from the outbox while the window is full; beyond, that has no room


class Delivery(Struct):
    """One message: its frame is cut at ``split``, where its packet identifier belongs."""

    topic: str
    qos: int
    split: int
    born: float
    """When it was published, by the monotonic clock."""
    frame: bytes = b""
    losses: int = 0
    """How often the connection was lost while it was under way."""


class Deliveries:
    """All of them on one transport; an outbox takes it for a link.

    ``on_refused`` is told the topic and why, and counts, ``on_room`` whether more is taken.
    """

    def __init__(self, stats: LinkStats, on_refused: Callable[[str, Exception], None]) -> None:
        self._stats = stats
        self._on_refused = on_refused
        self._link: MqttLink | None = None
        self._is_full = False
        self._one_by_one = 0  # so many messages yet
        self.on_room: Callable[[bool], None] = lambda room: None
        self._waiting: deque[Delivery] = deque()
        self._under_way: dict[int, Delivery] = {}
        self._idle: list[asyncio.Future[None]] = []

    def attach(self, link: MqttLink) -> None:
        """There is a connection."""
        self._link = link
        link.on_acknowledged = self._acknowledged

    def detach(self) -> list[Delivery]:
        """The connection is away; returns what is still to be sent, again or for the first time."""
        self._link = None
        again = []
        self._one_by_one = max(self._one_by_one, len(self._under_way))
        for index, delivery in enumerate(self._under_way.values()):
            delivery.losses += index == 0  # the broker takes them in this order
            if delivery.qos == 1 and delivery.losses < MAX_LOSSES:
                again.append(delivery)
            else:
                self._stats.unconfirmed += 1
        again += self._waiting
        self._under_way.clear()
        self._waiting.clear()
        self._is_full = False
        self._note_idle()
        return again

    # What the outbox sees of a link.

    def write(self, parts: Iterable[bytes], notes: Iterable[object], /) -> None:
        """Take messages over; each note is its Delivery."""
        for frame, note in zip(parts, notes, strict=True):
            assert isinstance(note, Delivery), "nothing else is put into this outbox"
            note.frame = frame
            self._waiting.append(note)
        self._pump()

    def write_now(self, frame: bytes, note: object, /) -> bool:
        """Never: there is a window to be kept."""
        return False

    @property
    def is_idle(self) -> bool:
        """Whether the broker has taken over all that was written."""
        return not (self._waiting or self._under_way)

    async def drained(self) -> None:
        """Return when the broker has taken over all that was written."""
        if not self.is_idle:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    # Inside.

    def _pump(self) -> None:
        link = self._link
        if link is None:
            return
        out = []
        window = 1 if self._one_by_one else link.granted.window
        while self._waiting and len(self._under_way) < window:
            delivery = self._waiting.popleft()
            if code := _reason_against(delivery, link):
                self._refuse(delivery, code)
                continue
            packet_id = link.take_id()
            self._under_way[packet_id] = delivery
            frame, split = delivery.frame, delivery.split
            out.append(frame[:split] + u16.pack(packet_id) + frame[split:])
        if out:
            link.write(out, ())
        is_full = len(self._waiting) >= MAX_WAITING
        if is_full != self._is_full:
            self._is_full = is_full
            self.on_room(not is_full)
        self._note_idle()

    def _note_idle(self) -> None:
        if self.is_idle:
            for waiter in self._idle:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle.clear()

    def _acknowledged(self, kind: int, packet_id: int, code: int) -> None:
        delivery = self._under_way.get(packet_id)
        assert self._link is not None, "it is the link that tells of this"
        if delivery is None:
            return  # a second answer, or one to what we have given up
        if code >= FAILURE and kind != frames.PUBCOMP:  # there it says that it has forgotten us
            self._refuse(delivery, code)
        elif kind == frames.PUBREC:
            self._link.write([frames.acknowledge(frames.PUBREL, packet_id)], ())
            return
        del self._under_way[packet_id]
        self._one_by_one = max(self._one_by_one - 1, 0)
        self._link.give_id_back(packet_id)
        self._pump()

    def _refuse(self, delivery: Delivery, code: int) -> None:
        self._on_refused(delivery.topic, refusal(delivery.topic, code, "", ConnectError))


def _reason_against(delivery: Delivery, link: MqttLink) -> int:
    """Why the broker would end the connection for this message, again and again; 0 if it won't.

    It was written for a broker that could do more, or before it was known what this one can.
    """
    if delivery.qos > link.granted.max_qos:
        return QOS_NOT_SUPPORTED
    if delivery.frame[0] & frames.RETAIN and not link.granted.retains:
        return RETAIN_NOT_SUPPORTED
    return PACKET_TOO_LARGE if len(delivery.frame) + 2 > link.granted.max_packet else 0
