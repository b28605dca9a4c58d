"""`commlib action`: which actions there are, what one takes and tells; sending goals, ending them.

Exit status of `send`: 0 if the goal has succeeded, 1 if it was refused, aborted or cancelled, or
has not ended in time, 130 after a second Ctrl-C, or the first if nobody has taken it. Of `cancel`:
0 if the goal was cancelled, else 1.
"""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import click

from commlib._params import BaseParameters
from commlib.aio import Node
from commlib.aio._action import CancelGoal, GetResult, part_name, unix_seconds
from commlib.aio.action import ClientGoal
from commlib.cli._common import (
    INTERRUPTED,
    command,
    connected,
    on_signals,
    same_broker,
    until_set,
)
from commlib.cli._goal_views import view_for
from commlib.cli._groups import Group
from commlib.cli._options import JSON, JSON_LINES, NO_CHECK, WAIT, timeout_option
from commlib.cli._payload import HELP, read_payload
from commlib.cli._printing import print_json, say
from commlib.cli._pursuit import CANCELED, CANCELING, SUCCEEDED, Pursuit, Stops, end_of, name_of
from commlib.cli._served import (
    ACTION,
    Served,
    add_views,
    ask_served,
    check_message,
    name_of_served,
    unanswered,
)
from commlib.exceptions import GoalRefused, RPCTimeout

NOTICE = "canceling; Ctrl-C again leaves the goal to itself"


@click.group(cls=Group)
def action() -> None:
    """List actions, look at one, send goals, end them."""


add_views(action, ACTION)


# ---- send ----


