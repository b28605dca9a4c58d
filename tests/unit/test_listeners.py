"""Who is told when a connection comes and goes."""

from __future__ import annotations

from dataclasses import dataclass, field

from commlib.aio._listeners import Listeners


@dataclass
class Diary:
    """Can be called, and has no hash."""

    heard: list[bool] = field(default_factory=list)

    def __call__(self, connected: bool, reason: Exception | None) -> None:
        self.heard.append(connected)


def test_each_is_there_once_in_the_order_of_their_coming_until_it_leaves() -> None:
    listeners, one, other = Listeners(), Diary(), Diary()
    assert one == other, "they are two all the same"
    for listener in (one, print, other, one.__call__, one, print):
        listeners.add(listener)
    assert [id(listener) for listener in listeners][:3] == [id(one), id(print), id(other)]
    assert len(listeners) == 4
    for listener in (one, one.__call__, one):
        listeners.discard(listener)
    assert [id(listener) for listener in listeners] == [id(print), id(other)]


def test_who_is_told_may_leave_and_bring_others() -> None:
    listeners, diary = Listeners(), Diary()

    def once(connected: bool, reason: Exception | None) -> None:
        listeners.discard(once)
        listeners.add(diary)

    listeners.add(once)
    for listener in listeners:
        listener(True, None)
    assert diary.heard == [], "it came too late for that"
    assert list(listeners) == [diary]


def test_of_many_none_is_compared_with_the_others() -> None:
    class Named:
        compared = 0

        def __hash__(self) -> int:
            return id(self)

        def __eq__(self, other: object) -> bool:
            Named.compared += 1
            return self is other

        def __call__(self, connected: bool, reason: Exception | None) -> None: ...

    listeners, many = Listeners(), [Named() for _ in range(1000)]
    for listener in many:
        listeners.add(listener)
    for listener in many:
        listeners.discard(listener)
    assert not listeners
    assert Named.compared < len(many), "hashes of two of them may be alike in part"
