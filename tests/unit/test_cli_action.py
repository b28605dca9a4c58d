"""`commlib action` as its user sees it."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from rich.console import Console

from announced import announced, answering_at_once
from brokers import Broker, RedisServer
from collected import DEADLINE, Collected, eventually
from commands import parsed, refused, run, succeeded
from commlib._discovery import EndpointInfo, NodeInfo
from commlib.action import GoalHandler
from commlib.aio._action import part_name
from commlib.cli import _goal_views, _pursuit
from commlib.cli._goal_views import BarView, view_for
from commlib.cli._progress import given_share
from commlib.cli._served import ACTION, all_served, print_list
from commlib.exceptions import GoalCanceled
from commlib.msg import ActionMessage
from commlib.node import Node

URL = "memory://cli-action"


class Drive(ActionMessage):
    class Goal(ActionMessage.Goal):
        metres: int = 0

    class Result(ActionMessage.Result):
        metres: int = 0

    class Feedback(ActionMessage.Feedback):
        metres: int = 0
        percent: float = 0.0


class DriveFar(ActionMessage):
    class Goal(ActionMessage.Goal):
        metres: str = ""

    class Result(ActionMessage.Result):
        metres: int = 0

    class Feedback(ActionMessage.Feedback):
        metres: int = 0


def drive(goal: GoalHandler) -> Drive.Result:
    """At once, as far as it is told; not 13 metres, and without end for more than 100."""
    wanted = goal.data.metres
    if wanted == 13:
        raise RuntimeError("13 metres are\nno distance")
    for metres in range(1, min(wanted, 100) + 1):
        goal.send_feedback(Drive.Feedback(metres=metres, percent=100 * metres / wanted))
    if wanted > 100:
        goal.cancel_event.wait(DEADLINE)
    return Drive.Result(metres=wanted)


@pytest.fixture(autouse=True, scope="module")
def _answers_come_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        answering_at_once(patch)
        yield


@pytest.fixture(scope="module")
def road() -> Iterator[None]:
    """Actions, one of which nobody tells of, and a client that fits one badly."""
    robot = Node("robot", connection_params=URL)
    robot.create_action("robot.drive", Drive, drive)
    robot.create_action("robot.wait", None, lambda goal: goal.cancel_event.wait(DEADLINE) and None)
    pilot = Node("pilot", connection_params=URL)
    pilot.create_action_client("robot.drive", DriveFar)
    silent = Node("silent", connection_params=URL, discovery=False)
    silent.create_action("silent.drive", Drive, drive)
    with silent, announced(URL, robot, pilot):
        yield


# ---- what there is ----


@pytest.mark.usefixtures("road")
def test_actions_are_listed_with_their_types_and_ends() -> None:
    head, *lines = succeeded(URL, "action", "list").splitlines()
    assert head.split() == ["ACTION", "TYPE", "SERVED", "BY", "CALLED", "BY"]
    assert [line.split() for line in lines] == [
        ["robot.drive", "Drive", "robot", "pilot"],
        ["robot.wait", "-", "robot", "-"],
    ]


def test_who_serves_an_action_twice_under_one_name_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = EndpointInfo("action", "rover.drive")
    nodes = [
        NodeInfo(name=name, id=f"{number}", process="p", host="here", pid=7, endpoints=(port,))
        for number, name in enumerate(["rover", "rover", "scout"])
    ]
    print_list(all_served(nodes, ACTION), ACTION)
    _, line = capsys.readouterr().out.splitlines()
    assert line.split(maxsplit=2)[2].removesuffix("-").strip() == "rover (2), scout"


@pytest.mark.usefixtures("road")
def test_info_shows_goal_result_and_feedback_and_what_does_not_go_together() -> None:
    out = succeeded(URL, "action", "info", "robot.drive")
    assert out.startswith("robot.drive, an action of Drive\nserved by robot (pid ")
    for part in ("GOAL", "RESULT", "FEEDBACK"):
        assert f"\n{part}" in out
    assert "percent   float  0.0" in out
    assert "mismatch: robot.drive: " in out
    found = parsed(URL, "action", "info", "robot.drive")
    assert found["goal"] == [{"name": "metres", "type": "int", "default": 0}]
    assert [field["name"] for field in found["feedback"]] == ["metres", "percent"]


@pytest.mark.usefixtures("road")
def test_the_parts_of_an_action_are_no_services_and_topics_of_their_own() -> None:
    assert parsed(URL, "rpc", "list") == []
    (robot,) = parsed(URL, "node", "info", "robot")
    assert {port["kind"] for port in robot["endpoints"]} == {"action"}


# ---- sending ----


@pytest.mark.usefixtures("road")
def test_a_goal_shows_its_feedback_and_its_result() -> None:
    first, *lines = succeeded(URL, "action", "send", "robot.drive", "metres: 2").splitlines()
    assert first.startswith("goal ")
    assert first.endswith(" accepted")
    assert lines == [
        "executing",
        'feedback: {"metres":1,"percent":50.0}',
        'feedback: {"metres":2,"percent":100.0}',
        "succeeded, with the result",
        "metres: 2",
    ]


@pytest.mark.usefixtures("road")
def test_what_becomes_of_a_goal_is_lines_of_json_in_order() -> None:
    out = succeeded(URL, "action", "send", "silent.drive", "metres: 1", "--no-check", "--json")
    accepted, *others = map(json.loads, out.splitlines())
    assert set(accepted) == {"event", "goal_id"}
    assert others == [
        {"event": "status", "status": "EXECUTING"},
        {"event": "feedback", "feedback": {"metres": 1, "percent": 100.0}},
        {"event": "result", "status": "SUCCEEDED", "result": {"metres": 1}},
    ]


@pytest.mark.usefixtures("road")
def test_all_feedback_is_shown() -> None:
    out = succeeded(URL, "action", "send", "silent.drive", "metres: 100", "--no-check", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    metres = [each["feedback"]["metres"] for each in events if each["event"] == "feedback"]
    assert metres == list(range(1, 101))


@pytest.mark.usefixtures("road")
def test_a_goal_that_does_not_fit_names_its_fields_and_is_not_sent() -> None:
    said = refused(URL, "action", "send", "robot.drive", "{metres: far, speed: 1}")
    assert said.splitlines()[1:3] == [
        '  metres: a whole number is expected, not "far"',
        "  speed: there is no such field; it has metres",
    ]


@pytest.mark.usefixtures("road")
def test_a_goal_that_is_refused_is_told_with_the_reason() -> None:
    arguments = ("action", "send", "robot.drive", "metres: far", "--no-check")
    said = refused(URL, *arguments)
    assert said.startswith("refused: ")
    assert "metres" in said
    result = run(URL, *arguments, "--json")
    event = json.loads(result.stdout)
    assert (result.exit_code, event["event"]) == (1, "refused")
    assert "metres" in event["reason"]


@pytest.mark.usefixtures("road")
def test_a_goal_that_is_aborted_is_told_with_what_was_raised_in_one_line() -> None:
    said = refused(URL, "action", "send", "silent.drive", "metres: 13", "--no-check")
    assert said.startswith("aborted: RuntimeError: 13 metres are\\")
    assert "\n" not in said
    result = run(URL, "action", "send", "silent.drive", "metres: 13", "--no-check", "--json")
    *_, end = map(json.loads, result.stdout.splitlines())
    assert (result.exit_code, end["event"], end["status"]) == (1, "result", "ABORTED")
    assert end["error"] == {"type": "RuntimeError", "message": "13 metres are\nno distance"}


@pytest.mark.usefixtures("road")
def test_a_name_that_nobody_serves_is_told_with_what_was_meant() -> None:
    arguments = ("action", "send", "robot.driv", "--timeout", "0.2")
    first, said = refused(URL, *arguments).splitlines()
    assert first == "no node tells that it serves robot.driv; asking all the same"
    assert said.startswith("Error: no reply from robot.driv.send_goal within ")
    assert said.endswith("; no node tells that it serves it; did you mean robot.drive?")


# ---- ending ----


@pytest.mark.usefixtures("road")
def test_a_goal_that_does_not_end_in_time_goes_on_and_can_be_cancelled() -> None:
    arguments = ("action", "send", "silent.drive", "metres: 101", "--no-check", "--timeout", "3")
    said = refused(URL, *arguments)
    assert said.startswith("Error: it has not ended within 3 s; it goes on, until: commlib ")
    words = shlex.split(said.partition("until: commlib ")[2])
    assert (words[:3], words[4:]) == (["action", "cancel", "silent.drive"], ["--url", URL])
    assert succeeded(URL, *words[:4]) == f"goal {words[3]} was cancelled\n"


@pytest.mark.usefixtures("road")
def test_a_goal_is_sent_by_one_command_and_cancelled_by_another() -> None:
    arguments = ("action", "send", "silent.drive", "metres: 101", "--no-check", "--no-wait")
    goal_id = succeeded(URL, *arguments).strip()
    found = parsed(URL, "action", "cancel", "silent.drive", goal_id)
    assert found == {"goal_id": goal_id, "agrees": True, "status": "CANCELED"}
    again = run(URL, "action", "cancel", "silent.drive", goal_id)
    assert (again.exit_code, again.stdout) == (1, f"goal {goal_id} has ended before: CANCELED\n")


@pytest.mark.usefixtures("road")
def test_a_goal_that_is_not_known_cannot_be_cancelled() -> None:
    result = run(URL, "action", "cancel", "silent.drive", "nobody")
    assert (result.exit_code, result.stdout) == (1, "silent.drive knows no goal nobody\n")


@pytest.mark.usefixtures("road")
def test_cancel_may_leave_the_end_to_itself() -> None:
    arguments = ("action", "send", "silent.drive", "metres: 101", "--no-check", "--no-wait")
    accepted = json.loads(succeeded(URL, *arguments, "--json"))
    assert accepted["event"] == "accepted"
    goal_id = accepted["goal_id"]
    out = succeeded(URL, "action", "cancel", "silent.drive", goal_id, "--no-wait")
    assert out == f"goal {goal_id} is being cancelled, and has not ended yet\n"
    again = ("action", "cancel", "silent.drive", goal_id)
    # While it is on its way to its end, the service agrees once more.
    eventually(lambda: "has ended before: CANCELED" in run(URL, *again).stdout)


@pytest.fixture
def make_action() -> Iterator[Callable[[Callable[[GoalHandler], Any]], None]]:
    """Serves an action of the name `own.action`."""
    node = Node("own", connection_params=URL, discovery=False)

    def make(work: Callable[[GoalHandler], Any]) -> None:
        node.create_action("own.action", None, work)
        node.run()

    yield make
    node.stop()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C a service has as long to take the goal as this machine needs for that."""
    monkeypatch.setattr(_pursuit, "ANSWER_SECONDS", DEADLINE)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


