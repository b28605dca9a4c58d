"""A connection that is kept alive; with a link that is a fake."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from weakref import ref

import pytest

from collected import DEADLINE
from commlib import _session
from commlib._params import BaseParameters
from commlib._session import Session, TakenOver
from commlib.exceptions import AuthError, ConnectError, ConnectionLost
from commlib.transports import resolve
from fake_link import FakeLink


class Dialled:
    """A dial function that gives one outcome after the other, the last one again and again."""

    def __init__(self, *outcomes: FakeLink | BaseException | Callable[[], Awaitable[Any]]) -> None:
        self._outcomes = deque(outcomes)
        self.count = 0

    async def __call__(self) -> FakeLink:
        self.count += 1
        outcome = self._outcomes[0] if len(self._outcomes) == 1 else self._outcomes.popleft()
        if callable(outcome):
            outcome = await outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, FakeLink)
        return outcome


class News:
    """What a session tells."""

    def __init__(self) -> None:
        self.items: list[tuple[object, Exception | None]] = []
        self._changed = asyncio.Event()

    def __call__(self, link: object, reason: Exception | None) -> None:
        self.items.append((link, reason))
        self._changed.set()

    @property
    def links(self) -> list[object]:
        return [link for link, _ in self.items]

    async def wait(self, count: int) -> list[tuple[object, Exception | None]]:
        async with asyncio.timeout(DEADLINE):
            while len(self.items) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.items


class Session_(Session):
    """A session with fakes on both sides."""

    def __init__(self, dial: Dialled, *, first: Session | None = None, **options: Any) -> None:
        self.news = News()
        self.dial = dial
        params = BaseParameters()
        vars(params).update(options)  # a keepalive as short as no user may have it
        super().__init__("fake", params, dial, self.news, first=first)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that try again at once."""
    monkeypatch.setattr(_session, "FIRST_PAUSE", 0.0001)
    monkeypatch.setattr(_session, "LONGEST_PAUSE", 0.0001)
    monkeypatch.setattr(_session, "AUTH_PAUSE", 0.0001)


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What it gives, before the test is given up."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


# ---- a session comes to its link, and back to it ----


async def test_ready_waits_for_the_link_and_everybody_who_waits_is_told() -> None:
    gate, link = asyncio.Event(), FakeLink()

    async def open_later() -> FakeLink:
        await gate.wait()
        return link

    session = Session_(Dialled(open_later))
    waiting = [asyncio.create_task(session.ready()) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0.01)
    assert not any(task.done() for task in waiting)
    gate.set()
    await soon(asyncio.gather(*waiting))
    assert session.link is link
    assert session.dial.count == 1
    assert session.news.items == [(link, None)]
    await session.close()


