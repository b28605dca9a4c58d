"""One channel of an AMQP connection: questions, answers, and being closed by the broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pika import spec

from amqp_wire import Wire, closing, delivered, said
from commlib.exceptions import AuthError, ConnectionLost
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_channel import Channel
from commlib.transports._amqp_codes import Refusal
from commlib.transports._amqp_link import FLUSH
from commlib.transports._amqp_methods import PUBLISHING
from commlib.transports._amqp_params import ConnectionParameters

SERVICE = ConnectionParameters().first_service
OPEN_OK = said(SERVICE, spec.Channel.OpenOk())


def declare(name: str) -> bytes:
    return methods.declare_queue(SERVICE, name, 0, {})


class Fixture:
    """A channel, and what it tells."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.room: list[bool] = []
        self.news: list[Any] = []
        self.wire.link.on_room = self.room.append
        self.channel: Channel = self.wire.link.channel(SERVICE)
        self.channel.on_reset = self.news.append
        self.channel.on_cancelled = self.news.append
        self.channel.on_ack = lambda *ack: self.news.append(ack)

    def opens(self) -> None:
        """The broker opens it."""
        self.wire.comes(OPEN_OK)

    def closes(self, code: int, text: str = "", klass: Any = None) -> None:
        """The broker closes it."""
        self.wire.comes(closing(SERVICE, code, text, klass))


def opened() -> Fixture:
    found = Fixture()
    found.opens()
    found.wire.frames()
    return found


# ---- questions and answers ----


async def test_what_is_asked_before_it_is_open_waits_for_that() -> None:
    new = Fixture()
    first, second = new.channel.ask(declare("a")), new.channel.ask(declare("b"))
    assert new.wire.names() == ["Channel.Open"]
    opened = asyncio.ensure_future(new.channel.opened())
    await asyncio.sleep(0)
    assert not opened.done()
    new.opens()
    await opened
    assert [method.queue for _, method in new.wire.asked()] == ["a", "b"]
    assert {first.done(), second.done()} == {False}


async def test_an_answer_to_consume_may_be_overtaken_by_others() -> None:
    found = opened()
    frames = [methods.qos(SERVICE, 3), methods.consume(SERVICE, "a", "s1", 0)]
    frames += [methods.qos(SERVICE, 3), methods.consume(SERVICE, "b", "s2", 0)]
    questions = [found.channel.ask(frame) for frame in frames]
    for number, answer in (
        (0, spec.Basic.QosOk()),
        (2, spec.Basic.QosOk()),
        (3, spec.Basic.ConsumeOk("s2")),
        (1, spec.Basic.ConsumeOk("s1")),
    ):
        assert not questions[number].done()
        found.wire.says(SERVICE, answer)
        assert questions[number].done()
    assert not found.wire.link.closed.done()


@pytest.mark.parametrize("refused", [0, 1])
async def test_of_several_that_wait_to_consume_the_one_is_refused_that_the_broker_names(
    refused: int,
) -> None:
    found = opened()
    names = ["jobs", "other.jobs"]
    questions = [found.channel.ask(methods.consume(SERVICE, name, name, 0)) for name in names]
    text = f"ACCESS_REFUSED - queue '{names[refused]}' in vhost '/' in exclusive use"
    found.closes(403, text, spec.Basic.Consume)
    assert [question.done() for question in questions] == [refused == 0, refused == 1]
    with pytest.raises(Refusal, match="exclusive"):
        await questions[refused]


async def test_a_consumer_is_ended_when_the_broker_has_said_yes_to_it_and_not_before() -> None:
    found = opened()
    asked = [found.channel.ask(methods.consume(SERVICE, "a", tag, 0)) for tag in ("s1", "s2")]
    ended = found.channel.cancel("s2")
    assert found.wire.names() == ["Basic.Consume"] * 2
    found.wire.comes(said(SERVICE, spec.Basic.ConsumeOk("s1")))
    assert found.wire.names() == []
    found.wire.comes(said(SERVICE, spec.Basic.ConsumeOk("s2")))
    assert found.wire.names() == ["Basic.Cancel"]
    assert all(each.done() for each in asked)
    assert not ended.done()
    found.wire.comes(said(SERVICE, spec.Basic.CancelOk("s2")))
    assert ended.done()
    found.channel.cancel("s1")
    assert found.wire.names() == ["Basic.Cancel"]


