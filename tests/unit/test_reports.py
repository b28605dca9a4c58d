"""What an endpoint logs of errors that nobody can be raised to, and how often."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from collected import DEADLINE
from commlib._packet import Packet
from commlib.aio._endpoint import MAX_REPORTS, Endpoint
from commlib.transports import resolve


def fail(error: BaseException, topic: str) -> None:
    raise LookupError("the handler of errors")


def failing(number: int) -> Exception:
    """An error of a kind of its own."""
    return type(f"Error{number}", (Exception,), {})()


def levels(caplog: pytest.LogCaptureFixture, text: str) -> list[int]:
    return [record.levelno for record in caplog.records if text in record.getMessage()]


async def test_so_many_kinds_of_errors_are_logged_and_all_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = Endpoint("one", resolve("memory://"))
    for number in [*range(MAX_REPORTS + 10)] * 2:
        endpoint._report(Packet(b"", "one"), failing(number))
    assert levels(caplog, "the callback failed") == [logging.ERROR] * MAX_REPORTS
    assert endpoint.own_stats.errors == 2 * (MAX_REPORTS + 10)


async def test_an_error_that_workers_meet_at_the_same_time_is_news_to_one_of_them() -> None:
    together = Barrier(4)

    class Met(str):
        """A name that all workers look up before one of them goes on."""

        __slots__ = ()

        def __hash__(self) -> int:
            together.wait(DEADLINE)
            return super().__hash__()

    endpoint, error = Endpoint("one", resolve("memory://")), (Met("ValueError"), 1)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(endpoint._is_news, [error] * 4)) == 1


@pytest.mark.parametrize("before", [0, MAX_REPORTS])
async def test_that_on_error_itself_fails_is_an_error_once_whatever_was_logged_before(
    caplog: pytest.LogCaptureFixture, before: int
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint = Endpoint("one", resolve("memory://"))
    for number in range(before):
        endpoint._report(Packet(b"", "one"), failing(number))
    endpoint._on_error = fail
    for _ in range(3):
        endpoint._report(Packet(b"", "one"), ValueError("x"))
    assert levels(caplog, "on_error itself failed") == [logging.ERROR, logging.DEBUG, logging.DEBUG]
