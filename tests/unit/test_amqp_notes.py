"""What becomes of frames that wait, when what they stand for has become stale."""

from __future__ import annotations

import asyncio

import pytest

from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_frames import content, publish_method
from commlib.transports._amqp_notes import Asking, Settling, revised, stays

ACK = methods.ack(7, 3)
REPLY = publish_method(2, "", "amq.rabbitmq.reply-to.x") + content(2, b"\0\0", b"{}", 4096)


class Request:
    """A request that the broker knows, or not any more."""

    def __init__(self) -> None:
        self.is_known = True

    def ack(self) -> bytes:
        return ACK if self.is_known else b""


@pytest.fixture
def request_() -> Request:
    return Request()


def settling(request: Request) -> Settling:
    note = Settling("there")
    note.request = request
    return note


def asking(token: str, *, is_open: bool) -> Asking:
    note = Asking("work")
    note.open, note.sent, note.token = ({token} if is_open else set()), set(), token
    return note


async def test_what_acknowledges_and_what_is_asked_is_written_however_old_it_is(
    request_: Request,
) -> None:
    question = asyncio.get_running_loop().create_future()
    assert stays(settling(request_))
    assert stays(question)
    assert not stays("a topic")
    assert not stays(asking("7", is_open=True))


def test_a_reply_to_a_request_that_is_known_acknowledges_it(request_: Request) -> None:
    note = settling(request_)
    for _ in range(3):
        assert revised(ACK + REPLY, note) == ACK + REPLY


def test_one_to_a_request_that_is_not_known_any_more_goes_without(request_: Request) -> None:
    note = settling(request_)
    request_.is_known = False
    assert revised(ACK + REPLY, note) == REPLY


def test_what_goes_without_is_left_alone_however_often_it_is_looked_at(request_: Request) -> None:
    """Two services may lose their channels, or one and the connection, before it is written."""
    note = settling(request_)
    request_.is_known = False
    frame: bytes | None = ACK + REPLY
    for _ in range(3):
        assert frame is not None
        frame = revised(frame, note)
        assert frame == REPLY


def test_a_request_that_nobody_waits_for_any_more_does_not_go() -> None:
    assert revised(REPLY, asking("t", is_open=True)) == REPLY
    assert revised(REPLY, asking("t", is_open=False)) is None


@pytest.mark.parametrize("note", ["a.topic", object()])
def test_all_else_is_left_as_it_is(note: object) -> None:
    assert revised(REPLY, note) == REPLY
