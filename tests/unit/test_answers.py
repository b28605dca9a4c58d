"""What a service remembers of requests that may come again."""

from __future__ import annotations

import pytest

from commlib._packet import Header, Packet
from commlib.aio import _answers
from commlib.aio._answers import MAX_ASKERS, MAX_BYTES, MAX_IDS, Answer, Answers, Known


def ask(answers: Answers, id: str, reply_to: str = "me") -> Known | Answer:
    return answers.begin(Packet(b""), Header(id=id, reply_to=reply_to))


def test_a_request_is_handled_once_and_answered_each_time() -> None:
    answers = Answers()
    assert ask(answers, "a") is Known.NEW
    assert ask(answers, "a", "me again") is Known.PENDING
    reply = Packet(b"yes")
    told = answers.end("a", reply)
    assert [(to.reply_to, packet) for to, packet in told] == [("me again", reply)]
    answer = ask(answers, "a", "once more")
    assert isinstance(answer, tuple)
    assert (answer[0].reply_to, answer[1]) == ("once more", reply)
    assert ask(answers, "b") is Known.NEW


def test_one_that_was_given_up_may_be_handled_again() -> None:
    answers = Answers()
    ask(answers, "a")
    assert answers.end("a", None) == []
    assert ask(answers, "a") is Known.NEW


def handle(answers: Answers, count: int, size: int) -> None:
    for number in range(count):
        assert ask(answers, str(number)) is Known.NEW
        answers.end(str(number), Packet(b"x" * size))


@pytest.mark.parametrize(("count", "size"), [(100, MAX_BYTES // 50), (1, MAX_BYTES + 1)])
def test_of_much_that_was_answered_it_is_still_known_that_it_was(count: int, size: int) -> None:
    answers = Answers()
    handle(answers, count, size)
    assert ask(answers, "0") is Known.FORGOTTEN


def test_of_very_many_the_oldest_are_forgotten() -> None:
    answers = Answers()
    handle(answers, MAX_IDS + 1, 1)
    assert ask(answers, "0") is Known.NEW
    assert isinstance(ask(answers, "1"), tuple)


def test_what_is_old_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers()
    handle(answers, 1, 1)
    monkeypatch.setattr(_answers, "KEPT_SECONDS", -1.0)
    assert ask(answers, "0") is Known.NEW


def test_only_the_newest_of_those_who_ask_again_and_again_are_answered() -> None:
    answers = Answers()
    for number in range(1000):
        ask(answers, "a", str(number))
    told = answers.end("a", Packet(b"yes"))
    assert [to.reply_to for to, _ in told] == [str(n) for n in range(1000 - MAX_ASKERS, 1000)]
