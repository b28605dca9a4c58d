"""Whether the broker has said yes to a subscription."""

from __future__ import annotations

import asyncio
import logging

from commlib.exceptions import CommlibError

log = logging.getLogger("commlib.session")


class Confirmation:
    """A name or pattern that the broker was asked for.

    ``confirmed`` is done when it has answered.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def renew(self) -> None:
        """The broker has to confirm again."""
        if self.confirmed.done():
            self.confirmed = self.confirmed.get_loop().create_future()

    def confirm(self, error: CommlibError | None) -> None:
        """The broker has said yes, or why not."""
        if self.confirmed.done():
            return
        if error is None:
            self.confirmed.set_result(None)
            return
        log.warning("%s cannot be subscribed: %s", self.topic, error)
        self.confirmed.set_exception(error)
        self.confirmed.exception()  # marked as seen: after a reconnection nobody waits for it
