"""`commlib asyncapi`: the official schema takes what it writes, and all references in it hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft7Validator

from announced import announced, answering_at_once
from brokers import Broker
from commlib._discovery import EndpointInfo, Kind, NodeInfo
from commlib._schemas import fingerprint, schema_of
from commlib.cli._asyncapi import document
from commlib.cli._main import commlib
from commlib.msg import ActionMessage, PubSubMessage, RPCMessage
from commlib.node import Node
from commlib.transports import resolve
from commlib.transports.base import Traits

OFFICIAL = Path(__file__).parent / "asyncapi" / "3.0.0.json"
ENVELOPES, NATIVE = Traits(), Traits(native_headers=True)
REDIS, MQTT = "redis://u:secret@h", "mqtt://u:secret@h"


class Point(PubSubMessage):
    x: float = 0.0


class Sonar(PubSubMessage):
    distance: float
    pose: Point = Point()
    pair: tuple[int, str] = (1, "m")


class Track(PubSubMessage):
    points: list[Point] = []


class Add(RPCMessage):
    class Request(RPCMessage.Request):
        a: int = 0

    class Response(RPCMessage.Response):
        c: int = 0


class Drive(ActionMessage):
    class Goal(ActionMessage.Goal):
        metres: int = 0

    class Result(ActionMessage.Result):
        reached: bool = False

    class Feedback(ActionMessage.Feedback):
        done: int = 0


class Circle(msgspec.Struct, tag=True):
    r: int


class Square(msgspec.Struct, tag=True):
    a: int


@cache
def official() -> Draft7Validator:
    """What AsyncAPI itself says a document is."""
    return Draft7Validator(json.loads(OFFICIAL.read_text()))


def node(kind: Kind, name: str, *, on: str = "robot", **parts: Any) -> NodeInfo:
    """A node with one port, whose messages are of these classes, or have these schemas."""
    schemas = {
        part: each if isinstance(each, dict) else schema_of(each) for part, each in parts.items()
    }
    marks = {part: fingerprint(schema) for part, schema in schemas.items()}
    kinds = [each for each in parts.values() if not isinstance(each, dict)]
    title = kinds[0].__qualname__.partition(".")[0] if kinds else ""
    port = EndpointInfo(kind, name, type=title, parts=marks)
    by_mark = {marks[part]: schema for part, schema in schemas.items() if schema is not None}
    return NodeInfo(name=on, id=on, endpoints=(port,), schemas=by_mark)


def described(*nodes: NodeInfo, url: str = REDIS, traits: Traits = ENVELOPES) -> Any:
    """The document of nodes, which is a good one."""
    found = document(nodes, resolve(url), traits)
    check(found)
    return found


def check(found: Any) -> None:
    """Fail unless the official schema takes it, and each reference leads somewhere in it."""
    assert [f"{list(each.path)}: {each.message}" for each in official().iter_errors(found)] == []
    assert list(dangling(found, found)) == []


def dangling(part: Any, root: Any) -> Iterator[str]:
    """The references that lead nowhere."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str) and follow(part["$ref"], root) is None:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from dangling(each, root)


def follow(ref: str, root: Any) -> Any:
    """What a reference stands for."""
    found = root
    for word in ref.removeprefix("#/").split("/"):
        found = found.get(word) if isinstance(found, dict) else None
    return found


def payload(found: Any, message: str) -> Any:
    """The schema of the data of a message."""
    whole = found["components"]["messages"][message]["payload"]
    data = whole["properties"]["data"] if "properties" in whole else whole
    return follow(data["$ref"], found) if "$ref" in data else data


# ---- topics ----


def test_a_topic_is_a_channel_that_some_send_to_and_some_receive_from() -> None:
    found = described(
        node("publisher", "sonar.front", message=Sonar),
        node("subscriber", "sonar.front", on="pilot", message=Sonar),
        node("subscriber", "sonar.front", on="logger", message=Sonar),
    )
    assert list(found["channels"]) == ["sonar.front"]
    sends, receives = (found["operations"][f"{verb}.sonar.front"] for verb in ("send", "receive"))
    assert (sends["action"], sends["x-nodes"]) == ("send", ["robot"])
    assert (receives["action"], receives["x-nodes"]) == ("receive", ["logger", "pilot"])
    assert sends["messages"] == [{"$ref": "#/channels/sonar.front/messages/Sonar"}]