async def test_a_broker_that_is_away_is_tried_again_until_it_is_there(
    hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    link = FakeLink()
    session = Session_(Dialled(*[OSError("refused")] * 20, link))
    await soon(session.ready())
    assert session.link is link
    assert session.dial.count == 21
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["fake cannot be reached: refused", "fake: connected"]
    await session.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, in ms, without their jitter."""
    pauses: list[float] = []
    timeout = asyncio.timeout

    def note(seconds: float) -> Any:
        if seconds not in (DEADLINE, BaseParameters().connect_timeout):  # else it is none
            pauses.append(round(seconds / 1.25 * 1000))
        return timeout(seconds)

    monkeypatch.setattr(asyncio, "timeout", note)
    monkeypatch.setattr(_session, "jitter", lambda: 1.25)
    monkeypatch.setattr(_session, "FIRST_PAUSE", 0.001)
    return pauses


async def test_the_pauses_grow_to_a_limit_and_are_jittered(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(_session, "LONGEST_PAUSE", 0.006)
    session = Session_(Dialled(*[OSError()] * 5, FakeLink()))
    await session.ready()
    assert pauses == [1, 2, 4, 6, 6]
    await session.close()


def test_the_jitter_is_half_a_pause_to_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for drawn in (b"\0\0", b"\xff\xff"):
        monkeypatch.setattr(_session, "urandom", lambda count, drawn=drawn: drawn[:count])
        found.append(_session.jitter())
    assert found == [0.5, 1.5]


async def test_it_is_tried_again_though_nothing_can_be_imported_for_want_of_descriptors(
    hasty: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "random", None)  # as in a program that does not need it
    session = Session_(Dialled(*[OSError()] * 3, FakeLink()))
    await soon(session.ready())
    assert session.dial.count == 4
    assert "supervision ended" not in caplog.text
    await session.close()


async def test_the_pauses_grow_too_when_each_link_breaks_at_once(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    # No link lasts as long as that, however slow the machine is.
    monkeypatch.setattr(_session, "FIRST_PAUSE", 100.0)
    monkeypatch.setattr(_session, "LONGEST_PAUSE", 1000.0)

    async def open_broken() -> FakeLink:
        link = FakeLink()
        link.abort(None)
        return link

    session = Session_(Dialled(*[open_broken] * 4, FakeLink()))
    session.start()
    told = asyncio.create_task(session.news.wait(9))
    while not told.done():
        session.hurry()
        await asyncio.sleep(0)
    await told
    assert pauses == [100_000, 200_000, 400_000, 800_000]
    await session.close()


async def test_after_a_link_that_has_lasted_the_pauses_begin_anew(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(_session, "LONGEST_PAUSE", 0.004)
    lasting = FakeLink()
    session = Session_(Dialled(*[OSError()] * 4, lasting, FakeLink()))
    await session.ready()
    asyncio.get_running_loop().call_later(0.05, lasting.abort, None)
    await session.news.wait(3)
    assert pauses == [1, 2, 4, 4, 1]
    await session.close()


@pytest.mark.parametrize(
    "reason", [AuthError("an administrator has withdrawn it"), TakenOver("another client came")]
)
async def test_after_a_link_that_was_ended_for_want_of_a_right_or_taken_over_the_pause_is_long(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], reason: Exception
) -> None:
    monkeypatch.setattr(_session, "AUTH_PAUSE", 0.009)
    ended = FakeLink()
    session = Session_(Dialled(ended, FakeLink()))
    await session.ready()
    ended.abort(reason)
    await session.news.wait(2)
    assert session.failure is None, "it is an outage like any other"
    await session.news.wait(3)
    assert pauses == [9]
    await session.close()


async def test_after_an_attempt_that_ends_in_a_take_over_the_pause_is_long_too(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(_session, "AUTH_PAUSE", 0.009)
    session = Session_(Dialled(TakenOver("another client came"), FakeLink()))
    await session.ready()
    assert pauses == [9]
    await session.close()


async def test_a_session_that_is_told_to_hurry_does_not_sit_out_its_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_session, "FIRST_PAUSE", 1000.0)
    tried, link = asyncio.Event(), FakeLink()

    async def refuse() -> OSError:
        tried.set()
        return OSError("refused")

    session = Session_(Dialled(refuse, link))
    session.start()
    await soon(tried.wait())
    await asyncio.sleep(0)
    ready = asyncio.create_task(session.ready())
    while not ready.done():
        session.hurry()
        await asyncio.sleep(0)
    assert session.link is link
    await session.close()


async def test_a_lost_link_is_replaced_and_both_are_told(hasty: None) -> None:
    first, second = FakeLink(), FakeLink()
    session = Session_(Dialled(first, second))
    await session.ready()
    assert session.was_linked
    reason = ConnectionLost("cut by the test")
    first.abort(reason)
    items = await session.news.wait(3)
    assert items == [(first, None), (None, reason), (second, None)]
    await session.close()


async def test_for_a_while_it_is_just_back_where_the_broker_was_away_and_only_there(
    hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = FakeLink(), FakeLink()
    session = Session_(Dialled(first, second))
    assert not session.is_just_back
    await session.ready()
    assert not session.is_just_back
    first.abort(ConnectionLost("cut by the test"))
    await session.news.wait(3)
    assert session.is_just_back
    monkeypatch.setattr(_session, "SETTLING_SECONDS", 0.0)
    assert not session.is_just_back
    await session.close()


async def test_it_is_just_back_as_well_if_it_was_not_there_at_first(hasty: None) -> None:
    session = Session_(Dialled(ConnectError("away"), FakeLink()))
    await session.ready()
    assert session.is_just_back
    await session.close()
    assert not session.is_just_back


async def test_a_link_that_the_broker_closes_is_lost_for_a_reason(
    hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = FakeLink(), FakeLink()
    session = Session_(Dialled(first, second))
    await session.ready()
    first.abort(None)
    _, (link, reason), _ = await session.news.wait(3)
    assert link is None
    assert isinstance(reason, ConnectionLost)
    assert "fake lost: closed by the broker; trying again" in caplog.messages
    await session.close()


async def test_an_attempt_that_takes_too_long_is_given_up() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    session = Session_(Dialled(never), connect_timeout=0.01, reconnect=False)
    with pytest.raises(ConnectError, match=r"cannot be reached: no answer within 0\.01 s"):
        await soon(session.ready())
    await session.close()


async def test_further_connections_of_a_transport_complain_less(
    hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    news, first = News(), Session_(Dialled(FakeLink()))
    params = BaseParameters()
    session = Session("2nd", params, Dialled(OSError("no"), FakeLink()), news, first=first)
    await session.ready()
    await session.close()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_refusal_is_told_by_the_first_connection_unless_that_is_let_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = Session_(Dialled(AuthError("wrong"), FakeLink()))
    params = BaseParameters()

    async def refused() -> list[str]:
        session = Session("2nd", params, Dialled(AuthError("refused")), News(), first=first)
        with pytest.raises(AuthError):
            await soon(session.ready())
        await session.close()
        return [r.message for r in caplog.records if r.levelno >= logging.WARNING]

    assert await refused() == []
    with pytest.raises(AuthError):
        await soon(first.ready())
    assert await refused() == ["wrong; trying again, twice a minute"]
    first.hurry()
    await first.news.wait(1)
    assert (await refused())[-1].startswith("refused; ")
    await first.close()


# ---- what only a person can mend ----


async def test_a_refusal_is_raised_at_once_and_tried_again_all_the_same(hasty: None) -> None:
    link, gate = FakeLink(), asyncio.Event()

    async def accept_later() -> FakeLink:
        await gate.wait()
        return link

    session = Session_(Dialled(AuthError("wrong password"), accept_later))
    with pytest.raises(AuthError, match="wrong password"):
        await soon(session.ready())
    assert isinstance(session.failure, AuthError)
    gate.set()
    assert await session.news.wait(1) == [(link, None)]
    assert session.failure is None
    await soon(session.ready())
    await session.close()


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("mqtts://robot:1883", r"running there\? TLS is mostly spoken on port 8883$"),
        ("amqps://robot:5672", r"running there\? TLS is mostly spoken on port 5671$"),
        ("mqtts://robot", r"running there\?$"),
        ("mqtt://robot", r"running there\?$"),
    ],
)
async def test_who_wants_tls_where_it_is_hardly_spoken_is_told(url: str, hint: str) -> None:
    params = replace(resolve(url), reconnect=False)
    session = Session("robot", params, Dialled(ConnectionRefusedError("refused")), News())
    with pytest.raises(ConnectError, match=hint):
        await soon(session.ready())
    await session.close()


async def test_while_a_refusal_is_sat_out_everybody_is_told_and_the_broker_is_left_alone() -> None:
    session = Session_(Dialled(AuthError("wrong password")))
    for _ in range(3):
        with pytest.raises(AuthError):
            await soon(session.ready())
    assert session.dial.count == 1
    await session.close()


async def test_without_reconnection_the_first_failure_is_final_until_it_is_asked_again() -> None:
    link = FakeLink()
    failures = [OSError("refused"), OSError("refused again")]
    session = Session_(Dialled(*failures, link), reconnect=False)
    with pytest.raises(ConnectError, match="refused"):
        await soon(session.ready())
    with pytest.raises(ConnectError, match="refused again"):
        await soon(session.ready())
    await soon(session.ready())
    assert session.dial.count == 3
    await session.close()


async def test_without_reconnection_a_lost_link_stays_lost(hasty: None) -> None:
    first, second = FakeLink(), FakeLink()
    told = asyncio.Event()
    session = Session_(Dialled(first, second), reconnect=False)
    session.on_failure = told.set
    await session.ready()
    first.abort(ConnectionLost("cut by the test"))
    await soon(told.wait())
    await session.news.wait(2)
    assert isinstance(session.failure, ConnectionLost)
    assert "cut by the test" in str(session.failure)
    assert session.dial.count == 1
    await soon(session.ready())  # somebody asks for it
    assert session.link is second
    await session.close()


async def test_a_fault_of_the_dialling_code_itself_is_told_once_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = Session_(Dialled(RuntimeError("no threads"), RuntimeError("no threads"), FakeLink()))
    told = asyncio.Event()
    session.on_failure = told.set
    await soon(session.ready())
    assert told.is_set()
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)
    await session.close()


# ---- close ----


async def test_close_ends_the_link_and_tells_so() -> None:
    link = FakeLink()
    session = Session_(Dialled(link))
    await session.ready()
    await session.close()
    assert link.closed.done()
    assert session.link is None
    [_, (gone, reason)] = session.news.items
    assert gone is None
    assert isinstance(reason, ConnectionLost)


@pytest.mark.parametrize("when", ["before", "dialling", "pausing", "linked"])
async def test_close_may_come_at_any_time_and_twice(when: str) -> None:
    dialling, never = asyncio.Event(), asyncio.Event()

    async def dial() -> Any:
        dialling.set()
        if when == "dialling":
            await never.wait()
        return OSError("refused") if when == "pausing" else FakeLink()

    session = Session_(Dialled(dial))
    if when != "before":
        session.start()
        await soon(dialling.wait())
        await asyncio.sleep(0)
    await soon(asyncio.gather(session.close(), session.close()))
    await soon(session.close())
    assert session.link is None
    assert session.failure is None


async def test_a_closed_session_can_begin_again() -> None:
    first, second = FakeLink(), FakeLink()
    session = Session_(Dialled(first, second))
    await session.ready()
    await session.close()
    assert not session.was_linked
    await soon(session.ready())
    assert session.link is second
    await session.close()


# ---- a link that is silent ----


async def test_a_silent_link_is_probed_and_kept_if_it_answers() -> None:
    link = FakeLink()
    session = Session_(Dialled(link), keepalive=0.02)
    await session.ready()
    for _ in range(3):
        link.probed.clear()
        await soon(link.probed.wait())
    assert session.link is link
    await session.close()


async def test_a_silent_link_that_does_not_answer_is_cut_and_replaced(hasty: None) -> None:
    dead, fresh = FakeLink(answers=False), FakeLink()
    session = Session_(Dialled(dead, fresh), keepalive=0.02)
    await session.ready()
    _, (_, reason), (link, _) = await session.news.wait(3)
    assert dead.probed.is_set()
    assert isinstance(reason, ConnectionLost)
    assert "no sign of life" in str(reason)
    assert link is fresh
    await session.close()


async def test_a_link_may_allow_more_silence_for_a_while() -> None:
    link = FakeLink()
    link.keepalive = 0.02
    session = Session_(Dialled(link), keepalive=DEADLINE)
    await session.ready()
    await soon(link.probed.wait())
    link.keepalive = 1000.0
    link.probed.clear()
    link._answers = False
    await asyncio.sleep(0.1)
    assert not link.probed.is_set()
    assert session.link is link
    await session.close()


async def test_a_link_is_not_cut_for_a_silence_that_was_our_own() -> None:
    link = FakeLink()
    session = Session_(Dialled(link), keepalive=0.05)
    await session.ready()
    # As after a suspended laptop or a stopped process: nothing was heard, but nobody has asked.
    link.heard -= 1000
    await soon(link.probed.wait())
    link.probed.clear()
    await soon(link.probed.wait())
    assert session.link is link
    await session.close()


async def test_links_that_were_lost_are_kept_by_no_look_that_is_yet_to_be_taken(
    hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "ALONE_PAUSE", 1000)
    links = [FakeLink(), FakeLink()]
    main = Session_(Dialled(links[0], FakeLink()))
    await soon(main.ready())
    side = Session_(Dialled(links[1], FakeLink()), first=main)
    await soon(side.ready())
    lost = [ref(link) for link in links]
    for session, link in ((side, links[1]), (main, links[0])):
        link.abort(ConnectionLost("cut"))
        await session.news.wait(3)
    main.news.items.clear()
    side.news.items.clear()
    links.clear()
    del link, session
    gc.collect()
    assert [each() for each in lost] == [None, None]
    await side.close()
    await main.close()


@pytest.mark.parametrize("main_is", ["there", "silent", "lost"])
async def test_a_loss_that_the_main_connection_does_not_share_is_told_once(
    hasty: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, main_is: str
) -> None:
    monkeypatch.setattr(_session, "ALONE_PAUSE", 0.001)
    monkeypatch.setattr(_session, "LOOK_AGAIN", 0.001)
    first_link, link = FakeLink(), FakeLink()
    main = Session_(Dialled(first_link, FakeLink()))
    await soon(main.ready())
    side = Session_(Dialled(link, *[OSError("not yet")] * 5, FakeLink()), first=main)
    side.name = "side"
    await soon(side.ready())
    link.abort(ConnectionLost("cut"))
    if main_is == "lost":
        first_link.abort(ConnectionLost("cut"))
    await side.news.wait(3)
    if main_is == "there":
        first_link.heard = asyncio.get_running_loop().time() + 1
    told = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, told.set)  # after what the session has to tell
    await soon(told.wait())
    alone = [r.message for r in caplog.records if "was not" in r.message]
    assert alone == (["side was lost, and fake was not: cut"] if main_is == "there" else [])
    await side.close()
    await main.close()


@pytest.mark.parametrize(("unsent", "is_told"), [(500, True), (0, False)])
def test_a_loop_that_ends_with_bytes_on_their_way_tells_it(
    unsent: int, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def forget() -> None:
        link = FakeLink()
        link.unsent_bytes = unsent
        session = Session_(Dialled(link))
        session.start()
        await session.news.wait(1)

    asyncio.run(forget())
    assert ("the event loop ends with 500 bytes on their way" in caplog.text) is is_told


async def test_a_session_that_is_closed_with_bytes_on_their_way_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = FakeLink()
    link.unsent_bytes = 500
    session = Session_(Dialled(link))
    session.start()
    await session.news.wait(1)
    await session.close()
    assert "on their way" not in caplog.text