async def test_a_consumer_is_ended_later_though_nobody_waits_for_the_yes_any_more() -> None:
    found = opened()
    found.channel.ask(methods.consume(SERVICE, "a", "s1", 0)).cancel()
    found.channel.cancel("s1")
    assert found.wire.names() == ["Basic.Consume"]
    found.wire.comes(said(SERVICE, spec.Basic.ConsumeOk("s1")))
    assert found.wire.names() == ["Basic.Cancel"]


async def test_a_consumer_that_is_refused_need_not_be_ended() -> None:
    found = opened()
    asked = found.channel.ask(methods.consume(SERVICE, "a", "s1", 0))
    ended = found.channel.cancel("s1")
    found.wire.names()
    found.closes(404, "NOT_FOUND - no queue 'a' in vhost '/'", spec.Basic.Consume)
    for refused in (asked, ended):
        with pytest.raises(Refusal):
            await refused
    found.opens()
    assert "Basic.Cancel" not in found.wire.names()


async def test_a_consumer_that_is_to_be_ended_is_not_begun_again_with_its_channel() -> None:
    found = opened()
    asked = [found.channel.ask(methods.consume(SERVICE, name, name, 0)) for name in ("a", "b")]
    ended = found.channel.cancel("a")
    assert found.channel.cancel("a") is ended
    found.wire.names()
    found.closes(404, "NOT_FOUND - no queue 'b' in vhost '/'", spec.Basic.Consume)
    for refused in (*asked, ended):
        with pytest.raises(Refusal):
            await refused
    found.opens()
    assert found.wire.names() == ["Channel.CloseOk", "Channel.Open"]


async def test_an_answer_about_a_consumer_that_nobody_asked_for_is_none() -> None:
    found = opened()
    found.channel.ask(methods.consume(SERVICE, "a", "s1", 0))
    found.wire.says(SERVICE, spec.Basic.ConsumeOk("s2"))
    assert "does not speak AMQP" in str(found.wire.link.closed.result())


async def test_answers_come_in_the_order_of_the_questions() -> None:
    found = opened()
    questions = [found.channel.ask(frame) for frame in (declare("a"), methods.qos(SERVICE, 3))]
    found.wire.says(SERVICE, spec.Queue.DeclareOk("a", 5, 0))
    assert [question.done() for question in questions] == [True, False]
    assert await questions[0] == said(SERVICE, spec.Queue.DeclareOk("a", 5, 0))[11:-1]
    found.wire.says(SERVICE, spec.Basic.QosOk())
    assert await questions[1] == b""


async def test_an_answer_that_nobody_waits_for_any_more_does_not_go_to_the_next() -> None:
    found = opened()
    first, second = found.channel.ask(declare("a")), found.channel.ask(declare("b"))
    first.cancel()
    found.wire.says(SERVICE, spec.Queue.DeclareOk("a", 0, 0))
    assert not second.done()
    found.wire.says(SERVICE, spec.Queue.DeclareOk("b", 0, 0))
    assert second.done()


async def test_an_answer_to_nothing_is_passed_over() -> None:
    found = opened()
    found.wire.says(SERVICE, spec.Basic.QosOk())
    assert not found.wire.is_cut


async def test_on_a_connection_that_has_ended_nothing_is_asked() -> None:
    found = opened()
    before = found.channel.ask(declare("a"))
    found.wire.link.abort(ConnectionLost("cut"))
    for question in (before, found.channel.ask(declare("b"))):
        with pytest.raises(ConnectionLost):
            await question
    assert [method.queue for _, method in found.wire.asked()] == ["a"]


async def test_one_that_was_never_opened_says_so_when_the_connection_ends() -> None:
    new = Fixture()
    question = new.channel.ask(declare("a"))
    new.wire.link.abort(ConnectionLost("cut"))
    with pytest.raises(ConnectionLost, match="robot was lost: cut"):
        await new.channel.opened()
    with pytest.raises(ConnectionLost):
        await question


# ---- what the broker says of its own ----


