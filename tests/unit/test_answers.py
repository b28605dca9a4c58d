"""What a service remembers of requests that may come again."""

from __future__ import annotations

import pytest

from commlib._packet import Header, Packet
from commlib.aio import _answers
from commlib.aio._answers import Answers


def ask(answers: Answers, id: str, reply_to: str = "me") -> tuple[bool, object]:
    return answers.begin(Packet(b""), Header(id=id, reply_to=reply_to))


def test_a_request_is_handled_once_and_answered_each_time() -> None:
    answers = Answers()
    assert ask(answers, "a") == (True, None)
    assert ask(answers, "a", "me again") == (False, None)
    reply = Packet(b"yes")
    told = answers.end("a", reply)
    assert [(to.reply_to, packet) for to, packet in told] == [("me again", reply)]
    is_first, answer = ask(answers, "a", "once more")
    assert not is_first
    assert isinstance(answer, tuple)
    assert (answer[0].reply_to, answer[1]) == ("once more", reply)
    assert ask(answers, "b") == (True, None)


def test_one_that_was_given_up_may_be_handled_again() -> None:
    answers = Answers()
    ask(answers, "a")
    assert answers.end("a", None) == []
    assert ask(answers, "a") == (True, None)


@pytest.mark.parametrize("size", [10, _answers.MAX_BYTES // 100])
def test_the_oldest_are_forgotten_when_there_are_too_many_or_too_big_ones(size: int) -> None:
    answers = Answers()
    for number in range(_answers.MAX_ANSWERS + 1):
        ask(answers, str(number))
        answers.end(str(number), Packet(b"x" * size))
    assert ask(answers, "0") == (True, None)
    assert ask(answers, str(_answers.MAX_ANSWERS))[0] is False


def test_what_is_old_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers()
    ask(answers, "a")
    answers.end("a", Packet(b"yes"))
    monkeypatch.setattr(_answers, "KEPT_SECONDS", -1.0)
    assert ask(answers, "a") == (True, None)
