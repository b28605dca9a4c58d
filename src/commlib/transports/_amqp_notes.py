"""What stands for a frame on its way, where more has to be known than where it goes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from commlib._parts import Frame, head_of, with_head
from commlib.transports import _amqp_methods as methods

ACK_BYTES = len(methods.ack(0, 0))


class Request(Protocol):
    """A request that the broker has handed over."""

    def ack(self) -> bytes:
        """What acknowledges it; nothing if the broker does not know it any more."""
        ...


class Settling(str):
    """A reply that begins with the acknowledgement of its request, if ``request`` is set."""

    __slots__ = ("request",)
    request: Request | None


class Asking(str):
    """A request of ours.

    It is wanted as long as its token is in ``open``; that it was written is noted in ``sent``.
    """

    __slots__ = ("open", "sent", "token")
    open: set[str]
    sent: set[str]
    token: str


def stays(note: object) -> bool:
    """Whether a frame is written however long it has waited.

    A question of ``confirm``, and a reply: it acknowledges its request.
    """
    return isinstance(note, asyncio.Future | Settling)


def revised(frame: Frame, note: object) -> Frame | None:
    """A frame that has waited as it is to be written now.

    A reply goes without an acknowledgement that the broker would not understand any more, a request
    that nobody waits for does not go at all.
    """
    if isinstance(note, Settling) and note.request is not None and not note.request.ack():
        note.request = None
        return with_head(frame, head_of(frame)[ACK_BYTES:])
    if isinstance(note, Asking) and note.token not in note.open:
        return None
    return frame