Make = Callable[[Callable[[GoalHandler], Any]], None]


@pytest.mark.usefixtures("patient")
def test_ctrl_c_cancels_the_goal_and_waits_for_its_end(make_action: Make) -> None:
    def work(goal: GoalHandler) -> dict[str, bool]:
        press_ctrl_c()
        return {"cancelled": goal.cancel_event.wait(DEADLINE)}

    make_action(work)
    result = run(URL, "action", "send", "own.action", "--no-check")
    assert result.exit_code == 1
    assert result.stdout.endswith("canceling\ncanceled, with the result\ncancelled: true\n")
    assert result.stderr == "canceling; Ctrl-C again leaves the goal to itself\n"


def test_ctrl_c_ends_it_where_nobody_has_taken_the_goal() -> None:
    over = threading.Event()

    def take(request: Any) -> Any:
        press_ctrl_c()
        over.wait(DEADLINE)
        return request

    with Node("mute", connection_params=URL, discovery=False) as node:
        node.create_rpc(part_name("mute.action", "send_goal"), take)
        result = run(URL, "action", "send", "mute.action", "--no-check")
        over.set()
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.endswith("left; whether the service has taken the goal is not known\n")


@pytest.mark.usefixtures("patient")
def test_a_second_ctrl_c_leaves_the_goal(make_action: Make) -> None:
    left = threading.Event()
    ended = Collected()

    def work(goal: GoalHandler) -> None:
        press_ctrl_c()
        assert goal.cancel_event.wait(DEADLINE)
        press_ctrl_c()
        ended(left.wait(DEADLINE))

    make_action(work)
    result = run(URL, "action", "send", "own.action", "--no-check")
    left.set()
    assert result.exit_code == 130
    assert "left; it goes on, until: commlib action cancel own.action " in result.stderr
    assert ended.first is True


