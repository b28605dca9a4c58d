"""What stands for a frame on its way, where more has to be known than where it goes."""

from __future__ import annotations

from typing import Protocol

from commlib.transports import _amqp_methods as methods

ACK_BYTES = len(methods.ack(0, 0))


class Request(Protocol):
    """A request that the broker has handed over."""

    def ack(self) -> bytes:
        """What acknowledges it; nothing if the broker does not know it any more."""
        ...


class Settling(str):
    """A reply that begins with the acknowledgement of its request."""

    __slots__ = ("request",)
    request: Request


class Asking(str):
    """A request of ours: its token is noted in ``sent`` when it is written."""

    __slots__ = ("sent", "token")
    sent: set[str]
    token: str


def without_stale_ack(frame: bytes, note: object) -> bytes:
    """A reply as it is written when its request may not be known to the broker any more."""
    if isinstance(note, Settling) and not note.request.ack():
        return frame[ACK_BYTES:]
    return frame
