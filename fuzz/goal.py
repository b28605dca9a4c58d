"""The life of a goal, and what others hear of it, in any order."""

from __future__ import annotations

from commlib._goal import NEXT, TERMINAL, Finished, GoalState, GoalStatus, later
from fuzz.script import Script

STATES = tuple(NEXT)


def run(data: bytes) -> None:
    """One goal, and a store of finished ones."""
    script = Script(data)
    _live(script)
    _keep(script)


def _live(script: Script) -> None:
    """A goal goes its way; whoever hears of it, however late, is never wrong about it."""
    goal, path, known = GoalState(), [GoalStatus.ACCEPTED], 0
    wish: GoalStatus | None = None
    for _ in range(script.number() % 32):
        what = script.number()
        if what & 3 == 0:
            wish = _wish(goal, script.number() - 3, wish)
        elif what & 3 == 1:
            known = _hear(known, what >> 2, path)
        else:
            _move(goal, what >> 2, path)
        assert goal.status is path[-1]
        assert goal.is_finished is (goal.status in TERMINAL)
    for status in path:
        known = later(known, status)
    assert known == path[-1]
    if not goal.is_finished:
        _end(goal, script.flag(), wish)


def _wish(goal: GoalState, status: int, before: GoalStatus | None) -> GoalStatus | None:
    try:
        goal.wish(status)
    except ValueError:
        assert status not in TERMINAL
        assert status != GoalStatus.EXECUTING
        return before
    return GoalStatus(status) if status in TERMINAL else None


def _hear(known: int, which: int, path: list[GoalStatus]) -> int:
    """Of a state that there was, or of a number that is none."""
    heard = int(path[which % len(path)]) if which & 1 else (0, 7, -1, 255)[which & 3]
    now = later(known, heard)
    assert now >= known
    assert now == 0 or now in path
    assert later(now, heard) == now
    return now


def _move(goal: GoalState, which: int, path: list[GoalStatus]) -> None:
    status = STATES[which % len(STATES)]
    if status in NEXT[goal.status]:
        goal.move(status)
        path.append(status)
        return
    try:
        goal.move(status)
    except AssertionError:
        return
    raise RuntimeError(f"{goal.status.name} came before {status.name}")


def _end(goal: GoalState, failed: bool, wish: GoalStatus | None) -> None:
    outcome = goal.outcome(failed)
    assert outcome in TERMINAL
    if failed or wish is GoalStatus.ABORTED:
        assert outcome is GoalStatus.ABORTED
    elif goal.is_canceling:
        assert outcome is GoalStatus.CANCELED
    else:
        assert outcome is (wish or GoalStatus.SUCCEEDED)
    if goal.status is not GoalStatus.ACCEPTED:
        goal.move(outcome)


def _keep(script: Script) -> None:
    """The store against a list of all that there was."""
    now = 0.0
    ttl, capacity = float(script.number() % 8), script.number() % 5
    store: Finished[int] = Finished(ttl, capacity, lambda: now)
    ended: list[tuple[float, int]] = []
    for number in range(script.number() % 32):
        now += script.number() % 4
        store.add(str(number), number)
        ended.append((now, number))
        young = [each for when, each in ended if when > now - ttl]
        kept = young[-capacity:] if capacity else []
        assert len(store) == len(kept)
        assert [store.get(str(each)) for each in range(number + 1)] == [
            each if each in kept else None for each in range(number + 1)
        ]
        seconds = script.number() % 4
        recent = [each for when, each in ended if each in kept and when >= now - seconds]
        assert list(store.newest(seconds)) == recent[::-1]
