"""The counters of nodes, put together as Prometheus has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from commlib import __version__
from commlib.aio._described import ANY_TOPIC, kind_of
from commlib.aio._endpoint import Endpoint
from commlib.aio._group import Group
from commlib.aio._hub import Hub

if TYPE_CHECKING:
    from commlib.aio.node import Node

OTHERS = "(others)"  # the name of the endpoints that have no series of their own

COUNTERS = {
    "sent": ("messages_sent", "Messages that were handed to the connection"),
    "received": ("messages_received", "Messages that came from the connection"),
    "refused": ("messages_refused", "Of those: garbage, of the wrong types, or too big"),
    "dropped": ("messages_dropped", "Messages that did not fit into a queue"),
    "expired": ("messages_expired", "Requests, or messages on a bridge, nobody waited for"),
    "errors": ("callback_errors", "Messages whose callback raised an error"),
    "duplicates": ("sequence_duplicates", "Messages that came twice, by the sender's numbers"),
    "reordered": ("sequence_reordered", "Messages that were overtaken, by the sender's numbers"),
    "repeated": ("requests_repeated", "Requests that had come before, and were not handled again"),
    "forwarded": ("messages_forwarded", "Messages that a bridge has handed to the other broker"),
    "looped": ("messages_looped", "Messages that a bridge has stopped, for they had been there"),
}
"""By the names of ``Stats``: the metric, and its help."""
INPUT = ("received", "refused", "dropped", "errors")
SEQUENCE = ("duplicates", "reordered")
OF_KIND = {
    "publisher": ("sent",),
    "subscriber": (*INPUT, *SEQUENCE),
    "service": ("sent", *INPUT, "expired", "repeated"),
    "client": ("sent", "received", "refused", "errors"),
    "action": ("sent", *INPUT, "expired", "repeated"),
    "action_client": ("sent", *INPUT, *SEQUENCE),
    "bridge": ("sent", *INPUT, "expired", "forwarded", "looped"),
}
LINK_COUNTERS = {
    "reconnects": ("reconnects", "How often the connection came back"),
    "unconfirmed": ("messages_unconfirmed", "Sent, but the connection broke before the answer"),
    "refused": ("messages_rejected", "Messages that the broker has refused"),
    "overflow": ("outbox_overflow", "Messages dropped because the outgoing queue was full"),
    "expired": ("outbox_expired", "Messages dropped because the broker was away for too long"),
    "garbage": ("garbage", "Frames that made no sense"),
}
"""The same of ``LinkStats``."""


class Port(NamedTuple):
    """The labels of an endpoint."""

    node: str
    kind: str
    name: str


class Named(NamedTuple):
    """The labels by which a node can be found."""

    node: str
    namespace: str
    version: str


class Link(NamedTuple):
    """The labels of a connection; ``node`` is empty if several nodes share it."""

    node: str
    broker: str


def kind_as_label(endpoint: Endpoint) -> str:
    """What an endpoint is; empty for a group, which is what its parts are."""
    from commlib.aio._bridge import Bridge

    kind: Any = type(endpoint)
    return "bridge" if isinstance(endpoint, Bridge) else kind_of(kind) or ""


def name_of(endpoint: Any, kind: str) -> str:
    """The topic or name of an endpoint; ``*`` if messages go to any."""
    if kind == "bridge":
        return str(endpoint.name)
    for name in ("topic", "rpc_name", "action_uri"):
        found = getattr(endpoint, name, None)
        if found is not None:
            return str(found)
    return ANY_TOPIC


def ports_of(endpoints: list[Endpoint]) -> Iterator[tuple[str, Endpoint]]:
    """All endpoints that were not stopped, each with its kind; those of groups one by one."""
    for endpoint in endpoints:
        kind = kind_as_label(endpoint)
        if endpoint.stopped:
            continue
        if kind:
            yield kind, endpoint
        elif isinstance(endpoint, Group):
            yield from ports_of(list(endpoint.parts))


class Readings:
    """What was read of some nodes; endpoints and connections with the same labels are added up."""

    def __init__(self, max_endpoints: int) -> None:
        self._max_endpoints = max_endpoints
        self._counts: dict[tuple[str, Port], int] = {}
        self._waiting: dict[Port, int] = {}
        self._missing: dict[Port, int] = {}
        self._ready: dict[Port, bool] = {}
        self._links: dict[tuple[str, Link], int] = {}
        self._late: dict[Link, int] = {}
        self._starved: dict[Link, int] = {}
        self._connected: dict[Link, bool] = {}
        self._healthy: dict[str, bool] = {}
        self._named: dict[tuple[str, str, str], int] = {}
        self._unlogged: dict[str, int] = {}
        self._seen: set[int] = set()

    def read(self, node: Node) -> None:
        """Take what a node has to tell. From any thread."""
        name = node.node_name
        self._healthy[name] = self._healthy.get(name, True) and node.health
        self._named[name, node.namespace, __version__] = 1
        logged = node._remote_logger
        if logged is not None:
            self._unlogged[name] = self._unlogged.get(name, 0) + logged.dropped
        self._read_link(node.hub, name)
        for number, (kind, endpoint) in enumerate(ports_of([*node.endpoints, *node._own])):
            label = name_of(endpoint, kind) if number < self._max_endpoints else OTHERS
            self._read_port(Port(name, kind, label), endpoint)

    def _read_port(self, port: Port, endpoint: Any) -> None:
        stats = endpoint.stats
        for field in OF_KIND[port.kind]:
            key = field, port
            self._counts[key] = self._counts.get(key, 0) + getattr(stats, field)
        lane = getattr(endpoint, "_lane", None)
        waiting = stats.waiting if port.kind == "bridge" else lane.waiting if lane else 0
        if port.kind not in ("publisher", "client"):
            self._waiting[port] = self._waiting.get(port, 0) + waiting
        if port.kind in ("subscriber", "action_client"):
            self._missing[port] = self._missing.get(port, 0) + stats.gaps
        self._ready[port] = self._ready.get(port, True) and endpoint.ready
        if port.kind == "bridge":
            self._read_link(endpoint.hub, port.node)
            self._read_link(endpoint.sink, port.node)

    def _read_link(self, hub: Hub, node: str) -> None:
        if id(hub) in self._seen:
            return
        self._seen.add(id(hub))
        link = Link(node if len(hub.nodes()) <= 1 else "", str(hub.params))
        stats = hub.link_stats
        for field in LINK_COUNTERS:
            key = field, link
            self._links[key] = self._links.get(key, 0) + getattr(stats, field)
        self._late[link] = self._late.get(link, 0) + hub.caller.late
        self._starved[link] = self._starved.get(link, 0) + hub.workers.starved
        self._connected[link] = self._connected.get(link, True) and hub.transport.connected

    def metrics(self) -> Iterator[Metric]:
        """All of it."""
        yield _gauge("node_info", "The nodes of this process", Named._fields, self._named)
        text = "Whether a node runs, is connected, and the broker has confirmed all its endpoints"
        yield _gauge("node_healthy", text, ("node",), _listed(self._healthy))
        yield _counter(
            "log_records_dropped", "Of the remote log", ("node",), _listed(self._unlogged)
        )
        text = "Whether the connection to the broker is there"
        yield _gauge("connected", text, Link._fields, self._connected)
        for field, (name, text) in LINK_COUNTERS.items():
            yield _counter(name, text, Link._fields, _of(self._links, field))
        text = "Replies that came after their call had ended"
        yield _counter("replies_late", text, Link._fields, self._late)
        text = "How often a callback waited because all threads for callbacks were busy"
        yield _counter("callbacks_starved", text, Link._fields, self._starved)
        text = "Whether the broker has confirmed all that an endpoint needs"
        yield _gauge("endpoint_ready", text, Port._fields, self._ready)
        text = "Messages that wait for their callback, or on a bridge for the other broker"
        yield _gauge("messages_waiting", text, Port._fields, self._waiting)
        # No counter: one that was only late is taken off again.
        text = "Messages that did not come, or were dropped here, by the sender's numbers"
        yield _gauge("messages_missing", text, Port._fields, self._missing)
        for field, (name, text) in COUNTERS.items():
            yield _counter(name, text, Port._fields, _of(self._counts, field))


def _listed(values: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    return {(name,): value for name, value in values.items()}


def _of(values: dict[tuple[str, Any], int], field: str) -> dict[tuple[str, ...], int]:
    return {labels: value for (name, labels), value in values.items() if name == field}


def _counter(name: str, text: str, labels: tuple[str, ...], values: Any) -> Metric:
    return _filled(CounterMetricFamily(f"commlib_{name}", text, labels=labels), values)


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Any) -> Metric:
    return _filled(GaugeMetricFamily(f"commlib_{name}", text, labels=labels), values)


def _filled(family: Any, values: Any) -> Metric:
    for labels, value in values.items():
        family.add_metric(list(labels), float(value))
    metric: Metric = family
    return metric
