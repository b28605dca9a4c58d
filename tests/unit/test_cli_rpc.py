"""`commlib rpc` as its user sees it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from announced import announced, answering_at_once
from brokers import Broker
from commands import parsed, refused, run, succeeded
from commlib.msg import PubSubMessage, RPCMessage
from commlib.node import Node

URL = "memory://cli-rpc"


class Add(RPCMessage):
    class Request(RPCMessage.Request):
        a: int = 0
        b: int = 0

    class Response(RPCMessage.Response):
        c: int = 0


class AddTexts(RPCMessage):
    class Request(RPCMessage.Request):
        a: str = ""

    class Response(RPCMessage.Response):
        c: int = 0


class Point(PubSubMessage):
    x: float = 0.0


class Plan(RPCMessage):
    class Request(RPCMessage.Request):
        name: str
        points: list[Point] = []
        limits: dict[str, int] = {}

    class Response(RPCMessage.Response):
        length: float | None = None


def add(request: Add.Request) -> Add.Response:
    if request.a == 13:
        raise ValueError("13 is\nno number")
    return Add.Response(c=request.a + request.b)


@pytest.fixture(autouse=True, scope="module")
def _answers_come_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        answering_at_once(patch)
        yield


@pytest.fixture(scope="module")
def house() -> Iterator[None]:
    """Services, some of which nobody tells of, and clients of theirs."""
    calculator = Node("calculator", connection_params=URL)
    calculator.create_rpc("calculator.add", add, msg_type=Add)
    calculator.create_rpc("calculator.plan", lambda request: Plan.Response(), msg_type=Plan)
    calculator.create_rpc("calculator.echo", lambda request: request)
    robot = Node("robot", connection_params=URL)
    robot.create_rpc_client("calculator.add", msg_type=AddTexts)
    robot.create_rpc_client("nowhere.add", msg_type=Add)
    silent = Node("silent", connection_params=URL, discovery=False)
    silent.create_rpc("silent.add", add, msg_type=Add)
    with silent, announced(URL, calculator, robot):
        yield


# ---- what there is ----


@pytest.mark.usefixtures("house")
def test_services_are_listed_with_their_types_and_ends() -> None:
    head, *lines = succeeded(URL, "rpc", "list").splitlines()
    assert head.split() == ["SERVICE", "TYPE", "SERVED", "BY", "CALLED", "BY"]
    assert [line.split() for line in lines] == [
        ["calculator.add", "Add", "calculator", "robot"],
        ["calculator.echo", "-", "calculator", "-"],
        ["calculator.plan", "Plan", "calculator", "-"],
        ["nowhere.add", "Add", "-", "robot"],
    ]


@pytest.mark.usefixtures("house")
def test_the_list_is_there_for_programs_as_well() -> None:
    first = parsed(URL, "rpc", "list")[0]
    assert (first["name"], first["type"]) == ("calculator.add", "Add")
    assert [server["node"] for server in first["servers"]] == ["calculator"]
    assert [(each["node"], each["type"]) for each in first["clients"]] == [("robot", "AddTexts")]
    assert first["servers"][0]["pid"] == os.getpid()


def test_where_nobody_tells_of_a_service_that_is_said() -> None:
    result = run("memory://cli-rpc-empty", "rpc", "list", "--wait", "0.1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no node tells of a service\n"
    assert parsed("memory://cli-rpc-empty", "rpc", "list", "--wait", "0.1") == []


@pytest.mark.usefixtures("house")
def test_info_shows_the_fields_that_a_service_takes_and_gives() -> None:
    out = succeeded(URL, "rpc", "info", "calculator.plan")
    assert "calculator.plan, a service of Plan\nserved by calculator (pid " in out
    assert "called by nobody that tells of itself" in out
    rows = [line.split(maxsplit=2) for line in out.splitlines()]
    assert ["REQUEST", "TYPE", "DEFAULT"] in rows
    assert ["name", "str", "required"] in rows
    assert ["points", "list[Point]", "[]"] in rows
    assert ["points[].x", "float", "0.0"] in rows
    assert "limits      dict[str, int]  {}" in out
    assert "length    float | None  null" in out


@pytest.mark.usefixtures("house")
def test_info_tells_what_does_not_go_together() -> None:
    out = succeeded(URL, "rpc", "info", "calculator.add")
    assert "mismatch: calculator.add: " in out
    assert "a is sent as string and read as integer" in out
    found = parsed(URL, "rpc", "info", "calculator.add")
    assert len(found["mismatches"]) == 1
    assert found["request"][1] == {"name": "b", "type": "int", "default": 0}


@pytest.mark.usefixtures("house")
def test_info_of_plain_data_says_that_nothing_is_known() -> None:
    assert "request: nothing is told of its fields" in succeeded(
        URL, "rpc", "info", "calculator.echo"
    )


@pytest.mark.usefixtures("house")
def test_a_name_that_nobody_tells_of_is_told_with_what_was_meant() -> None:
    assert refused(URL, "rpc", "info", "calculator.ad") == (
        "Error: no node tells of a service 'calculator.ad'; did you mean calculator.add?"
    )


# ---- calling ----


@pytest.mark.usefixtures("house")
def test_a_call_prints_its_response() -> None:
    assert succeeded(URL, "rpc", "call", "calculator.add", '{"a": 1, "b": 2}') == "c: 3\n"
    assert succeeded(URL, "rpc", "call", "calculator.add", "a: 1") == "c: 1\n"
    assert succeeded(URL, "rpc", "call", "calculator.add", "--no-check") == "c: 0\n"
    arguments = ("rpc", "call", "calculator.add", "-", "--no-check")
    assert succeeded(URL, *arguments, input="a: 5") == "c: 5\n"
    assert json.loads(succeeded(URL, *arguments, "--json", input="b: 4")) == {"c": 4}


@pytest.mark.usefixtures("house")
def test_infinity_comes_back_as_it_went() -> None:
    out = succeeded(URL, "rpc", "call", "calculator.echo", "far: .inf", "--no-check", "--json")
    assert json.loads(out) == {"far": float("inf")}


@pytest.mark.usefixtures("house")
def test_a_request_that_does_not_fit_names_its_fields_and_is_not_sent() -> None:
    said = refused(URL, "rpc", "call", "calculator.add", '{"a": "one", "d": 1}')
    first, *rest = said.splitlines()
    assert first.startswith("Error: the message is not what calculator.add on calculator (pid ")
    assert rest == [
        '  a: a whole number is expected, not "one"',
        "  d: there is no such field; it has a, b",
        "--no-check sends it all the same",
    ]


@pytest.mark.usefixtures("house")
def test_no_check_leaves_it_to_the_service() -> None:
    arguments = ("rpc", "call", "calculator.add", '{"a": "one"}', "--no-check")
    assert refused(URL, *arguments).startswith("Error: calculator.add raised SerializationError: ")


@pytest.mark.usefixtures("house")
def test_what_the_service_raises_is_told_in_one_line() -> None:
    said = refused(URL, "rpc", "call", "calculator.add", "a: 13", "--no-check")
    assert said.startswith("Error: calculator.add raised ValueError: 13 is\\")
    assert said.endswith("no number")
    assert "\n" not in said


@pytest.mark.usefixtures("house")
def test_a_service_that_nobody_tells_of_is_called_all_the_same() -> None:
    result = run(URL, "rpc", "call", "silent.add", "{a: 1, b: 5}")
    assert (result.exit_code, result.stdout) == (0, "c: 6\n")
    assert result.stderr == "no node tells that it serves silent.add; asking all the same\n"


@pytest.mark.usefixtures("house")
def test_a_name_that_nobody_serves_is_told_with_what_was_meant() -> None:
    said = refused(URL, "rpc", "call", "calculator.ad", "--timeout", "0.1")
    assert said == (
        "no node tells that it serves calculator.ad; asking all the same\n"
        "Error: no reply from calculator.ad within 0.1 s; no node tells that it serves it; "
        "did you mean calculator.add?"
    )


def test_a_broker_that_is_not_there_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("commlib.cli._common.CONNECT_SECONDS", 0.2)
    said = refused("redis://127.0.0.1:1", "rpc", "call", "calculator.add")
    assert said.startswith("Error: no broker at redis://127.0.0.1:1")
    assert "\n" not in said


# ---- again and again ----


@pytest.mark.usefixtures("house")
def test_several_calls_end_with_their_latency() -> None:
    out = succeeded(
        URL, "rpc", "call", "calculator.add", "a: 1", "--no-check", "-c", "3"
    ).splitlines()
    assert out[:3] == ["c: 1", "c: 1", "c: 1"]
    assert out[3].startswith("in all: 3 answered, latency min ")


@pytest.mark.usefixtures("house")
def test_several_calls_are_lines_of_json() -> None:
    out = succeeded(URL, "rpc", "call", "calculator.add", "a: 1", "--no-check", "-c", "2", "--json")
    *calls, total = map(json.loads, out.splitlines())
    assert [call["response"] for call in calls] == [{"c": 1}, {"c": 1}]
    assert (total["answered"], total["failed"]) == (2, 0)
    assert total["latency_ms"]["min"] <= total["latency_ms"]["p50"] <= total["latency_ms"]["max"]


@pytest.mark.usefixtures("house")
def test_calls_that_fail_are_counted_and_make_the_status_one() -> None:
    result = run(URL, "rpc", "call", "calculator.add", "a: 13", "--no-check", "-c", "2")
    assert (result.exit_code, result.stdout) == (1, "in all: 0 answered, 2 failed\n")
    assert result.stderr.count("failed: calculator.add raised ValueError") == 2


@pytest.fixture
def interrupting() -> Iterator[None]:
    """A service that has Ctrl-C pressed with its third call."""
    calls: list[object] = []

    def count(request: dict[str, object]) -> dict[str, int]:
        calls.append(request)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return {"calls": len(calls)}

    node = Node("interrupting", connection_params=URL, discovery=False)
    node.create_rpc("interrupting.count", count)
    with node:
        yield


@pytest.mark.usefixtures("interrupting")
@pytest.mark.parametrize(("counted", "status"), [((), 0), (("--count", "100000"), 130)])
def test_calls_at_a_rate_go_on_until_ctrl_c(counted: tuple[str, ...], status: int) -> None:
    result = run(URL, "rpc", "call", "interrupting.count", "--rate", "50", "--no-check", *counted)
    assert result.exit_code == status
    assert "calls: 2\n" in result.stdout
    assert " answered, latency min " in result.stdout


# ---- on each broker ----


def test_a_service_is_called_over_any_broker(
    broker: Broker, make_node: Callable[..., Node], topic: str
) -> None:
    node = make_node()
    node.create_rpc(f"{topic}.add", add, msg_type=Add)
    arguments = ("rpc", "call", f"{topic}.add", "{a: 2, b: 3}", "--no-check")
    assert succeeded(broker.url, *arguments) == "c: 5\n"


def test_where_nobody_serves_one_line_says_so_on_any_broker(broker: Broker, topic: str) -> None:
    arguments = ("rpc", "call", f"{topic}.none", "--timeout", "0.1", "--wait", "0.1")
    first, said = refused(broker.url, *arguments).splitlines()
    assert first == f"no node tells that it serves {topic}.none; asking all the same"
    assert said.startswith(("Error: no reply from ", "Error: nobody serves "))
    assert "; no node tells that it serves it" in said
