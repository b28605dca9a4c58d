"""Events, from plain Python; ``commlib.aio`` has the same for asyncio."""

from __future__ import annotations

from typing import Unpack

from commlib import aio
from commlib._face import params_anywhere
from commlib._topics import check_topic
from commlib.aio._endpoint import Params
from commlib.aio.events import Event
from commlib.aio.pubsub import PublisherOptions
from commlib.pubsub import _Sender

__all__ = ["Event", "EventEmitter"]


class EventEmitter(_Sender[Event]):
    """Sends events, each to an address of its own, on one connection; usable as soon as it is made.

    With ``offline="raise"`` that is once it is connected: ``wait_connected()``. ``name`` is for the
    log. ``conn_params``: parameters or a URL. Options: ``commlib.aio.pubsub.PublisherOptions``.
    """

    @params_anywhere
    def __init__(
        self, name: str = "", conn_params: Params = None, **options: Unpack[PublisherOptions]
    ) -> None:
        params = self._params(conn_params, options)
        super().__init__(aio.EventEmitter(name, params, **options))
        self._started()

    def send_event(self, event: Event) -> None:
        """Tell every live subscriber of ``event.uri``; otherwise as ``Publisher.publish``.

        Raises also ValueError for a ``uri`` that is empty, a pattern, or otherwise no name.
        """
        self._publish(event, check_topic(event.uri, "uri"))
