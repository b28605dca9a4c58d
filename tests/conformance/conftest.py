"""Every pattern over every broker. Nothing here knows which broker it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import brokers_page
from commlib._portal import Portal

record = brokers_page.Record()


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
        record.note(item.path.stem, parameters.values(), outcome)
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    wrong = brokers_page.settle(record)
    if wrong:
        session.config.get_terminal_writer().line(f"\n{wrong}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
