"""What happens at a pace: small delays are made up for, long ones are not."""

from __future__ import annotations

import pytest

from commlib._pace import Pace

Step = tuple[float, float, float]  # the time, when something is due, and the pause until then


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(0, 0, 0), (0, 1, 1), (1, 2, 1), (2.5, 2.5, 0)], id="in time"),
        pytest.param(
            [(0, 1, 1), (1.4, 2, 0.6), (2.4, 2, 0), (2.4, 3, 0.6)], id="little is made up"
        ),
        pytest.param([(0, 1, 1), (61, 1, 0), (61, 2, 0.5), (61.5, 3, 1)], id="of much a little is"),
        pytest.param([(61, 1, 0), (121, 2, 0), (121, 3, 0.5)], id="each time"),
        pytest.param(
            [(0, 60, 60), (60, 60, 0), (60, 59, 0), (60, 61, 1)], id="what is older goes at once"
        ),
    ],
)
def test_the_pause_is_that_until_it_is_due_counted_from_the_beginning(steps: list[Step]) -> None:
    now = 0.0
    pace = Pace(lambda: 100.0 + now, catch_up=0.5)
    for at, due, pause in steps:
        now = at
        assert pace.pause(due) == pytest.approx(pause)