@action.command(epilog=HELP)
@name_of_served(ACTION)
@click.argument("message", metavar="[GOAL]", default="{}")
@timeout_option("How long to wait for the end; then the goal goes on.", default=None)
@click.option(
    "--no-wait", is_flag=True, help="Print the id of the goal as soon as it is accepted, and end."
)
@click.option(
    "--progress",
    metavar="FIELD[:TOTAL]",
    help="The field of the feedback that the bar shows. TOTAL is a number, a field of the "
    "feedback, or goal.FIELD.",
)
@NO_CHECK
@WAIT
@JSON_LINES
@command
async def send(
    url: BaseParameters,
    name: str,
    message: str,
    timeout: float | None,
    no_wait: bool,
    progress: str | None,
    no_check: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Send a goal to the action NAME, show its feedback, and its result at the end.

    Without GOAL the goal is empty. It is checked against what nodes tell of the action, if one
    does, and then sent.

    On a terminal there is a progress bar if the feedback has a number that is called percent,
    progress, fraction or the like, or --progress names one. With --json there is an object a line:
    accepted or refused, status, feedback, result.

    Ctrl-C cancels the goal and waits for its end, a second one leaves it, and so does the first if
    no service has taken it. Exit status 0 if the goal has succeeded, 1 if it was refused, aborted
    or cancelled, or has not ended in time.
    """
    data = read_payload(message)
    view = view_for(data, as_json=as_json, id_only=no_wait, progress=progress)
    async with connected(url) as node:
        pursuit = Pursuit(node, name, view)  # first of all, for the name may be none
        known = None if no_check else await ask_served(node, wait, ACTION)
        check_message(data, name, known, ACTION)
        work = _Send(node, name, pursuit, known)
        try:
            status = await work.run(data, timeout, no_wait)
        except BrokenPipeError:
            say(f"nobody reads this any more{work.how_to_cancel()}", err=True)
            raise
        finally:
            view.close()
    if status:
        raise SystemExit(status)


class _Send:
    """One run of `commlib action send`."""

    def __init__(
        self, node: Node, name: str, pursuit: Pursuit, known: dict[str, Served] | None
    ) -> None:
        self._node = node
        self._name = name
        self._view = pursuit.view
        self._known = known
        self._pursuit = pursuit
        self._status = 1

    async def run(self, data: Any, timeout: float | None, no_wait: bool) -> int:
        """Send the goal and follow it; the exit status."""
        stops = Stops(lambda: self._view.note(NOTICE), lambda: self._pursuit.goal is not None)
        with on_signals(stops.hear):
            if await until_set(stops.ordered, self._pursue(data, timeout, no_wait, stops)):
                self._view.close()
                self._view.note(f"left{self.how_to_cancel()}")
                return INTERRUPTED
        return self._status

    async def _pursue(self, data: Any, timeout: float | None, no_wait: bool, stops: Stops) -> None:
        begun = asyncio.get_running_loop().time()
        try:
            goal = await self._pursuit.send(data, timeout)
        except GoalRefused as exc:
            self._view.ended("", None, exc)
            return
        except RPCTimeout as exc:
            raise unanswered(exc, self._name, self._known, ACTION) from exc
        if no_wait and not stops.wished.is_set():
            self._status = 0
            return
        end = None if timeout is None else begun + timeout
        try:
            async with asyncio.timeout_at(end):
                await self._pursuit.follow(goal, stops)
        except TimeoutError:
            self._view.close()
            text = f"it has not ended within {timeout:g} s{self.how_to_cancel()}"
            raise click.ClickException(text) from None
        self._tell_end(goal)

    def _tell_end(self, goal: ClientGoal[Any, Any]) -> None:
        status, result, error = end_of(goal)
        self._view.ended(status, result, error)
        self._status = 0 if status == SUCCEEDED and error is None else 1

    def how_to_cancel(self) -> str:
        """The end of a sentence that tells what becomes of the goal."""
        goal = self._pursuit.goal
        if goal is None:
            return "; whether the service has taken the goal is not known"
        words = shlex.join(("commlib", "action", "cancel", self._name, goal.goal_id))
        return f"; it goes on, until: {words}{same_broker(self._node.hub.params)}"


# ---- cancel ----


@action.command()
@name_of_served(ACTION)
@click.argument("goal_id")
@timeout_option("How long to wait for the service to agree, and for the goal to end.", default=10.0)
@click.option("--no-wait", is_flag=True, help="Do not wait for the goal to end.")
@JSON
@command
async def cancel(
    url: BaseParameters, name: str, goal_id: str, timeout: float, no_wait: bool, as_json: bool
) -> None:
    """Cancel the goal GOAL_ID of the action NAME, whoever has sent it, and wait for its end.

    Exit status 0 if it was cancelled, or, with --no-wait, if the service agrees to that; 1 if it
    does not, does not know the goal, or if that ends in another way or not in time.
    """
    async with connected(url) as node:
        try:
            agrees, state = await _cancel(node, name, goal_id, timeout, no_wait)
        except RPCTimeout as exc:
            raise unanswered(exc, name, None, ACTION) from exc
    if as_json:
        print_json({"goal_id": goal_id, "agrees": agrees, "status": state})
    else:
        say(_told(f"goal {goal_id}", name, agrees, state))
    wanted = (CANCELED, CANCELING) if no_wait else (CANCELED,)
    if not agrees or state not in wanted:
        raise SystemExit(1)


async def _cancel(
    node: Node, name: str, goal_id: str, timeout: float, no_wait: bool
) -> tuple[bool, str]:
    """Whether the service agrees, and in which state the goal is then; empty if it is not known."""

    async def ask(part: str, types: Any, request: Any) -> int:
        client = node.create_rpc_client(part_name(name, part), types)
        return int((await client.call(request, timeout)).status)

    request = CancelGoal.Request(goal_id, unix_seconds())
    if await ask("cancel_goal", CancelGoal, request) != 1:
        return False, name_of(await ask("get_result", GetResult, GetResult.Request(goal_id)))
    if no_wait:
        return True, CANCELING
    goal = await node.create_action_client(name).watch(goal_id)
    await goal.wait(timeout)
    return True, end_of(goal)[0] if goal.done else CANCELING


def _told(goal: str, name: str, agrees: bool, state: str) -> str:
    if not agrees:
        if not state:
            return f"{name} knows no {goal}"
        if state in (SUCCEEDED, CANCELED, "ABORTED"):
            return f"{goal} has ended before: {state}"
        return f"{name} does not cancel {goal}: it is {state}"
    if state == CANCELED:
        return f"{goal} was cancelled"
    if state == CANCELING:
        return f"{goal} is being cancelled, and has not ended yet"
    if state:
        return f"{goal} was to be cancelled, but has ended as {state}"
    return f"{goal} was to be cancelled; how it has ended is not known"
