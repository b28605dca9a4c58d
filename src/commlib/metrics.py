"""The counters of nodes as Prometheus metrics: ``pip install "commlib-py[metrics]"``.

They are read when somebody scrapes them, so that no message pays for it::

    from prometheus_client import start_http_server

    export(node)            # one node, or several
    start_http_server(8000)

All metrics and their labels stand in docs/metrics.md. A node is shown from its making on until it
is stopped, and again when it is run again; this keeps no node alive. There is one series for each
endpoint, however many messages or topics go through it: ``max_endpoints`` bounds them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as exc:
    if exc.name != "prometheus_client":
        raise
    from commlib.exceptions import MissingDriver

    text = 'prometheus_client is missing: pip install "commlib-py[metrics]"'
    raise MissingDriver(text) from exc

from commlib import aio
from commlib._readings import Readings
from commlib.aio._hub import copied, hubs

if TYPE_CHECKING:
    from commlib.node import Node

__all__ = ["NodeCollector", "export"]

MAX_ENDPOINTS = 1000

_exported: WeakKeyDictionary[CollectorRegistry, NodeCollector] = WeakKeyDictionary()
_lock = threading.Lock()


class NodeCollector(Collector):
    """Reads the counters of nodes, of either face, whenever it is asked.

    Without ``nodes`` it is all nodes of this process, those that are made later too. The first
    ``max_endpoints`` endpoints of a node have a series each, all others one together for each kind,
    with the name ``(others)``. Raises ValueError for what is no such number.
    """

    def __init__(self, *nodes: Node | aio.Node, max_endpoints: int = MAX_ENDPOINTS) -> None:
        if not isinstance(max_endpoints, int) or max_endpoints < 0:
            raise ValueError(f"max_endpoints={max_endpoints!r}: it is a number of endpoints")
        self._max_endpoints = max_endpoints
        self._shows_all = not nodes
        self._nodes: WeakSet[aio.Node] = WeakSet()
        self._lock = threading.Lock()
        for node in nodes:
            self.add(node)

    def add(self, node: Node | aio.Node) -> None:
        """Show one more node. From any thread. Raises TypeError for what is no node."""
        either: Any = node
        core = getattr(either, "_core", either)
        if not isinstance(core, aio.Node):
            raise TypeError(f"{node!r} is no Node: give it the node of an endpoint")
        with self._lock:
            self._nodes.add(core)

    def describe(self) -> Iterable[Metric]:
        """The metrics, without a sample: so two collectors of one registry are told apart."""
        return Readings(self._max_endpoints).metrics()

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now. From any thread."""
        readings = Readings(self._max_endpoints)
        for node in self._alive():
            readings.read(node)
        return readings.metrics()

    def _alive(self) -> list[aio.Node]:
        with self._lock:
            nodes = list(_all_nodes() if self._shows_all else self._nodes)
        return sorted((node for node in nodes if node.alive), key=lambda node: node.node_name)


def _all_nodes() -> Iterator[aio.Node]:
    for hub in copied(hubs):
        yield from hub.nodes()


def export(node: Node | aio.Node, registry: CollectorRegistry | None = None) -> NodeCollector:
    """Show a node in a registry, by default Prometheus's own; others that are there stay.

    Returns the collector of that registry. Raises TypeError for what is no node, ValueError if the
    registry has a ``NodeCollector`` already that was not registered by this function.
    """
    registry = REGISTRY if registry is None else registry
    with _lock:
        collector = _exported.get(registry)
        if collector is None:
            collector = NodeCollector(node)
            registry.register(collector)
            _exported[registry] = collector
            return collector
        collector.add(node)
        with suppress(ValueError):  # it is there, unless somebody has taken it out
            registry.register(collector)
    return collector
