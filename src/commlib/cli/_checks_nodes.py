"""Checks of `commlib doctor` on what nodes tell of themselves. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec

from commlib._discovery import Kind, Mismatch, NodeInfo, mismatches
from commlib.cli._figures import counted
from commlib.cli._findings import Finding, good, listed
from commlib.cli._topic_ports import told_matcher
from commlib.transports.base import Traits

UNHEARD = (
    "or it does not tell of itself: nodes with discovery=False, and those of commlib-py before 1.0"
)


def check_nodes(
    nodes: Sequence[NodeInfo], traits: Traits, heard: Collection[str]
) -> Iterator[Finding]:
    """All that does not go together. ``heard`` are topics on which something was published."""
    if not nodes:
        yield Finding(
            severity="info",
            check="nodes",
            text="no node answers",
            cause="none runs on this broker, " + UNHEARD,
        )
        return
    processes, hosts = {node.process for node in nodes}, {node.host for node in nodes}
    where = f"{counted(len(processes), 'process')} on {counted(len(hosts), 'host')}"
    yield good("nodes", f"{counted(len(nodes), 'node')} in {where}")
    yield from _check_names(nodes)
    yield from _check_versions(nodes)
    yield from _check_messages(nodes)
    yield from _check_services(nodes, traits)
    yield from _check_lonely(nodes, traits, heard)


def _check_names(nodes: Sequence[NodeInfo]) -> Iterator[Finding]:
    by_name: dict[str, list[NodeInfo]] = {}
    for node in nodes:
        by_name.setdefault(node.name, []).append(node)
    for name, same in by_name.items():
        if len(same) > 1:
            yield Finding(
                severity="warning",
                check="names",
                text=f"{len(same)} nodes are called {name}: {listed(map(_where, same))}",
                cause="the program was started twice, or was copied to another machine",
                mend="end one of them, or give each a name of its own: what is named after the "
                "node (heartbeats, control services) goes to both",
            )


def _where(node: NodeInfo) -> str:
    return f"id {node.id} (pid {node.pid} on {node.host})"


def _check_versions(nodes: Sequence[NodeInfo]) -> Iterator[Finding]:
    by_version: dict[str, list[str]] = {}
    for node in nodes:
        by_version.setdefault(node.version or "unknown", []).append(node.name)
    if len(by_version) > 1:
        each = (f"{version} ({listed(names)})" for version, names in sorted(by_version.items()))
        yield Finding(
            severity="info",
            check="versions",
            text=f"nodes of several versions of commlib: {'; '.join(each)}",
            cause="not all machines were upgraded; they do understand each other",
            mend="upgrade the older ones when there is time",
        )


# ---- messages ----


def _check_messages(nodes: Sequence[NodeInfo]) -> Iterator[Finding]:
    unread = set(mismatches([_at_one_level(node) for node in nodes]))
    for wrong in mismatches(nodes):
        yield _of_schemas(wrong) if wrong in unread else _of_delivery(wrong)


def _at_one_level(node: NodeInfo) -> NodeInfo:
    """The node as if all were delivered alike, so that only schemas differ."""
    replace = msgspec.structs.replace
    ports = tuple(replace(port, qos=0, retain=False) for port in node.endpoints)
    return replace(node, endpoints=ports)


def _of_schemas(wrong: Mismatch) -> Finding:
    return Finding(
        severity="error",
        check="schemas",
        text=str(wrong),
        cause="the two were written against different message classes; who reads refuses them",
        mend="let both import one class, or give new fields a default and upgrade readers first",
    )


def _of_delivery(wrong: Mismatch) -> Finding:
    return Finding(
        severity="warning",
        check="qos",
        text=str(wrong),
        cause="who reads gets some messages of this topic in one way and some in another",
        mend="give all publishers of a topic the same qos= and retain=",
    )


# ---- services and actions ----


def _check_services(nodes: Sequence[NodeInfo], traits: Traits) -> Iterator[Finding]:
    for name, serving in _nodes_by_name(nodes, "service").items():
        if len(serving) > 1 and not traits.competing:
            yield Finding(
                severity="error",
                check="services",
                text=f"{len(serving)} nodes serve {name}: {listed(serving)}",
                cause="this broker, or its protocol, gives each request to all of them, so that "
                "each is handled several times",
                mend="serve it once, or use a broker that shares requests: MQTT 5, Redis, AMQP",
            )
    for name, serving in _nodes_by_name(nodes, "action").items():
        if len(serving) > 1:
            yield Finding(
                severity="error",
                check="actions",
                text=f"{len(serving)} nodes serve the action {name}: {listed(serving)}",
                cause="only the one that took a goal knows it, and who asks for its result or "
                "cancels it may reach the other",
                mend="serve each action once; concurrency=N takes several goals at a time",
            )


def _check_lonely(
    nodes: Sequence[NodeInfo], traits: Traits, heard: Collection[str]
) -> Iterator[Finding]:
    pairs: tuple[tuple[Kind, Kind, str], ...] = (
        ("client", "service", "service"),
        ("action_client", "action", "action"),
    )
    for calling, serving, what in pairs:
        served = _nodes_by_name(nodes, serving)
        for name, callers in _nodes_by_name(nodes, calling).items():
            if name not in served:
                yield Finding(
                    severity="warning",
                    check=f"{what}s",
                    text=f"nobody serves {name}, which {listed(callers)} calls",
                    cause=f"its node does not run, its name is another one, {UNHEARD}",
                    mend=f"start the node that serves it, or compare the names: commlib "
                    f"{'rpc' if what == 'service' else what} list",
                )
    silent = _without_publisher(nodes, traits, heard)
    if silent:
        each = (f"{name} ({listed(readers)})" for name, readers in silent.items())
        yield Finding(
            severity="info",
            check="topics",
            text=f"subscribed to, and nobody publishes it: {listed(each)}",
            cause=f"the publisher does not run, its topic is another one, {UNHEARD}",
        )


def _without_publisher(
    nodes: Sequence[NodeInfo], traits: Traits, heard: Collection[str]
) -> dict[str, list[str]]:
    """Who reads what nobody publishes, by topic or pattern."""
    published = {*_nodes_by_name(nodes, "publisher"), *heard}
    return {
        name: readers
        for name, readers in _nodes_by_name(nodes, "subscriber").items()
        if not any(map(told_matcher(name, traits), published))
    }


def _nodes_by_name(nodes: Sequence[NodeInfo], kind: Kind) -> dict[str, list[str]]:
    """The labels of the nodes that have a port of this kind, by the name of the port."""
    found: dict[str, dict[str, str]] = {}
    for node in nodes:
        for port in node.endpoints:
            if port.kind == kind:
                found.setdefault(port.name, {})[node.id] = node.label
    return {name: list(labels.values()) for name, labels in sorted(found.items())}
