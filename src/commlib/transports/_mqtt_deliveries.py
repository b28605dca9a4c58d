"""Messages at QoS 1 and 2 on their way out, until the broker has taken them over.

Theory. At QoS 1 the broker answers PUBLISH with PUBACK. At QoS 2 it answers with PUBREC, we say
PUBREL, it says PUBCOMP. At most ``link.granted.window`` of them may be unanswered. Sessions are
clean, so after a loss a message goes again at QoS 1 (at least once), and is given up and counted at
QoS 2 (exactly once: the broker may have had it).

Source: MQTT 5.0, sections 4.3 and 4.9.
"""

from __future__ import annotations

from collections.abc import Callable

from commlib._parts import Frame, head_of, with_head
from commlib.exceptions import ConnectError
from commlib.transports import _deliveries
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


class Delivery(_deliveries.Delivery):
    """One message: its frame is cut at ``split``, where its packet identifier belongs."""

    split: int = 0


class Deliveries(_deliveries.Deliveries[Delivery]):
    """All of them on one transport."""

    def __init__(self, stats: LinkStats, on_refused: Callable[[str, Exception], None]) -> None:
        super().__init__(stats, on_refused)
        self._link: MqttLink | None = None

    def attach(self, link: MqttLink) -> None:
        """There is a connection."""
        self._link = link
        link.on_acknowledged = self._acknowledged

    def detach(self) -> list[Delivery]:
        self._link = None
        return super().detach()

    @property
    def _window(self) -> int:
        return 0 if self._link is None else self._link.granted.window

    def _begin(self, delivery: Delivery) -> Frame:
        link = self._link
        assert link is not None, "else the window is shut"
        if code := _reason_against(delivery, link):
            self._refuse(delivery, code)
            return b""
        packet_id = link.take_id()
        self._under_way[packet_id] = delivery
        head, split = head_of(delivery.frame), delivery.split
        return with_head(delivery.frame, head[:split] + u16.pack(packet_id) + head[split:])

    def _write(self, out: list[Frame]) -> None:
        assert self._link is not None, "else the window is shut"
        self._link.write(out, ())

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
        self._end(packet_id)
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
    if head_of(delivery.frame)[0] & frames.RETAIN and not link.granted.retains:
        return RETAIN_NOT_SUPPORTED
    return PACKET_TOO_LARGE if len(delivery.frame) + 2 > link.granted.max_packet else 0
