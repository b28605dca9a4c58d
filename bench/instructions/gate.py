"""What stands between a broker and who is counted, so that a burst arrives in one piece.

A broker writes what it has when it has it. Read in three pieces instead of one, a burst costs two
more turns of the loop. The gate waits until the broker has said nothing for a while.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

READ_BYTES = 1 << 20


class Gate:
    """Passes on to the broker at ``url`` what comes to ``self.url``, and back after ``quiet`` s."""

    def __init__(self, url: str, quiet: float) -> None:
        self._place = urlsplit(url)
        self._quiet = quiet
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]

    @property
    def url(self) -> str:
        """Where the counted process connects to."""
        user = self._place.netloc.rpartition("@")[:2]
        port = self._listening.getsockname()[1]
        return self._place._replace(netloc="".join((*user, f"127.0.0.1:{port}"))).geturl()

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for sock in self._sockets:
            with suppress(OSError):  # it was reset
                sock.shutdown(socket.SHUT_RDWR)  # which wakes the thread that waits there
            sock.close()

    def _begin(self, work: object, *args: object) -> None:
        threading.Thread(target=_unless_it_breaks, args=(work, *args), daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listening.accept()
            far = socket.create_connection(("127.0.0.1", self._place.port or 0))
            self._sockets += [near, far]
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._begin(_pass, near, far, 0.0)
            self._begin(_pass, far, near, self._quiet)


def _pass(source: socket.socket, to: socket.socket, quiet: float) -> None:
    """Hand on what comes, in one piece what comes without a pause."""
    while data := source.recv(READ_BYTES):
        while quiet and select.select([source], [], [], quiet)[0]:
            more = source.recv(READ_BYTES)
            if not more:
                break
            data += more
        to.sendall(data)
    to.shutdown(socket.SHUT_WR)


def _unless_it_breaks(work: object, *args: object) -> None:
    assert callable(work)
    with suppress(OSError):  # one end is gone, so is the other soon
        work(*args)
