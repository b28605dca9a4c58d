"""Events: something has happened, and whoever listens at its address is told."""

from __future__ import annotations

from typing import Any, Unpack

from commlib._topics import check_topic
from commlib.aio._endpoint import Params
from commlib.aio.pubsub import PublisherOptions, Sender
from commlib.msg import Object

__all__ = ["Event", "EventEmitter"]


class Event(Object):
    """What has happened; ``uri`` is the topic on which it is told.

    An ordinary subscriber of that topic receives it, with ``msg_type=Event`` as one of these.
    """

    name: str
    uri: str
    description: str = ""
    payload: dict[str, Any] = {}


class EventEmitter(Sender[Event]):
    """Sends events, each to an address of its own, on one connection.

    ``name`` is for the log. Options: ``commlib.aio.pubsub.PublisherOptions``.
    """

    def __init__(
        self, name: str = "", conn_params: Params = None, **options: Unpack[PublisherOptions]
    ) -> None:
        super().__init__(name or "eventemitter", Event, conn_params, **options)

    async def send_event(self, event: Event) -> None:
        """Tell every live subscriber of ``event.uri``; otherwise as ``Publisher.publish``.

        Raises also ValueError for a ``uri`` that is empty, a pattern, or otherwise no name.
        """
        await self._publish(event, check_topic(event.uri, "uri"))
