"""An MQTT link whose broker is played by the test, byte for byte."""

from __future__ import annotations

from commlib.transports import _mqtt_bytes as wire
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_link import MqttLink
from played_socket import PlayedSocket


class Wire(PlayedSocket[MqttLink]):
    """The socket of a link: keeps what is written, and lets the test say what comes."""

    def __init__(self, version: int, limit: int = 1000) -> None:
        super().__init__(MqttLink("robot", version, limit))
        self.version = version

    def packets(self) -> list[bytes]:
        """What was written since the last look, packet by packet."""
        data, found = b"".join(self.written), []
        self.written.clear()
        while data:
            size, start = wire.read_length(data, 1)
            found.append(data[: start + size])
            data = data[start + size :]
        return found

    def publish(
        self, topic: str, payload: bytes, flags: int = 0, properties: bytes | None = None
    ) -> bytes:
        """A PUBLISH of the broker's at QoS 0."""
        if properties is None:
            properties = frames.NO_PROPERTIES if self.version == 5 else b""
        return bytes(frames.publish(wire.text(topic), payload, flags, properties))