async def test_confirmations_are_told_with_their_number() -> None:
    found = opened()
    found.wire.says(
        SERVICE,
        *(spec.Basic.Ack(1), spec.Basic.Ack(7, True), spec.Basic.Nack(8), spec.Basic.Nack(9, True)),
    )
    assert found.news == [(1, False, True), (7, True, True), (8, False, False), (9, True, False)]


async def test_the_end_of_a_consumer_is_told() -> None:
    found = opened()
    found.wire.says(SERVICE, spec.Basic.Cancel("s1", True))
    assert found.news == ["s1"]


@pytest.mark.parametrize("active", [True, False])
async def test_a_broker_that_wants_to_regulate_the_flow_is_answered(active: bool) -> None:
    found = opened()
    found.wire.says(SERVICE, spec.Channel.Flow(active))
    ((number, method),) = found.wire.asked()
    assert (number, method.NAME, method.active) == (SERVICE, "Channel.FlowOk", active)


# ---- closed by the broker ----


async def test_the_question_that_was_the_error_gets_it_as_its_answer() -> None:
    found = opened()
    bad = found.channel.ask(declare("a"))
    found.wire.frames()
    found.closes(406, "PRECONDITION_FAILED - inequivalent arg", spec.Queue.Declare)
    assert found.wire.names() == ["Channel.CloseOk", "Channel.Open"]
    with pytest.raises(Refusal, match="robot: the broker says: PRECONDITION_FAILED") as caught:
        await bad
    assert caught.value.code == 406
    assert found.news == [], "it is not open again yet"
    found.opens()
    (error,) = found.news
    assert error is caught.value
    assert found.wire.frames() == []


async def test_for_want_of_a_right_the_error_is_one_for_a_person() -> None:
    found = opened()
    bad = found.channel.ask(declare("a"))
    found.closes(403, "ACCESS_REFUSED", spec.Queue.Declare)
    with pytest.raises(AuthError, match="ACCESS_REFUSED"):
        await bad


async def test_those_behind_it_are_asked_again_in_their_order() -> None:
    found = opened()
    bad, *others = (found.channel.ask(declare(name)) for name in "abc")
    found.wire.frames()
    found.closes(404, "NOT_FOUND", spec.Queue.Declare)
    late = found.channel.ask(declare("d"))
    assert found.wire.names() == ["Channel.CloseOk", "Channel.Open"]
    found.opens()
    assert [method.queue for _, method in found.wire.asked()] == ["b", "c", "d"]
    for name, question in zip("bcd", [*others, late], strict=True):
        found.wire.says(SERVICE, spec.Queue.DeclareOk(name, 0, 0))
        assert name.encode() in await question
    with pytest.raises(Refusal):
        await bad


@pytest.mark.parametrize("klass", [None, spec.Basic.Publish, spec.Basic.Ack])
async def test_for_what_was_not_asked_no_question_is_to_blame(klass: Any) -> None:
    found = opened()
    question = found.channel.ask(declare("a"))
    found.wire.frames()
    found.closes(406, "PRECONDITION_FAILED - unknown delivery tag 1", klass)
    found.wire.frames()
    found.opens()
    assert [method.queue for _, method in found.wire.asked()] == ["a"]
    found.wire.says(SERVICE, spec.Queue.DeclareOk("a", 0, 0))
    await question
    assert len(found.news) == 1


async def test_what_was_asked_before_and_is_answered_is_not_asked_again() -> None:
    found = opened()
    good, bad = found.channel.ask(declare("a")), found.channel.ask(declare("b"))
    found.wire.frames()
    found.wire.comes(
        said(SERVICE, spec.Queue.DeclareOk("a", 0, 0))
        + closing(SERVICE, 406, "no", spec.Queue.Declare)
        + OPEN_OK
    )
    await good
    with pytest.raises(Refusal):
        await bad
    assert found.wire.names() == ["Channel.CloseOk", "Channel.Open"]


async def test_nothing_is_published_until_it_is_open_again() -> None:
    found = opened()
    found.closes(404, "NOT_FOUND", spec.Basic.Publish)
    assert (found.room, found.wire.link.is_held) == ([False], True)
    told: list[bool] = []
    found.channel.on_reset = lambda error: told.append(found.wire.link.is_held)
    found.opens()
    assert told == [True], "who is told of it may write before all others"
    assert (found.room, found.wire.link.is_held) == ([False, True], False)


