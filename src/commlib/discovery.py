"""Discovery, from plain Python; ``commlib.aio.discovery`` has the same for asyncio.

::

    with Discovery("redis://localhost") as discovery:
        for node in discovery.ask():
            print(node.name, [endpoint.name for endpoint in node.endpoints])
"""

from __future__ import annotations

from typing import Unpack

from commlib import _face
from commlib.aio import discovery
from commlib.aio._endpoint import Options, Params
from commlib.aio.discovery import ChangeHandler
from commlib.aio.discovery import EndpointInfo as EndpointInfo
from commlib.aio.discovery import Mismatch as Mismatch
from commlib.aio.discovery import NodeInfo as NodeInfo

__all__ = ["Discovery", "EndpointInfo", "Mismatch", "NodeInfo"]


class Discovery(_face.Endpoint[discovery.Discovery]):
    """The nodes on a broker, kept up to date from ``run()`` to ``stop()``.

    ``on_change(event, node)`` is told of a node that came (``birth``), changed (``change``) or went
    (``death``); called as other callbacks are: one at a time and in order, a plain function on a
    worker thread, a coroutine function on the loop. Options: ``commlib.aio.options.Options``.
    """

    def __init__(
        self,
        conn_params: Params = None,
        on_change: ChangeHandler | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            discovery.Discovery(self._params(conn_params, options), on_change, **options)
        )

    @property
    def nodes(self) -> list[NodeInfo]:
        """The nodes that are known now, by name."""
        return self._core.nodes

    @property
    def mismatches(self) -> list[Mismatch]:
        """The ports that do not go together."""
        return self._core.mismatches

    def ask(self, wait: float = 1.0) -> list[NodeInfo]:
        """Ask who is there: the nodes, as soon as no more answers come, after ``wait`` s at most.

        Those that were known before and are not heard of meanwhile are among them. One that does
        not run yet is run. Raises EndpointClosed after ``stop()``, and what ``run`` raises.
        """
        return self._started().run(self._core.ask, wait)

    def ping(self, node: NodeInfo, timeout: float = 1.0) -> float:
        """How many seconds the process of a node takes to answer.

        Raises TimeoutError, and what ``ask`` raises.
        """
        return self._started().run(self._core.ping, node, timeout)
