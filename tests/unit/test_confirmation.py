"""Whether a subscription works, by what the broker has said of it."""

from __future__ import annotations

import pytest

from commlib._packet import Packet
from commlib.exceptions import AuthError
from commlib.transports._confirmation import Confirmation, Ending, Subscribed


async def test_a_broker_may_take_back_what_it_has_said(caplog: pytest.LogCaptureFixture) -> None:
    asked = Confirmation("a")
    ending = Ending(lambda found, handler: None, asked, lambda packet: None)
    assert not ending.working
    for _ in range(2):
        asked.confirm(None)
        assert ending.working
        await asked.confirmed
    for _ in range(2):
        asked.confirm(AuthError("no right"))
        assert not ending.working
        with pytest.raises(AuthError):
            await asked.confirmed
    asked.confirm(None)
    assert ending.working
    asked.renew()
    assert not ending.working, "it is asked for on another connection"
    told = [record.getMessage() for record in caplog.records]
    assert told == ["a cannot be subscribed: no right", "a is subscribed again"]


async def test_a_handler_that_was_added_twice_is_dropped_twice() -> None:
    def other(packet: Packet) -> None:
        pass

    asked = Subscribed("a")
    got: list[Packet] = []
    asked.handlers = (got.append, other, got.append)
    assert asked.drop(got.append)
    assert asked.handlers == (other, got.append)
    assert asked.drop(got.append)
    assert not asked.drop(got.append)
    assert asked.handlers == (other,)