def test_messages_have_the_schemas_that_nodes_tell() -> None:
    found = described(node("publisher", "sonar", message=Sonar))
    schema = payload(found, "Sonar")
    assert schema["required"] == ["distance"]
    assert schema["properties"]["pose"] == {"$ref": "#/components/schemas/Point"}
    # A tuple as draft 7 has it.
    assert schema["properties"]["pair"]["items"] == [{"type": "integer"}, {"type": "string"}]


def test_a_class_within_two_messages_is_described_once() -> None:
    found = described(node("publisher", "a", message=Sonar), node("publisher", "b", message=Track))
    names = set(found["components"]["schemas"]) - {"Header", "Fault", "Properties", "Signature"}
    assert names == {"Sonar", "Track", "Point"}


def test_two_classes_of_one_name_are_told_apart() -> None:
    one = {"title": "T", "type": "object", "properties": {"a": {"type": "string"}}}
    other = {"title": "T", "type": "object", "properties": {"b": {"type": "string"}}}
    found = described(node("publisher", "a", message=one), node("publisher", "b", message=other))
    assert {"Data", "Data_2"} <= found["components"]["messages"].keys()
    assert payload(found, "Data") != payload(found, "Data_2")


def test_a_union_is_told_by_the_name_of_its_tag() -> None:
    schema = msgspec.json.schema(Circle | Square)
    found = described(node("publisher", "shape", message=schema))
    assert payload(found, "Data")["discriminator"] == "type"


def test_plain_data_may_be_anything() -> None:
    assert payload(described(node("publisher", "battery")), "Data") == {}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"properties": 5},
        {"$ref": "#/$defs/Nowhere"},
        {"$ref": "https://example.org/schema.json"},
        {"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"},
        {"properties": {"$ref": {"type": "string"}, "a": {"default": {"$ref": "#/x"}}}},
    ],
)
def test_what_strangers_tell_does_not_spoil_the_document(schema: dict[str, Any]) -> None:
    found = document([node("publisher", "t", message=schema)], resolve(REDIS), ENVELOPES)
    errors = [each.message for each in official().iter_errors(found)]
    assert errors == []


def test_a_pattern_has_parameters() -> None:
    channel = described(node("subscriber", "sonar.*.near.*", message=Sonar))["channels"]
    (only,) = channel.values()
    assert only["address"] == "sonar.{word2}.near.{word4}"
    assert only["parameters"]["word2"] == {"description": "One word."}
    assert only["parameters"]["word4"] == {"description": "One word or more."}


def test_who_publishes_anywhere_has_no_address() -> None:
    found = described(node("publisher", "*", message=Sonar))
    assert found["channels"]["any"]["address"] is None


@pytest.mark.parametrize("name", ["a b", "a/b", "ä.ö", "a~b#c%d", 'q"uote', "a.b.reply"])
def test_strange_names_are_no_trouble(name: str) -> None:
    found = described(
        *(
            node("publisher", name, message=Sonar),
            node("service", name, on="x", request=Add.Request),
        ),
        *(node("client", "a.b", on="y"), node("service", "a b", on="z")),
    )
    assert name in {channel["address"] for channel in found["channels"].values()}


# ---- calls ----


def test_a_call_is_an_operation_with_a_reply() -> None:
    parts = {"request": Add.Request, "response": Add.Response}
    found = described(
        node("service", "calc.add", **parts), node("client", "calc.add", on="pilot", **parts)
    )
    serves, calls = (found["operations"][f"{verb}.calc.add"] for verb in ("serve", "call"))
    assert (serves["action"], calls["action"]) == ("receive", "send")
    assert serves["reply"]["channel"] == {"$ref": "#/channels/calc.add.reply"}
    assert found["channels"]["calc.add.reply"]["address"] is None
    assert serves["reply"]["address"] == {"location": "$message.payload#/header/reply_to"}
    assert "a" in payload(found, "AddRequest")["properties"]
    assert "c" in payload(found, "AddResponse")["properties"]


