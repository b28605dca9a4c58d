"""The programs of the README of commlib-py 0.6.3 run in processes of their own.

Those in ``programs/`` make the same calls with the same arguments; only the broker's port and the
names, which the README leaves undefined or takes from its surroundings, come from the command line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from collected import BUSY_SECONDS, Collected
from commlib._params import BaseParameters
from commlib.events import Event
from commlib.exceptions import GoalLost, RPCTimeout
from commlib.msg import ActionMessage, DataClass, HeartbeatMessage, RPCMessage
from commlib.node import Node, TransportType
from commlib.transports import module_for
from raw_peer import RawPeer

LONGEST = 30.0

Start = Callable[..., "subprocess.Popen[str]"]


class AddTwoIntMessage(RPCMessage):
    @DataClass
    class Request(RPCMessage.Request):
        a: int = 0
        b: int = 0

    @DataClass
    class Response(RPCMessage.Response):
        c: int = 0


class ExampleAction(ActionMessage):
    @DataClass
    class Goal(ActionMessage.Goal):
        target_cm: int = 0

    @DataClass
    class Result(ActionMessage.Result):
        dest_cm: int = 0

    @DataClass
    class Feedback(ActionMessage.Feedback):
        current_cm: int = 0


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"seed_{os.urandom(4).hex()}"


@pytest.fixture(params=["redis", "mqtt", "amqp"])
def scheme(request: pytest.FixtureRequest) -> str:
    """What the broker speaks."""
    return str(request.param)


@pytest.fixture
def exchanged(scheme: str) -> dict[str, str]:
    """The words of the programs that are others on this broker."""
    return {"redis": scheme, scheme: "redis"}


@pytest.fixture
def kind(scheme: str) -> TransportType:
    return TransportType[scheme.upper()]


@pytest.fixture
def transport(scheme: str) -> ModuleType:
    """The module that the README imports the classes from."""
    return module_for(scheme)


@pytest.fixture
def server(scheme: str, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{scheme}_server")


@pytest.fixture
def conn_params(transport: ModuleType, server: Any) -> BaseParameters:
    params: BaseParameters = transport.ConnectionParameters(host="localhost", port=server.port)
    return params


@pytest.fixture
def start(server: Any, find_program: Callable[[str], Path]) -> Iterator[Start]:
    """Starts a program with the arguments given, and ends it with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str | int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, find_program(program), *map(str, arguments)],
            env={**os.environ, "COMMLIB_URL": server.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines that it prints."""
    assert process.stdout is not None
    found = [process.stdout.readline().rstrip("\n") for _ in range(count)]
    assert all(found), f"it ended: {process.communicate(timeout=LONGEST)[1]}"
    return found


# -- Node, Req/Resp -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_serves_until_a_signal_and_its_parameters_win_with_a_log_record(
    start: Start,
    server: Any,
    conn_params: BaseParameters,
    name: str,
    number: signal.Signals,
    transport: ModuleType,
    scheme: str,
    exchanged: dict[str, str],
) -> None:
    program = start("node_service", server.port, name)
    with transport.RPCClient(
        rpc_name=name, msg_type=AddTwoIntMessage, conn_params=conn_params
    ) as client:
        assert client.wait_for_service(LONGEST)
        response = client.call(AddTwoIntMessage.Request(a=3, b=4))
    assert isinstance(response, AddTwoIntMessage.Response)
    assert response.c == 7
    assert lines(program, 1) == ["On-Request: Request(a=3, b=4)"]

    program.send_signal(number)
    _, err = program.communicate(timeout=LONGEST)
    assert program.returncode == 0
    assert f"example-node: the connection parameters are for {scheme}" in err
    other = exchanged.get("mqtt", "mqtt")
    assert f"transport_type={other.upper()} is not used" in err


def test_a_client_calls_again_and_again_with_one_message_that_it_changes(
    start: Start, server: Any, conn_params: BaseParameters, name: str, kind: TransportType
) -> None:
    def add_two_int_handler(msg: AddTwoIntMessage.Request) -> AddTwoIntMessage.Response:
        resp = AddTwoIntMessage.Response(c=msg.a + msg.b)
        return resp

    node = Node(
        node_name="example_node",
        transport_type=kind,
        transport_connection_params=conn_params,
        debug=True,
    )
    node.create_rpc(msg_type=AddTwoIntMessage, rpc_name=name, on_request=add_two_int_handler)
    node.run()
    try:
        program = start("rpc_client", server.port, name)
        assert lines(program, 4) == [f"Response(c={c})" for c in (0, 2, 4, 6)]
    finally:
        node.stop()


def test_service_and_client_are_two_programs_in_any_order(
    start: Start, server: Any, transport: ModuleType, conn_params: BaseParameters, name: str
) -> None:
    if conn_params.make_transport().traits.stores_unread:
        client = start("rpc_client", server.port, name)
        service = start("node_service", server.port, name)
    else:  # then a call that comes too early is lost
        service = start("node_service", server.port, name)
        with transport.RPCClient(rpc_name=name, conn_params=conn_params) as watcher:
            assert watcher.wait_for_service(LONGEST)
        client = start("rpc_client", server.port, name)
    assert lines(client, 2) == ["Response(c=0)", "Response(c=2)"]
    assert lines(service, 2) == [f"On-Request: Request(a={n}, b={n})" for n in (0, 1)]


# -- PubSub ---------------------------------------------------------------------------------------


def test_a_publisher_and_two_subscribers_are_three_programs(
    start: Start, server: Any, name: str
) -> None:
    subscribers = [start("subscriber", server.port, name) for _ in range(2)]
    for subscriber in subscribers:
        assert lines(subscriber, 1) == ["running"]
    start("publisher", server.port, name)
    for subscriber in subscribers:
        assert lines(subscriber, 3) == [
            f"Message: {{'distance': {distance}, 'horizontal_fov': 30.0, 'vertical_fov': 14.0}}"
            for distance in (2.0, 3.0, 4.0)
        ]


def test_a_pattern_gives_messages_of_the_class_with_their_topics(start: Start, name: str) -> None:
    rest = "horizontal_fov=30.0, vertical_fov=14.0)"
    program = start("pattern", f"{name}.sensors.*")
    assert lines(program, 4) == [
        f"Sensor Data Message: {name}.sensors.{sensor}:SonarMessage(distance={distance}, {rest}"
        for distance in (0.001, 1.001)
        for sensor in ("sonar.front", "ir.rear")
    ]


# -- Actions --------------------------------------------------------------------------------------


def test_an_action_service_and_its_client_are_two_programs(
    start: Start, server: Any, name: str
) -> None:
    service = start("action_service", server.port, name)
    assert lines(service, 1) == ["running"]
    client = start("action_client", server.port, name)

    out, err = client.communicate(timeout=LONGEST)
    assert client.returncode == 0, err
    assert out.splitlines() == [
        *(f"ActionClient <on-feedback> callback: Feedback(current_cm={cm})" for cm in range(5)),
        "ActionClient <on-goal-reached> callback: Result(dest_cm=5)",
    ]
    assert err == "Result(dest_cm=5)\n"


def test_the_client_of_a_service_that_is_killed_is_told_so_in_time(
    start: Start, server: Any, conn_params: BaseParameters, name: str, transport: ModuleType
) -> None:
    service = start("action_service", server.port, name)
    assert lines(service, 1) == ["running"]
    feedback = Collected()
    with transport.ActionClient(
        msg_type=ExampleAction, conn_params=conn_params, action_uri=name, on_feedback=feedback
    ) as client:
        goal = client.send_goal(ExampleAction.Goal(target_cm=1_000_000))
        feedback.wait(1)
        service.kill()
        again = start("action_service", server.port, name)
        assert lines(again, 1) == ["running"]

        with pytest.raises(GoalLost, match=goal.goal_id):
            goal.result(LONGEST)
        assert client.send_goal(ExampleAction.Goal(target_cm=2)).result(LONGEST).dest_cm == 2


# -- Endpoint -------------------------------------------------------------------------------------


def test_endpoints_out_of_the_factory_talk_to_each_other(start: Start, name: str) -> None:
    assert lines(start("factory", name), 2) == ["{'a': 1, 'b': 2}"] * 2


# -- Events ---------------------------------------------------------------------------------------


def test_an_emitter_tells_two_events_at_their_addresses(
    start: Start, server: Any, conn_params: BaseParameters, name: str, transport: ModuleType
) -> None:
    got = Collected()
    with transport.PSubscriber(f"{name}.bedroom.*", got, Event, conn_params=conn_params):
        program = start("events", server.port, name)
        received = got.wait(2)
    assert [(event.name, event.uri, topic) for event, topic in received] == [
        (f"Turn{word}BedroomLights", *[f"{name}.bedroom.lights.{word.lower()}"] * 2)
        for word in ("On", "Off")
    ]
    assert program.wait(LONGEST) == 0


# -- Node class -----------------------------------------------------------------------------------


def test_a_device_lives_obeys_and_tells_what_it_does(
    start: Start, server: Any, conn_params: BaseParameters, name: str
) -> None:
    beats, lines, rings = Collected(), Collected(), Collected()
    namespace = f"thing.device0.{name}"
    with Node("viewer", connection_params=conn_params) as viewer:
        viewer.create_subscriber(f"nodes.{name}.heartbeat", beats, HeartbeatMessage)
        viewer.create_subscriber(f"{name}.news", lines)
        viewer.create_subscriber(f"{namespace}.bell", rings, Event)
        ring, start_it, stop_it = (
            viewer.create_rpc_client(f"{namespace}.{word}")
            for word in ("ops.ring", "start", "stop")
        )
        program = start("node_device", server.port, name, "device0")
        assert beats.first.ts > 0
        assert ring.wait_for_service(LONGEST)
        assert ring.call({"who": "me"}) == {"state": 2}
        assert rings.first == Event("Ring", f"{namespace}.bell", "", {"who": "me"})
        assert lines.first["msg"].endswith(f"[{namespace}][INFO] - somebody rings")

        assert stop_it.call({}) == {"status": 0, "error": ""}
        with pytest.raises(RPCTimeout):
            ring.call({}, timeout=0.2)
        assert start_it.call({}) == {"status": 0, "error": ""}
        assert ring.call({}) == {"state": 2}
    program.send_signal(signal.SIGTERM)
    assert program.wait(LONGEST) == 0


# -- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["publisher", "pattern", "factory"])
def test_ctrl_c_ends_a_program_that_never_stops_anything(
    start: Start, server: Any, name: str, program: str
) -> None:
    topic = f"{name}.*" if program == "pattern" else name
    spy = RawPeer(server.url)
    try:
        heard = spy.subscribe(topic)
        process = start(program, *([server.port] if program == "publisher" else []), topic)
        heard.wait(1)
    finally:
        spy.close()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=2 + BUSY_SECONDS)
    assert err.rstrip().endswith("KeyboardInterrupt")
