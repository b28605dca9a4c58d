"""Released peers on real brokers. ``make interop`` makes their environments and runs this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokers import Broker
from commlib._portal import Portal
from interop.released import Released

BROKERS = ["redis"]
"""The brokers, each a fixture ``<name>_server`` with a ``url``, and one of ``released.WATCHES``."""

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


@pytest.fixture
def cells(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """The tests that each show a cell of the matrix."""
    return request.config.stash[CELLS]


@pytest.fixture(autouse=True)
def _clean(portal: Portal) -> None:
    """What released peers send leaves no task or thread of ours behind, either."""


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker in turn."""
    return Broker(request.getfixturevalue(f"{request.param}_server").url)


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
