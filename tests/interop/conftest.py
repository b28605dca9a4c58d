"""Released peers on real brokers. ``make interop`` makes their environments and runs this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from brokers import Broker, MosquittoServer, making
from commlib._portal import Portal
from commlib.node import Node
from commlib.rpc import RPCClient
from interop.cells import BROKERS, READS_ENVELOPES, VERSIONS, WRAPS_CALLS
from interop.released import MOSQUITTO_TELLS, Released

NewClient = Callable[..., RPCClient[Any, Any]]

CELLS = pytest.StashKey[list[pytest.Item]]()
"""The tests of all cells, whether selected or not."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is here, before the marks select."""
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker("interop")
    config.stash[CELLS] = [item for item in ours if item.get_closest_marker("cell")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each of its cells, or each broker if it is of none and says no other."""
    marks = metafunc.definition.iter_markers("cell")
    pairs = sorted({pair for mark in marks for pair in mark.args[-1]}, key=_in_order)
    if pairs:
        metafunc.parametrize(("broker", "peer"), pairs, indirect=True)
    elif "broker" in metafunc.fixturenames and not _chooses_brokers(metafunc):
        metafunc.parametrize("broker", BROKERS, indirect=True)


def _chooses_brokers(metafunc: pytest.Metafunc) -> bool:
    """Whether it is for some of them."""
    return any(mark.args[0] == "broker" for mark in metafunc.definition.iter_markers("parametrize"))


def _in_order(pair: tuple[str, str]) -> tuple[int, int]:
    return BROKERS.index(pair[0]), VERSIONS.index(pair[1])


@pytest.fixture
def cells(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """The tests that each show a cell of the matrix."""
    return request.config.stash[CELLS]


@pytest.fixture(autouse=True)
def _clean(portal: Portal) -> None:
    """What released peers send leaves no task or thread of ours behind, either."""


@pytest.fixture(scope="session")
def mosquitto_server() -> Iterator[MosquittoServer]:
    """The Mosquitto of this run, which tells what it is asked for."""
    with making(MosquittoServer) as make:
        yield make(config=MOSQUITTO_TELLS)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker in turn, or those that the test is for."""
    return Broker.named(request.param, request.getfixturevalue)


@pytest.fixture
def make_peer(broker: Broker, tmp_path: Path) -> Iterator[Callable[[str], Released]]:
    """Starts released peers on the broker, by their versions."""
    peers: list[Released] = []

    def make(version: str) -> Released:
        peers.append(Released(version, broker.url, tmp_path))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()
        print(f"---- commlib-py {peer.version} ----\n{peer.log}")  # shown if the test fails


@pytest.fixture
def peer(request: pytest.FixtureRequest, make_peer: Callable[[str], Released]) -> Released:
    """The peer of the version that the test names."""
    return make_peer(request.param)


@pytest.fixture
def node(peer: Released, make_node: Callable[..., Node]) -> Node:
    """A node that publishes what the peer can read."""
    return make_node(envelope=READS_ENVELOPES[peer.version])


@pytest.fixture
def new_client(peer: Released, node: Node) -> NewClient:
    """Makes clients that call services of the peer."""
    return partial(node.create_rpc_client, envelope=WRAPS_CALLS[peer.version])
