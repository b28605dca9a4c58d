"""The fixtures of ``commlib.testing``; pytest finds them by an entry point.

Each run of pytest imports this where commlib is installed, so nothing else of commlib is imported
before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from commlib.testing import Capture, MemoryBroker


@pytest.fixture
def commlib_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBroker]:
    """A broker of this test's own, a ``commlib.testing.MemoryBroker``; ``url`` is its address.

    COMMLIB_URL leads to it for as long as the test lasts. After it, synchronous nodes that still
    use the broker are stopped.
    """
    from commlib.testing import MemoryBroker

    with MemoryBroker() as broker:
        monkeypatch.setenv("COMMLIB_URL", broker.url)
        yield broker


@pytest.fixture
def commlib_node(commlib_broker: MemoryBroker) -> Iterator[Callable[..., Any]]:
    """Makes and runs synchronous nodes on the broker of this test, and stops them after it.

    ``commlib_node("name", **options)`` makes a ``Node``, ``commlib_node(Robot, ...)`` calls that
    with the arguments: a class of nodes, or anything that returns something with ``run()`` and
    ``stop()`` and finds its broker by COMMLIB_URL.
    """
    with ExitStack() as running:

        def make(kind: Any = "", *args: Any, **options: Any) -> Any:
            if isinstance(kind, str):
                from commlib.node import Node

                args, kind = (kind, *args), Node
            node = kind(*args, **options)
            running.callback(node.stop)
            node.run()
            return node

        yield make


@pytest.fixture
def commlib_messages(commlib_broker: MemoryBroker) -> Iterator[Callable[..., Capture[Any]]]:
    """Records messages: ``commlib_messages(topic, msg_type)`` gives a ``commlib.testing.Capture``.

    The topic may be a pattern; without a ``msg_type`` the messages are plain decoded data.
    """
    with ExitStack() as open_ones:

        def capture(topic: str, msg_type: type[Any] | None = None) -> Capture[Any]:
            return open_ones.enter_context(commlib_broker.capture(topic, msg_type))

        yield capture
