"""A broker of a test's own, in this process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from commlib import _portal
from commlib._face import stop
from commlib._typing import T
from commlib.testing._capture import Capture
from commlib.testing._faults import Faults
from commlib.testing._tested import TestedBroker
from commlib.transports.memory import ConnectionParameters, _brokers


class MemoryBroker:
    """A broker in this process that nobody else knows of, from its making to ``close()``.

    Nodes reach it by its ``url``, synchronous ones and those of ``commlib.aio`` on any loop, and
    work there as on any other. It can be listened to, be cut off, and fail by a seed. From any
    thread; also a context manager.
    """

    def __init__(self) -> None:
        self._name = f"test-{os.urandom(6).hex()}"
        self._broker = _brokers[self._name] = TestedBroker()

    @property
    def url(self) -> str:
        """Where nodes find it, as ``connection_params`` or ``COMMLIB_URL``."""
        return f"memory://{self._name}"

    def __repr__(self) -> str:
        return f"<{self.url}>"

    def capture(self, topic: str, msg_type: type[T] | None = None) -> Capture[T]:
        """Record what is published on a topic or pattern from now on; see ``Capture``."""
        return Capture(self._broker, topic, msg_type)

    # What goes wrong.

    @property
    def faults(self) -> Faults | None:
        """What goes wrong from now on; None: nothing. Setting it counts the messages anew."""
        return self._broker.faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        self._broker.faults = faults

    @property
    def suffered(self) -> Counter[str]:
        """How often each fault has struck so far: ``cut``, ``dropped``, ``doubled``, ``delayed``.

        Those of messages that wait for their sender's connection are among them.
        """
        return +self._broker.suffered

    def cut(self, node_name: str | None = None) -> None:
        """Break the connection of a node, or all of them and those yet to come, until ``mend()``.

        A node that shares a connection loses that of all who share it, and is known by the URL.
        Raises ValueError for a node that is not here.
        """
        if node_name is None:
            self._broker.is_down = True
        for transport in self._broker.transports(node_name):
            transport.cut()

    def mend(self, node_name: str | None = None) -> None:
        """Let the connections that were cut come back; they do so soon after.

        Raises ValueError for a node that is not here.
        """
        if node_name is None:
            self._broker.is_down = False
        for transport in self._broker.transports(node_name):
            transport.mend()

    @contextmanager
    def outage(self, node_name: str | None = None) -> Iterator[None]:
        """``cut()``, and ``mend()`` at the end of the block."""
        self.cut(node_name)
        try:
            yield
        finally:
            self.mend(node_name)

    # The end.

    def close(self) -> None:
        """Stop the synchronous nodes that still use it, and forget it. Idempotent.

        Those of ``commlib.aio`` are for the program whose loop they are on.
        """
        self.faults = None
        portal = _portal._portal
        for hub in [] if portal is None else list(portal.hubs):
            params = hub.params
            if isinstance(params, ConnectionParameters) and params.name == self._name:
                stop(hub, hub.close)
        _brokers.pop(self._name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def capture(broker: MemoryBroker | str, topic: str, msg_type: type[T] | None = None) -> Capture[T]:
    """Record what is published on a ``MemoryBroker``, or the one with this URL; see ``Capture``.

    Raises ValueError for a URL that is that of none.
    """
    if isinstance(broker, MemoryBroker):
        return broker.capture(topic, msg_type)
    params = ConnectionParameters.from_url(broker)
    found = _brokers.get(params.name)
    if not isinstance(found, TestedBroker):
        raise ValueError(f"{params}: no MemoryBroker of commlib.testing has this URL")
    return Capture(found, topic, msg_type)