def test_an_action_is_its_calls_and_its_topics() -> None:
    parts = {"goal": Drive.Goal, "result": Drive.Result, "feedback": Drive.Feedback}
    found = described(
        node("action", "drive", **parts), node("action_client", "drive", on="pilot", **parts)
    )
    calls = {
        f"{verb}.drive.{part}"
        for verb in ("serve", "call")
        for part in ("send_goal", "cancel_goal", "get_result")
    }
    news = {
        f"{verb}.drive.{part}" for verb in ("send", "receive") for part in ("status", "feedback")
    }
    assert set(found["operations"]) == calls | news
    assert found["operations"]["send.drive.feedback"]["x-nodes"] == ["robot"]
    inner = {
        "DriveSendGoalRequest": ("goal_data", "metres"),
        "DriveGetResultResponse": ("result", "reached"),
        "DriveFeedbackNews": ("feedback_data", "done"),
    }
    for message, (field, own) in inner.items():
        ref = payload(found, message)["properties"][field]["$ref"]
        assert own in follow(ref, found)["properties"]


# ---- brokers ----


def test_where_the_protocol_has_headers_they_are_beside_the_payload() -> None:
    sonar = node("publisher", "sonar", message=Sonar)
    beside = described(sonar, traits=NATIVE)["components"]["messages"]["Sonar"]
    assert beside["headers"] == {"$ref": "#/components/schemas/Header"}
    assert beside["payload"] == {"$ref": "#/components/schemas/Sonar"}
    within = described(sonar)["components"]["messages"]["Sonar"]
    assert within["payload"]["required"] == ["header", "data"]


def test_the_password_is_nowhere_in_it() -> None:
    found = described(url="amqps://joe:secret@h:1/v%2Fhost?fallbacks=other", traits=NATIVE)
    assert "secret" not in json.dumps(found)
    assert "joe" not in json.dumps(found)
    assert [server["host"] for server in found["servers"].values()] == ["h:1", "other:1"]
    assert found["servers"]["broker"]["security"] == [{"type": "userPassword"}]


def test_mqtt_topics_and_their_delivery_are_spelled_as_on_the_wire() -> None:
    port = EndpointInfo("publisher", "sonar.front", qos=1, retain=True)
    robot = NodeInfo(name="robot", id="1", endpoints=(port,))
    found = described(robot, url=MQTT, traits=Traits(separator="/"))
    assert found["channels"]["sonar.front"]["address"] == "sonar/front"
    binding = found["operations"]["send.sonar.front"]["bindings"]["mqtt"]
    assert binding == {"qos": 1, "retain": True}


# ---- the command ----


@pytest.fixture(autouse=True)
def _answers_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering_at_once(monkeypatch)


@pytest.fixture
def url() -> Iterator[str]:
    """A broker with a robot on it that does all that there is."""
    url = Broker.named("memory", lambda name: None).url
    robot = Node("robot", connection_params=url, heartbeats=False)
    robot.create_publisher("sonar", msg_type=Sonar)
    robot.create_subscriber("track", lambda msg: None, msg_type=Track)
    robot.create_rpc("add", lambda request: Add.Response(), msg_type=Add)
    robot.create_rpc_client("other.add", msg_type=Add)
    robot.create_action("drive", Drive, lambda goal: Drive.Result())
    robot.create_action_client("other.drive", Drive)
    robot.create_mpublisher()
    with announced(url, robot):
        yield url


def printed(url: str, *words: str) -> str:
    result = CliRunner().invoke(commlib, ["asyncapi", "--url", url, *words], catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_a_running_system_makes_a_good_document_as_json_and_as_yaml(
    url: str, tmp_path: Path
) -> None:
    found = json.loads(printed(url, "--title", "A robot", "--api-version", "2.1"))
    check(found)
    assert found["info"]["title"] == "A robot"
    assert found["info"]["version"] == "2.1"
    assert len(found["operations"]) == 15
    file = tmp_path / "robot.yaml"
    assert printed(url, "-o", str(file)) == ""
    written = yaml.safe_load(file.read_text())
    assert written["channels"] == found["channels"]
    assert "&id" not in file.read_text()
