"""A broker in this process, to which the connection breaks when the test says so."""

from __future__ import annotations

from dataclasses import dataclass

from commlib._packet import Packet
from commlib.exceptions import ConnectionLost
from commlib.transports.memory import ConnectionParameters, MemoryTransport


class FickleTransport(MemoryTransport):
    """A connection to a broker of ``memory://`` over which, while it is away, nothing is sent."""

    is_away = False

    def turn(self, connected: bool) -> None:
        """The connection breaks, or comes back. On the loop."""
        self.is_away = not connected
        self.on_state(connected, None if connected else ConnectionLost("gone"))

    @property
    def connected(self) -> bool:
        return super().connected and not self.is_away

    def publish(self, topic: str, packet: Packet) -> bool:
        if self.is_away:
            raise ConnectionLost("away")
        return super().publish(topic, packet)


@dataclass
class Fickle(ConnectionParameters):
    """Parameters of such a connection; the others of that broker are not concerned."""

    def make_transport(self) -> FickleTransport:
        return FickleTransport(self)