async def test_of_two_channels_that_are_closed_the_last_one_lets_go() -> None:
    found = opened()
    other = found.wire.link.channel(PUBLISHING)
    found.wire.says(PUBLISHING, spec.Channel.OpenOk())
    found.closes(404)
    found.wire.comes(closing(PUBLISHING, 404, "NOT_FOUND", spec.Basic.Publish))
    found.opens()
    assert found.wire.link.is_held
    found.wire.says(PUBLISHING, spec.Channel.OpenOk())
    assert not found.wire.link.is_held
    assert other.is_open
    assert found.room == [False, False, True]


async def test_an_end_while_it_is_closed_fails_all_that_waits() -> None:
    found = opened()
    bad, behind = found.channel.ask(declare("a")), found.channel.ask(declare("b"))
    found.closes(404, "NOT_FOUND", spec.Queue.Declare)
    late = found.channel.ask(declare("c"))
    found.wire.link.abort(ConnectionLost("cut"))
    with pytest.raises(Refusal):
        await bad
    for question in (behind, late):
        with pytest.raises(ConnectionLost):
            await question
    assert found.news == []


async def test_what_its_owner_asks_when_it_is_told_is_answered_in_order() -> None:
    found = opened()
    answers: list[asyncio.Future[bytes]] = []
    found.channel.on_reset = lambda error: answers.append(found.channel.ask(declare("mine")))
    behind = found.channel.ask(declare("behind"))
    found.closes(406)
    found.wire.frames()
    found.opens()
    assert [method.queue for _, method in found.wire.asked()] == ["behind", "mine"]
    found.wire.says(SERVICE, spec.Queue.DeclareOk("behind", 0, 0))
    assert (behind.done(), answers[0].done()) == (True, False)


async def test_each_life_has_a_number() -> None:
    found = opened()
    lives = [found.channel.life]
    for _ in range(2):
        found.closes(406)
        found.opens()
        lives.append(found.channel.life)
    assert len(set(lives)) == 3


async def test_what_is_on_its_way_when_it_is_closed_is_handed_over() -> None:
    found = opened()
    taken: list[bytes] = []
    found.channel.on_arrival = lambda *arrival: taken.append(arrival[-1])
    found.wire.comes(delivered(SERVICE, b"before") + closing(SERVICE, 406, "no"))
    found.wire.comes(OPEN_OK + delivered(SERVICE, b"behind"))
    assert taken == [b"before", b"behind"]


async def test_a_message_that_is_cut_off_by_the_end_of_its_channel_does_not_stay() -> None:
    found = opened()
    taken: list[bytes] = []
    found.channel.on_arrival = lambda *arrival: taken.append(arrival[-1])
    half = delivered(SERVICE, b"x" * 5000)[:4096]
    frames_of_half = half[: half.index(b"\xce") + 1]  # its method alone
    found.wire.comes(frames_of_half + closing(SERVICE, 406, "no") + OPEN_OK)
    found.wire.comes(delivered(SERVICE, b"whole"))
    assert taken == [b"whole"]


async def test_a_flush_that_was_written_before_is_answered_all_the_same() -> None:
    """What is published is lost when its channel is closed, what is asked is not."""
    wire = Wire()
    wire.open(PUBLISHING)
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    wire.link.write([FLUSH], [answer])
    wire.frames()
    wire.comes(closing(PUBLISHING, 403, "ACCESS_REFUSED", spec.Basic.Publish))
    wire.says(PUBLISHING, spec.Channel.OpenOk())
    assert wire.names() == ["Channel.CloseOk", "Channel.Open", "Basic.Qos"]
    wire.says(PUBLISHING, spec.Basic.QosOk())
    await answer


async def test_a_broker_that_closes_it_again_and_again_is_followed() -> None:
    found = opened()
    question = found.channel.ask(declare("a"))
    for _ in range(20):
        found.wire.frames()
        found.closes(541, "INTERNAL_ERROR")
        found.opens()
    assert found.wire.names() == ["Channel.CloseOk", "Channel.Open", "Queue.Declare"]
    found.wire.says(SERVICE, spec.Queue.DeclareOk("a", 0, 0))
    await question
    assert len(found.news) == 20
