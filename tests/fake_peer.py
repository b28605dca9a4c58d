"""A peer that takes itself for a broker, or does not: what it sends is up to the test."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Self


class FakePeer(ABC):
    """Listens on a free port; ``_talk`` says what it does with each client.

    ``fragments``: how many bytes it sends at a time.
    """

    scheme: ClassVar[str]

    def __init__(self) -> None:
        self.connects = 0
        self.fragments = 1 << 20
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        self.hang_up()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}?connect_timeout=3"

    @property
    def hasty_url(self) -> str:
        """For a client that soon gives up one who says nothing."""
        return f"{self.scheme}://127.0.0.1:{self.port}?connect_timeout=0.2"

    def hang_up(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError):
            pass  # the client has gone
        finally:
            writer.close()
            self._writers.discard(writer)

    @abstractmethod
    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to a client until it has gone."""

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(0, len(data), self.fragments):
            writer.write(data[at : at + self.fragments])
            await writer.drain()
            await asyncio.sleep(0)
