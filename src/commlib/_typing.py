"""Type variables that are Any where nobody says: ``create_publisher("topic")`` needs no annotation.

Defaults of type variables are in the standard library from Python 3.13 on; type checkers know them
by ``typing_extensions``, which is not needed when the program runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
    Req = TypeVar("Req", default=Any)
    Resp = TypeVar("Resp", default=Any)
    GoalT = TypeVar("GoalT", default=Any)
    ResultT = TypeVar("ResultT", default=Any)
    FeedbackT = TypeVar("FeedbackT", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")
    Req = TypeVar("Req")
    Resp = TypeVar("Resp")
    GoalT = TypeVar("GoalT")
    ResultT = TypeVar("ResultT")
    FeedbackT = TypeVar("FeedbackT")

OnMessage = Callable[[T], Any] | Callable[[T, str], Any]
"""What a subscriber may call: with a message, and perhaps its topic."""
