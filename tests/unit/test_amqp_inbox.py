"""Replies on AMQP, against a broker that is played by the test."""

from __future__ import annotations

import asyncio

import pytest
from pika import BasicProperties, spec

from amqp_wire import Wire, closing, delivered, returned
from commlib._packet import Header, Packet
from commlib.exceptions import AuthError, CommlibError, ConnectionLost, ServiceNotFound
from commlib.transports._amqp_inbox import DIRECT, Inbox
from commlib.transports._amqp_methods import CALLS
from commlib.transports._amqp_properties import PropertyReader
from commlib.transports.base import LinkStats, NotServedYet

Told = tuple[str | None, "bytes | CommlibError"]


class Calling:
    """An inbox, and what it brings."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.told: list[Told] = []
        self.headers: list[Header | None] = []
        self.takes = True
        self.is_settling = False
        reader = PropertyReader(LinkStats())
        self.inbox = Inbox(reader, self._take, lambda: self.is_settling)

    def _take(self, token: str | None, what: Packet | CommlibError) -> bool:
        self.told.append((token, what.payload if isinstance(what, Packet) else what))
        if isinstance(what, Packet):
            self.headers.append(what.header)
        return self.takes

    def replies(self, token: str, payload: bytes) -> None:
        about = BasicProperties(correlation_id=token)
        self.wire.comes(delivered(CALLS, payload, consumer="r", exchange="", about=about))


async def calling(*tokens: str) -> Calling:
    found = Calling()
    restoring = asyncio.ensure_future(found.inbox.restore(found.wire.link))
    await found.wire.settle()
    await restoring
    for token in tokens:
        found.inbox.address(token)
    return found


async def test_replies_are_asked_for_without_acknowledgement() -> None:
    found = await calling()
    (consume,) = (m for _, m in found.wire.broker.asked if isinstance(m, spec.Basic.Consume))
    assert (consume.queue, consume.no_ack) == (DIRECT, True)
    address = found.inbox.address("t1")
    assert (address.reply_to, address.correlation_id) == (DIRECT, "t1")


async def test_a_reply_is_told_by_its_correlation_id_and_a_late_one_belongs_to_nobody() -> None:
    found = await calling("a", "b", "c")
    found.inbox.release("c")
    for token in ("b", "a", "a", "c", "", "never"):
        found.replies(token, token.encode())
    assert found.told == [
        *(("b", b"b"), ("a", b"a")),
        *((None, b"a"), (None, b"c"), (None, b""), (None, b"never")),
    ]


async def test_a_reply_to_something_else_leaves_the_address_open() -> None:
    found = await calling("a")
    found.takes = False
    found.replies("a", b"other")
    found.takes = True
    found.replies("a", b"mine")
    assert found.told == [("a", b"other"), ("a", b"mine")]


async def test_what_nobody_serves_comes_back_at_once_as_an_error() -> None:
    found = await calling("a", "b")
    for token in ("a", "a", "", "never"):
        about = BasicProperties(correlation_id=token)
        found.wire.comes(returned(CALLS, "absent", b"request", about))
    ((token, error),) = found.told
    assert token == "a"
    assert isinstance(error, ServiceNotFound)
    assert not isinstance(error, NotServedYet)
    assert "nobody serves absent" in str(error)


async def test_while_others_may_be_on_their_way_back_that_is_not_the_last_word() -> None:
    found = await calling("a")
    found.is_settling = True
    about = BasicProperties(correlation_id="a")
    found.wire.comes(returned(CALLS, "absent", b"request", about))
    ((token, error),) = found.told
    assert token == "a"
    assert isinstance(error, NotServedYet)
    assert "a" not in found.inbox.open


@pytest.mark.parametrize(
    ("code", "kind"), [(403, AuthError), (406, ConnectionLost), (541, ConnectionLost)]
)
async def test_when_its_channel_is_closed_all_that_was_asked_is_told_so_and_the_next_ones_work(
    code: int, kind: type[CommlibError]
) -> None:
    found = await calling("a", "b", "waits")
    found.inbox.sent |= {"a", "b"}
    found.wire.comes(closing(CALLS, code, "NOT - so", spec.Basic.Publish))
    asked = await found.wire.settle()
    assert "Basic.Consume" in asked
    assert {token for token, _ in found.told} == {"a", "b"}
    assert {type(error) for _, error in found.told} == {kind}
    assert all("NOT - so" in str(error) for _, error in found.told)
    found.replies("waits", b"reply")
    found.replies("a", b"late")
    assert found.told[2:] == [("waits", b"reply"), (None, b"late")]


async def test_with_the_connection_its_address_is_gone_and_all_that_was_asked_is_told_so() -> None:
    found = await calling("a", "waits")
    found.inbox.sent.add("a")
    found.inbox.detach()
    ((token, error),) = found.told
    assert token == "a"
    assert isinstance(error, ConnectionLost)
    found.wire = Wire()
    restoring = asyncio.ensure_future(found.inbox.restore(found.wire.link))
    await found.wire.settle()
    await restoring
    found.replies("waits", b"reply")
    assert found.told[1:] == [("waits", b"reply")]


async def test_nothing_is_sent_on_the_new_channel_before_replies_are_asked_for() -> None:
    """The broker would close it for that: a reply has nowhere to go."""
    found = await calling("a")
    held: list[bool] = []
    found.wire.link.on_room = held.append
    found.wire.comes(closing(CALLS, 406, "PRECONDITION_FAILED"))
    found.wire.frames()
    found.wire.says(CALLS, spec.Channel.OpenOk())
    assert found.wire.names() == ["Basic.Consume"]
    assert held == [False, True]


async def test_a_reply_in_an_envelope_is_taken_for_one_where_the_call_was_in_one() -> None:
    found = await calling("a", "b", "c")
    envelope = b'{"header":{"reply_to":""},"data":{"c":3}}'
    found.inbox.wrapped |= {"a", "c"}
    found.replies("a", envelope)
    found.replies("b", envelope)
    found.replies("c", b'{"c":3}')
    assert [header is None for header in found.headers] == [True, False, False]
    assert found.inbox.wrapped == set()


async def test_after_its_end_nothing_is_anybodys() -> None:
    found = await calling("a")
    await found.inbox.close()
    found.replies("a", b"late")
    assert found.told == [(None, b"late")]
