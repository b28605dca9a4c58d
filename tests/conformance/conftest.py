"""Every pattern over every broker. Nothing here knows which broker it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import brokers_page
from brokers import Broker
from commlib._portal import Portal

VARIANT = "nats_websockets"
"""Another way to a broker that is tried here already: it makes no difference to what is above."""
CORE = ("test_pubsub", "test_rpc", "test_robustness")
"""What is tried of it."""


@pytest.fixture(params=[*brokers_page.BROKERS, VARIANT])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker in turn, and the variant. A test asks for its ``traits``, never for its name."""
    return Broker.named(request.param, request.getfixturevalue)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    rest = [item for item in items if _is_variant(item) and item.path.stem not in CORE]
    if rest:
        config.hook.pytest_deselected(items=rest)
        left_out = set(rest)
        items[:] = [item for item in items if item not in left_out]


def _is_variant(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("broker") == VARIANT


@pytest.fixture(autouse=True)
def _clean(portal: Portal) -> None:
    """No test of a pattern leaves a task or a thread behind."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield
    if isinstance(item, pytest.Function) and (report.when == "call" or not report.passed):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        outcome = reason.removeprefix("Skipped: ") or report.outcome
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        report.user_properties.append(
            brokers_page.shown(item.path.stem, parameters.values(), outcome)
        )
    return report
