"""An MQTT link whose broker is played by the test, byte for byte."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from commlib.transports import _mqtt_bytes as wire
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_link import MqttLink


class Wire:
    """The socket of a link: keeps what is written, and lets the test say what comes."""

    def __init__(self, version: int, limit: int = 1000) -> None:
        self.link = MqttLink("robot", version, limit)
        self.version = version
        self.written: list[bytes] = []
        self.is_cut = False
        self.link.connection_made(cast("asyncio.Transport", self))

    def comes(self, data: bytes, at_once: int = 1_000_000) -> None:
        """The link receives this, in pieces of at most so many bytes."""
        for start in range(0, len(data), at_once):
            piece = data[start : start + at_once]
            while piece and not self.is_cut:
                buffer = self.link.get_buffer(-1)
                taken = min(len(buffer), len(piece))
                buffer[:taken] = piece[:taken]
                self.link.buffer_updated(taken)
                piece = piece[taken:]

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
        return frames.publish(wire.text(topic), payload, flags, properties)

    # What the link sees of asyncio.

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        if not self.is_cut:
            self.is_cut = True
            asyncio.get_running_loop().call_soon(self.link.connection_lost, None)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.abort()  # the broker closes its end at once

    def is_closing(self) -> bool:
        return self.is_cut

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return _Socket() if name == "socket" else None


class _Socket:
    """What a link needs to know of a socket."""

    family = socket.AF_UNIX

    def setsockopt(self, *option: int) -> None:
        """There is nothing to set."""
