"""Calls that are sent again until somebody answers, for requests that may be handled twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from commlib.aio._caller import Call
from commlib.exceptions import ConnectionLost, RPCTimeout
from commlib.transports.base import CallOutcome

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 8.0  # s between two attempts
LOST_PAUSE = 0.25  # s before the next one where it is known that no reply will come


async def repeat(
    new_call: Callable[[float], Call], timeout: float, expired: Callable[[], RPCTimeout]
) -> CallOutcome:
    """The outcome of a call that ``new_call(timeout)`` makes, again and again if need be.

    All attempts have one id, by which a service knows them. They are under way together: the first
    answer is the outcome, that of ``expired`` if there is none within ``timeout`` seconds. An error
    that another attempt would not mend is the outcome as well.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    asking: set[asyncio.Task[CallOutcome]] = set()
    pause, attempt, id = FIRST_PAUSE, 0, ""
    try:
        while (left := end - loop.time()) > 0:
            attempt += 1
            call = new_call(left)
            id = call.id = id or call.token
            call.attempt = attempt
            asking.add(loop.create_task(call.caller.ask(call, expired)))
            outcome = await _first_answer(asking, min(pause, left), end)
            if outcome is not None:
                return outcome
            pause = min(pause * 2, LONGEST_PAUSE)
        return expired()
    finally:
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)


async def _first_answer(
    asking: set[asyncio.Task[CallOutcome]], pause: float, last: float
) -> CallOutcome | None:
    """The first answer within ``pause`` seconds, or soon where no attempt can bring one.

    Not after ``last``, by the loop's clock. Those that have ended are taken out of ``asking``.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + pause
    while asking:
        done, _ = await asyncio.wait(
            asking, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            return None
        asking.difference_update(done)
        for task in done:
            outcome = task.result()
            if not isinstance(outcome, ConnectionLost | RPCTimeout):
                return outcome
    await asyncio.sleep(min(LOST_PAUSE, last - loop.time()))
    return None
