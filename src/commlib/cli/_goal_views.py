"""What is shown of a goal from its sending to its end: lines, a progress bar, or JSON."""

from __future__ import annotations

from typing import Any, Protocol

import click
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from commlib.cli._printing import console, draws, print_line, say
from commlib.cli._progress import Share, given_share, share_in
from commlib.cli._shown import inline, lines, printable
from commlib.exceptions import CommlibError, GoalAborted, GoalRefused


class View(Protocol):
    """Told what becomes of a goal, in order, on the loop."""

    def accepted(self, goal_id: str) -> None: ...
    def status(self, name: str) -> None: ...
    def feedback(self, feedback: Any) -> None: ...
    def note(self, text: str) -> None: ...
    def ended(self, status: str, result: Any, error: CommlibError | None) -> None: ...
    def close(self) -> None: ...


def view_for(goal: Any, *, as_json: bool, id_only: bool, progress: str | None) -> View:
    """JSON, only its id, a bar where somebody looks, or lines.

    ``progress`` is what the bar shall show of ``goal``. Raises ValueError for what it cannot.
    """
    share = None if progress is None else given_share(progress, goal)
    if as_json:
        return JSONView()
    if id_only:
        return IDView()
    return BarView(share) if draws(console()) else LinesView()


class JSONView:
    """One object a line, each with its ``event``."""

    def accepted(self, goal_id: str) -> None:
        self._print("accepted", goal_id=goal_id)

    def status(self, name: str) -> None:
        self._print("status", status=name)

    def feedback(self, feedback: Any) -> None:
        self._print("feedback", feedback=feedback)

    def note(self, text: str) -> None:
        say(text, err=True)

    def ended(self, status: str, result: Any, error: CommlibError | None) -> None:
        if isinstance(error, GoalRefused):
            self._print("refused", reason=str(error))
            return
        if error is None:
            self._print("result", status=status, result=result)
            return
        kind, message = type(error).__name__, str(error)
        if isinstance(error, GoalAborted):
            kind, message = error.type, error.message
        self._print("result", status=status, error={"type": kind, "message": message})

    def close(self) -> None:
        """Nothing is left on the screen."""

    def _print(self, event: str, **fields: Any) -> None:
        print_line({"event": event, **fields})


class LinesView:
    """A line for each, then the result."""

    def accepted(self, goal_id: str) -> None:
        self._print(f"goal {goal_id} accepted")

    def status(self, name: str) -> None:
        self._print(name.lower())

    def feedback(self, feedback: Any) -> None:
        self._print(f"feedback: {inline(feedback)}")

    def note(self, text: str) -> None:
        click.echo(printable(text), err=True)

    def ended(self, status: str, result: Any, error: CommlibError | None) -> None:
        if isinstance(error, GoalRefused):
            self.note(f"refused: {error}")
        elif isinstance(error, GoalAborted):
            self.note(f"aborted: {error}")
        elif error is not None:
            self.note(str(error))
        elif result in (None, {}):
            self._print(status.lower())
        else:
            self._print(f"{status.lower()}, with the result")
            for line in lines(result, full=True):
                click.echo(line)

    def close(self) -> None:
        """Nothing is left on the screen."""

    def _print(self, text: str) -> None:
        click.echo(printable(text))


class IDView(LinesView):
    """The id of the goal, for a program that goes on by itself."""

    def accepted(self, goal_id: str) -> None:
        self._print(goal_id)


class BarView(LinesView):
    """The same with a bar, as soon as a feedback tells how far the goal is."""

    def __init__(self, share: tuple[str, Share] | None = None) -> None:
        self._field = share[0] if share else ""
        self._share = share[1] if share else None
        self._is_given = share is not None
        self._state = "accepted"
        self._bar: Progress | None = None

    def status(self, name: str) -> None:
        self._state = name.lower()
        if self._bar is None:
            super().status(name)
        else:
            self._bar.update(self._task, description=self._state)

    def feedback(self, feedback: Any) -> None:
        if self._share is None and (found := share_in(feedback)) is not None:
            self._field, self._share = found
        done = None if self._share is None else self._share(feedback)
        if done is None:
            self._note_missing(feedback)
            super().feedback(feedback)
            return
        if self._bar is None:
            self._bar = _new_bar()
            self._task = self._bar.add_task(self._state, total=1.0, detail="")
            self._bar.start()
        self._bar.update(self._task, completed=done, detail=_rest(feedback, self._field))

    def _note_missing(self, feedback: Any) -> None:
        if self._is_given:
            self._is_given = False  # once
            names = ", ".join(map(str, feedback)) if isinstance(feedback, dict) else "none"
            self.note(f"no progress is told by {self._field!r}; the fields are: {names}")

    def ended(self, status: str, result: Any, error: CommlibError | None) -> None:
        self.close()
        super().ended(status, result, error)

    def close(self) -> None:
        """Leave the bar as it is, and the terminal as it was."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()


def _new_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        _Detail(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        console=console(),
        expand=True,
    )


class _Detail(TextColumn):
    """What else the feedback says, as it is: braces and brackets are no markup."""

    def __init__(self, table_column: Column) -> None:
        super().__init__("", table_column=table_column)

    def render(self, task: Any) -> Text:
        return Text(task.fields["detail"], style="dim")


def _rest(feedback: Any, field: str) -> str:
    """A feedback on one line, without the field that the bar shows."""
    if isinstance(feedback, dict):
        feedback = {name: value for name, value in feedback.items() if name != field}
    return inline(feedback) if feedback else ""
