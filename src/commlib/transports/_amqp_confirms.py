"""Messages that the broker is to confirm (QoS 1), on a channel of their own.

Theory. The broker numbers what comes on the channel from 1, and says by these numbers what it has
taken over: ``basic.ack`` (one, or all up to one) and ``basic.nack``. If it closes the channel for
an error, it says at most for which topic: if not even that, they go one by one, and what it is
closed for with one alone under way is that one.

Source: rabbitmq.com/confirms.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from commlib._parts import Frame
from commlib.exceptions import CommlibError, ConnectError
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_channel import Channel
from commlib.transports._amqp_codes import refused_topic
from commlib.transports._amqp_link import AmqpLink
from commlib.transports._amqp_methods import CONFIRMED
from commlib.transports._deliveries import Deliveries, Delivery
from commlib.transports.base import LinkStats

WINDOW = 1000  # that may be unanswered; RabbitMQ confirms in batches


class Confirms(Deliveries[Delivery]):
    """All of them on one transport."""

    def __init__(self, stats: LinkStats, on_refused: Callable[[str, Exception], None]) -> None:
        super().__init__(stats, on_refused)
        self._link: AmqpLink | None = None
        self._number = 0
        self._is_selected = False
        self._is_selecting = False

    def attach(self, link: AmqpLink) -> None:
        """There is a connection; its channel is opened when it is needed."""
        self._link = link

    def detach(self) -> list[Delivery]:
        self._link = None
        self._is_selected = self._is_selecting = False
        return super().detach()

    def resume(self) -> None:
        """What kept us from writing is over."""
        self._pump()

    def expire(self, oldest: float) -> None:
        """Give up what waits and was published before ``oldest``; ``resume`` then."""
        waiting = [delivery for delivery in self._waiting if delivery.born >= oldest]
        self._stats.expired += len(self._waiting) - len(waiting)
        self._waiting = deque(waiting)
        self._waiting_bytes = sum(len(delivery.frame) for delivery in waiting)

    @property
    def _window(self) -> int:
        link = self._link
        return 0 if link is None or link.is_held or not self._is_selected else WINDOW

    def _pump(self) -> None:
        link = self._link
        if link is not None and not (link.is_held or self._is_selected):
            self._select(link)
        super()._pump()

    def _select(self, link: AmqpLink) -> None:
        """Ask for confirmations, if that was not done, and write when the broker agrees."""
        if CONFIRMED in link.channels:
            return
        channel = link.channel(CONFIRMED)
        channel.on_ack = self._acknowledged
        channel.on_reset = lambda error: self._reset(channel, error)
        self._ask(channel)

    def _ask(self, channel: Channel) -> None:
        if not self._is_selecting:  # else the channel asks it again by itself
            self._is_selecting = True
            channel.ask(methods.select(CONFIRMED)).add_done_callback(self._selected)

    def _selected(self, answer: asyncio.Future[bytes]) -> None:
        self._is_selecting = False
        if answer.exception() is None and self._link is not None:
            self._is_selected, self._number = True, 0
            self._pump()

    def _begin(self, delivery: Delivery) -> Frame:
        self._number += 1
        self._under_way[self._number] = delivery
        return delivery.frame

    def _write(self, out: list[Frame]) -> None:
        assert self._link is not None, "else the window is shut"
        self._link.write(out, ())

    def _acknowledged(self, number: int, multiple: bool, is_yes: bool) -> None:
        numbers = [number]
        if multiple:  # they are in order, and 0 stands for all
            numbers = [n for n in self._under_way if n <= number or not number]
        for each in numbers:
            delivery = self._under_way.get(each)
            if delivery is None:
                continue
            if not is_yes:
                topic = delivery.topic
                self._on_refused(topic, ConnectError(f"{topic}: the broker could not take it"))
            self._end(each)
        self._pump()

    def _reset(self, channel: Channel, error: CommlibError) -> None:
        """The broker has closed the channel: it numbers anew."""
        self._is_selected = False
        under_way = list(self._under_way.values())
        self._under_way.clear()
        topic = refused_topic(error)
        is_alone = len(under_way) == 1
        others = [each for each in under_way if each.topic != topic and not is_alone]
        for delivery in under_way:
            if delivery.topic == topic or is_alone:
                self._on_refused(delivery.topic, error)
        self._wait_again(others)
        if is_alone:
            self._one_by_one = max(self._one_by_one - 1, 0)
        elif len(others) == len(under_way):
            self._one_by_one = max(self._one_by_one, len(others))
        self._ask(channel)