def test_a_reader_that_has_seen_enough_is_told_that_the_goal_goes_on(
    redis_server: RedisServer,
) -> None:
    with Node("robot", connection_params=redis_server.url, discovery=False) as node:
        go_on, work_done = threading.Event(), Collected()

        def work(goal: GoalHandler) -> None:
            while not go_on.wait(0.01):
                goal.send_feedback({"n": 1})
            work_done(goal.cancel_event.is_set())

        node.create_action("cli.unread", None, work)
        code = "from commlib.cli import main; main()"
        arguments = ("action", "send", "cli.unread", "--no-check", "--url", redis_server.url)
        with subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            goal_id = process.stdout.readline().split()[1]
            process.stdout.close()
            said = process.stderr.read()
            assert process.wait(DEADLINE) == 0
        go_on.set()
        assert work_done.first is False
    words = said.strip().partition("until: ")[2]
    assert words == f"commlib action cancel cli.unread {goal_id} --url {redis_server.url}"
    assert "Traceback" not in said


# ---- the bar ----


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal is sent, without colour."""
    out = io.StringIO()
    monkeypatch.setattr(
        _goal_views,
        "console",
        lambda: Console(file=out, force_terminal=True, color_system=None, width=100),
    )
    return out


def test_feedback_with_a_percentage_moves_a_bar(screen: io.StringIO) -> None:
    view = BarView()
    view.accepted("a1")
    view.feedback({"percent": 25.0, "at": "[bold]"})
    view.status("CANCELING")
    view.feedback({"percent": 75.0, "at": "[bold]"})
    view.close()
    shown = screen.getvalue()
    assert "canceling" in shown
    assert " 75% " in shown
    assert '{"at":"[bold]"}' in shown, "it is no markup"


def test_feedback_without_progress_is_lines_also_on_a_terminal(
    screen: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    view = BarView()
    view.feedback({"name": "a"})
    view.ended("CANCELED", None, GoalCanceled("it has no result"))
    assert capsys.readouterr() == ('feedback: {"name":"a"}\n', "it has no result\n")
    assert screen.getvalue() == ""


def test_a_field_that_is_not_there_is_told_once(
    screen: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    view = BarView(given_share("metre:10", {}))
    for metres in (1, 2):
        view.feedback({"metres": metres})
    said = capsys.readouterr().err
    assert said == "no progress is told by 'metre'; the fields are: metres\n"
    assert screen.getvalue() == ""


def test_a_wrong_progress_is_refused_before_anything_is_sent() -> None:
    for wrong in ("metres:goal.feet", "metres:0", ":5", "metres:"):
        with pytest.raises(ValueError, match="--progress"):
            view_for({"metres": 5}, as_json=False, id_only=False, progress=wrong)
    said = refused(URL, "action", "send", "robot.drive", "--progress", ":5", status=2)
    assert said.startswith("Error: --progress :5: it is FIELD or FIELD:TOTAL")


def test_on_a_terminal_a_goal_has_a_bar(redis_server: RedisServer) -> None:
    with Node("robot", connection_params=redis_server.url, discovery=False) as node:
        node.create_action("cli.bar", Drive, drive)
        arguments = ("send", "cli.bar", "metres: 4", "--no-check", "--url", redis_server.url)
        code = "from commlib.cli import main; main()"
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", code, "action", *arguments],
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # that is how Linux says that the other side is closed
            while piece := os.read(ours, 4096):
                shown += piece
        os.close(ours)
        assert process.wait(DEADLINE) == 0
    text = shown.decode()
    assert "100%" in text
    assert "succeeded, with the result\r\nmetres: 4\r\n" in text


# ---- on each broker ----


def test_a_goal_is_pursued_over_any_broker(
    broker: Broker, make_node: Callable[..., Node], topic: str
) -> None:
    make_node().create_action(f"{topic}.drive", Drive, drive)
    arguments = ("action", "send", f"{topic}.drive", "metres: 3", "--no-check", "--json")
    *_, end = map(json.loads, succeeded(broker.url, *arguments).splitlines())
    assert end == {"event": "result", "status": "SUCCEEDED", "result": {"metres": 3}}


def test_a_goal_is_cancelled_over_any_broker(
    broker: Broker, make_node: Callable[..., Node], topic: str
) -> None:
    make_node().create_action(f"{topic}.drive", Drive, drive)
    name = f"{topic}.drive"
    arguments = ("action", "send", name, "metres: 101", "--no-check", "--no-wait")
    goal_id = succeeded(broker.url, *arguments).strip()
    out = succeeded(broker.url, "action", "cancel", name, goal_id)
    assert out == f"goal {goal_id} was cancelled\n"
