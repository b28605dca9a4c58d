"""`commlib topic` as its user sees it: what each command prints, and its exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from announced import answering_at_once
from brokers import Broker
from collected import DEADLINE, Collected
from commands import in_time
from commlib._discovery import ANNOUNCE, PROBE, NodeInfo
from commlib._packet import PROPERTIES, Header
from commlib.cli._echo import PAUSE, Missing
from commlib.cli._main import commlib
from commlib.cli._printing import say
from commlib.cli._topic_ports import is_published
from commlib.cli._valkey import ValkeyProcess
from commlib.msg import PubSubMessage
from commlib.node import Node
from raw_peer import RawPeer
from talking import talking

COMMAND = "from commlib.cli import main; main()"
LONGEST = 30.0
NOBODY = ("--wait", "0.1")  # where no node answers
PATIENTLY = ("--wait", str(DEADLINE))  # until the first answer has come


class Pose(PubSubMessage):
    x: float = 0.0


class Sonar(PubSubMessage):
    distance: float
    unit: str = "m"
    pose: Pose = Pose()


class Reading(PubSubMessage):
    distance: str = ""


@pytest.fixture(autouse=True)
def _answers_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering_at_once(monkeypatch)


@pytest.fixture
def raw(url: str) -> Iterator[RawPeer]:
    """A peer that sends bytes."""
    peer = RawPeer(url)
    yield peer
    peer.close()


@pytest.fixture
def robot(url: str) -> Iterator[Node]:
    """A node that the test gives ports and runs."""
    node = Node("robot", url, heartbeats=False)
    yield node
    node.stop()


def run_node(node: Node, raw: RawPeer) -> None:
    """Run a node, and return when it answers those who ask."""
    told = raw.subscribe(ANNOUNCE)
    node.run()
    told.wait()


def run(url: str, *arguments: str, text: str | None = None) -> Result:
    """What `commlib topic` does; it is patient with nodes unless told otherwise."""
    asks = arguments[0] in ("list", "info", "pub") and "--wait" not in arguments
    command = ["topic", *arguments, *(PATIENTLY if asks else ()), "--url", url]
    result = CliRunner().invoke(commlib, command, input=text)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result


def printed(result: Result) -> str:
    """What it has printed, if it went well."""
    assert result.exit_code == 0, result.output
    return result.stdout


def objects(result: Result) -> list[Any]:
    """The JSON objects that it has printed, one a line."""
    return [json.loads(line) for line in printed(result).splitlines()]


# ---- on every broker ----


@pytest.mark.parametrize("broker", ["redis", "mqtt", "amqp"], indirect=True)
def test_topics_are_listed_read_and_published_on_every_broker(broker: Broker, topic: str) -> None:
    raw, node = RawPeer(broker.url), Node(topic, broker.url, heartbeats=False)
    try:
        _list_read_and_publish(broker.url, topic, node, raw)
    finally:
        node.stop()
        raw.close()


def _list_read_and_publish(url: str, topic: str, node: Node, raw: RawPeer) -> None:
    name, command = f"{topic}.sonar", f"{topic}.command"
    publisher, came = node.create_publisher(name, msg_type=Sonar), Collected()
    node.create_subscriber(command, came, msg_type=Sonar)
    run_node(node, raw)
    with talking(lambda n: publisher.publish(Sonar(n))):
        first, second = objects(run(url, "echo", name, "--count", "2", "--json"))
        listing = in_time(lambda s: run(url, "list", "--listen", s), f"^{name} .* [1-9][0-9]*$")
    assert first["topic"] == name
    assert first["data"] == {"distance": first["seq"], "unit": "m", "pose": {"x": 0}}
    assert (second["seq"], second["origin"]) == (first["seq"] + 1, first["origin"])
    rows = [line.split() for line in printed(listing).splitlines()]
    (listed,) = (row for row in rows if row[0] == name)
    assert listed[1:4] == ["Sonar", "1", "0"]
    printed(run(url, "pub", command, "distance: 5", "--count", "3"))
    assert came.wait(3) == [Sonar(5)] * 3
    assert "round trip min" in printed(in_time(lambda s: run(url, "latency", "-d", s), " min "))


# ---- list and info ----


def test_a_topic_that_no_node_tells_of_is_found_by_listening(url: str, raw: RawPeer) -> None:
    with talking(lambda n: raw.publish("device.state", b"ON")):
        assert "device.state" not in run(url, "list", *NOBODY).stdout
        text = printed(
            in_time(lambda s: run(url, "list", "--listen", s, *NOBODY), "^device.state .* [1-9]")
        )
    (row,) = (line for line in text.splitlines() if line.startswith("device.state"))
    assert row.split()[1:4] == ["-", "0", "0"]
    assert int(row.split()[4]) > 0


def test_the_topics_of_commlib_itself_are_listed_on_request(url: str) -> None:
    hidden = run(url, "list", "--listen", "0.1", *NOBODY)
    assert hidden.stdout == ""
    assert "--listen" in hidden.stderr
    result = run(url, "list", "--listen", "0.1", "--all", "--json", *NOBODY)
    (probe,) = (each for each in json.loads(printed(result)) if each["topic"] == PROBE)
    assert probe["messages"] > 0


def test_info_shows_who_there_is_the_fields_and_what_does_not_fit(
    url: str, robot: Node, raw: RawPeer
) -> None:
    robot.create_publisher("sonar", msg_type=Sonar)
    robot.create_subscriber("sonar", print, msg_type=Reading)
    robot.create_psubscriber("*", lambda message, topic: None)
    run_node(robot, raw)
    text = printed(run(url, "info", "sonar"))
    for part in ("publisher", "subscriber", "robot (pid", "pose.x", "required", '"m"'):
        assert part in text
    assert "mismatch: sonar: " in text
    assert "distance is sent as number and read as string" in text
    told = json.loads(printed(run(url, "info", "sonar", "--json")))
    assert [each["node"] for each in told["publishers"]] == ["robot"]
    assert sorted(each["name"] for each in told["subscribers"]) == ["*", "sonar"]
    assert len(told["mismatches"]) == 1
    sent = told["schemas"][told["publishers"][0]["schema"]]
    assert [each["name"] for each in sent["fields"]] == ["distance", "unit", "pose", "pose.x"]


def test_info_of_a_topic_that_nobody_tells_of_names_those_that_there_are(
    url: str, robot: Node, raw: RawPeer
) -> None:
    robot.create_publisher("sonar", msg_type=Sonar)
    run_node(robot, raw)
    result = run(url, "info", "sona")
    assert result.exit_code == 1
    assert "did you mean sonar?" in result.stderr


# ---- echo ----


def test_echo_shows_messages_like_yaml_and_the_topic_if_it_is_a_pattern(
    url: str, raw: RawPeer
) -> None:
    with talking(lambda n: raw.publish("a.b", b'{"x": [1, 2], "y": "z"}')):
        assert printed(run(url, "echo", "a.b", "-c", "1")) == '---\nx: [1, 2]\ny: "z"\n'
        assert printed(run(url, "echo", "a.*", "-c", "1")).startswith("--- # a.b\nx: ")
        assert printed(run(url, "echo", "a.b", "-c", "2", "--field", "x.1")) == "2\n2\n"
        assert printed(run(url, "echo", "a.*", "-c", "1", "--field", "y")) == "a.b: z\n"


PAYLOADS = [
    b"ON",
    b"17",
    b"\xff\xfe\x00",
    zlib.compress(b'{"packed": true}'),
    msgspec.msgpack.encode({"form": "msgpack"}),
    b'{"header": {"properties": {}}, "data": [1]}',
]


def test_echo_shows_whatever_is_sent_and_whoever_has_sent_it(url: str, raw: RawPeer) -> None:
    with talking(lambda n: raw.publish("t", PAYLOADS[n % len(PAYLOADS)])):
        count = str(len(PAYLOADS))
        text = printed(run(url, "echo", "t", "-c", count))
        found = [each["data"] for each in objects(run(url, "echo", "t", "-c", count, "--json"))]
    assert set(text.split("---\n")[1:]) == {
        *("ON\n", "17\n", "<3 bytes: ff fe 00>\n", "packed: true\n"),
        *('form: "msgpack"\n', "[1]\n"),
    }
    for data in ("ON", 17, "//4A", {"packed": True}, {"form": "msgpack"}, [1]):
        assert data in found


def test_echo_writes_payloads_as_they_are_on_request(url: str, raw: RawPeer) -> None:
    with talking(lambda n: raw.publish("t", b"\xff\x00\n")):
        result = run(url, "echo", "t", "-c", "2", "--raw")
    assert result.stdout_bytes == b"\xff\x00\n\xff\x00\n"


def test_echo_tells_how_many_messages_were_lost(url: str, raw: RawPeer) -> None:
    def publish_every_fourth(number: int) -> None:
        raw.publish_message("t", number, Header(1, PROPERTIES, "abcd", 4 * number))

    with talking(publish_every_fourth):
        result = run(url, "echo", "t", "-c", "3")
    lost = [line for line in result.stderr.splitlines() if line.startswith("t: ")]
    assert sum(int(line.split()[1]) for line in lost) == 2 * 3
    assert "lost" not in result.stdout


def test_echo_tells_of_a_message_that_cannot_be_read_and_goes_on(url: str, raw: RawPeer) -> None:
    payloads = (b"(\xb5/\xfd is no zstd", b"fine")
    with talking(lambda n: raw.publish("t", payloads[n % 2])):
        result = run(url, "echo", "t", "-c", "2")
    assert printed(result) == "---\nfine\n"
    assert "t: a message that cannot be read: " in result.stderr


def test_echo_tells_once_of_messages_without_the_field(url: str, raw: RawPeer) -> None:
    with talking(lambda n: raw.publish("t", b'{"x": 1}')):
        result = run(url, "echo", "t", "-c", "3", "--field", "y")
    assert (result.exit_code, result.stdout) == (1, ""), "it came to nothing"
    assert result.stderr.count("without the field 'y'") == 1


def test_echo_of_a_field_that_some_messages_have_has_come_to_something(
    url: str, raw: RawPeer
) -> None:
    with talking(lambda n: raw.publish("t", (b'{"x": 1}', b'{"y": 2}')[n % 2])):
        assert printed(run(url, "echo", "t", "-c", "2", "--field", "y")) == "2\n"


WAITING = "no node tells that it publishes t; waiting\n"


def test_echo_tells_at_once_that_no_node_publishes_what_it_waits_for(
    url: str, raw: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Event()
    monkeypatch.setattr("commlib.cli.topic.ANSWERS", 0.1)
    monkeypatch.setattr("commlib.cli.topic.say", lambda text, **how: (say(text, **how), said.set()))
    with talking(lambda n: raw.publish("t", b"ON") if said.is_set() else None):
        result = run(url, "echo", "t", "-c", "1", "--raw")
    assert (result.stdout_bytes, result.stderr) == (b"ON", WAITING)


def test_echo_waits_in_silence_for_a_node_that_publishes(
    url: str, robot: Node, raw: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Event()

    def look(nodes: list[NodeInfo], *where: Any) -> bool:
        looked.set()
        return is_published(nodes, *where)

    monkeypatch.setattr("commlib.cli.topic.ANSWERS", DEADLINE)
    monkeypatch.setattr("commlib.cli.topic.is_published", look)
    robot.create_publisher("t")
    run_node(robot, raw)
    with talking(lambda n: raw.publish("t", b"ON") if looked.is_set() else None):
        result = run(url, "echo", "t", "-c", "1", "--raw")
    assert (result.stdout_bytes, result.stderr) == (b"ON", "")


def test_raw_is_refused_beside_what_it_cannot_be_together_with(url: str) -> None:
    result = run(url, "echo", "t", "--raw", "--json")
    assert result.exit_code == 2
    assert "leave out --json and --field" in result.stderr


def test_losses_in_a_flood_are_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    missing = Missing(lambda: now)
    for _ in range(3):
        missing.note("a", lost=1, dropped=0)
    now += PAUSE
    missing.note("a", lost=2, dropped=5)
    missing.note("b", lost=1, dropped=0)
    missing.tell()
    missing.tell()
    assert capsys.readouterr().err.splitlines() == [
        "a: 1 message lost",
        "5 messages dropped here: they come faster than they are shown",
        "a: 4 messages lost",
        "b: 1 message lost",
    ]


# ---- pub ----


@pytest.fixture
def came(robot: Node, raw: RawPeer) -> Collected:
    """What comes on `sonar`, read as a Sonar."""
    came = Collected()
    robot.create_subscriber("sonar", came, msg_type=Sonar)
    run_node(robot, raw)
    return came


WRONG = {
    "{distance: near}": "distance: a number is expected",
    "{}": "distance: it is needed",
    "{distance: 1, unti: m}": "unti: there is no such field; did you mean unit?",
    "{distance: 1, pose: {x: left}}": "pose.x: a number is expected",
}


def test_pub_names_the_field_that_is_wrong_and_sends_nothing(url: str, came: Collected) -> None:
    for message, error in WRONG.items():
        result = run(url, "pub", "sonar", message)
        assert result.exit_code == 1
        assert error in result.stderr
        assert "robot (pid" in result.stderr
    printed(run(url, "pub", "sonar", "{distance: 5}"))
    assert came.first == Sonar(5)


def test_pub_sends_what_is_wrong_on_request(url: str, came: Collected, raw: RawPeer) -> None:
    packets = raw.subscribe("sonar")
    printed(run(url, "pub", "sonar", "{distance: near}", "--no-check"))
    assert b'{"distance":"near"}' in packets.first.payload


def test_pub_checks_against_who_publishes_if_nobody_reads(
    url: str, robot: Node, raw: RawPeer
) -> None:
    robot.create_publisher("sonar", msg_type=Sonar)
    run_node(robot, raw)
    result = run(url, "pub", "sonar", "{}")
    assert result.exit_code == 1
    assert ", which publishes Sonar, sends:\n" in result.stderr
    assert "no node that is there now reads sonar" in result.stderr


def test_pub_reads_the_message_from_a_file_and_from_its_input(
    url: str, raw: RawPeer, tmp_path: Path
) -> None:
    packets = raw.subscribe("t")
    file = tmp_path / "message.yaml"
    file.write_text("from: file\n")
    printed(run(url, "pub", "t", f"@{file}", "--no-check", "--bare"))
    printed(run(url, "pub", "t", "-", "--no-check", "--bare", text="[1, 2]"))
    assert [packet.payload for packet in packets.wait(2)] == [b'{"from":"file"}', b"[1,2]"]


def test_pub_sends_text_as_it_stands_for_devices(url: str, raw: RawPeer) -> None:
    packets = raw.subscribe("t")
    printed(run(url, "pub", "t", "{ON", "--no-check", "--bare", "--text"))
    assert packets.first.payload == b"{ON"


def test_pub_publishes_as_often_and_as_fast_as_it_is_told(url: str, raw: RawPeer) -> None:
    packets = raw.subscribe("t")
    result = run(url, "pub", "t", "1", "--no-check", "-c", "5", "--rate", "200", "--json")
    assert json.loads(printed(result)) == {"topic": "t", "published": 5}
    assert len(packets.wait(5)) == 5


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["t.*", "1"], "is a pattern"),
        (["t", "1", "--qos", "1"], "delivers at QoS 0"),
        (["t", "1", "--retain"], "keeps no messages"),
        (["t", "{a: ["], "neither JSON nor YAML"),
        (["t", "@/no/such/file"], "/no/such/file"),
    ],
)
def test_pub_refuses_what_cannot_be_sent(url: str, arguments: list[str], error: str) -> None:
    result = run(url, "pub", *arguments)
    assert result.exit_code == (1 if error == "/no/such/file" else 2)
    assert error in result.stderr


# ---- hz, bw, delay, latency ----


def test_hz_and_bw_measure_what_comes(url: str, raw: RawPeer) -> None:
    with talking(lambda n: raw.publish("t", b"12345678")):
        options = ("--json", "--window", "3")
        rates = in_time(lambda s: run(url, "hz", "t", "-d", s, *options), '"mean":')
        sizes = in_time(lambda s: run(url, "bw", "*", "-d", s, "--json"), '"mean":')
        in_time(lambda s: run(url, "hz", "*", "-d", s), "msg/s, interval min")
    rate, size = objects(rates)[-1], objects(sizes)[-1]
    assert rate["rate"] > 0
    assert rate["window"] <= 4
    assert rate["interval_ms"]["max"] >= rate["interval_ms"]["min"] > 0
    assert (size["bytes"]["min"], size["bytes"]["max"]) == (8, 8)
    assert size["summary"] is True


def test_delay_says_that_it_needs_clocks_and_shows_what_is_negative(url: str, raw: RawPeer) -> None:
    def publish_ahead(number: int) -> None:
        header = Header(int(time.time() * 1000) + 3_600_000, PROPERTIES)
        raw.publish_message("t", number, header)

    with talking(publish_ahead):
        result = in_time(lambda s: run(url, "delay", "t", "-d", s), "min -3")
    assert result.exit_code == 0
    assert "ms ahead" in result.stdout
    assert "clocks" in result.stderr


@pytest.mark.parametrize("command", ["hz", "bw", "delay"])
def test_a_measurement_of_nothing_ends_with_status_1(url: str, command: str) -> None:
    result = run(url, command, "t", "-d", "0.1")
    assert result.exit_code == 1
    assert "nothing came" in result.stdout


def test_messages_without_a_time_have_no_delay(url: str, raw: RawPeer) -> None:
    with talking(lambda n: raw.publish("t", b"plain")):
        result = in_time(lambda s: run(url, "delay", "t", "-d", s), "none has the time")
    assert result.exit_code == 1


def test_a_measurement_tells_how_it_is_going_meanwhile(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commlib.cli.topic_meters.PAUSE", 0.05)
    told = [json.loads(line) for line in run(url, "hz", "t", "-d", "0.2", "--json").stdout.split()]
    assert [each["summary"] for each in told] == [False] * (len(told) - 1) + [True]
    assert len(told) > 1
    assert "no new messages\n" in run(url, "hz", "t", "-d", "0.2").stdout


# ---- how they end ----


@contextmanager
def started(url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`commlib topic` in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "topic", *arguments, "--url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def besides_waiting(errors: str) -> str:
    """What is said but for that it waits, which a slow machine may bring about."""
    return "\n".join(line for line in errors.splitlines() if not line.endswith("; waiting"))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["echo"], 0), (["echo", "-c", "1000000"], 130), (["hz", "-d", "1000"], 130)],
)
def test_ctrl_c_ends_what_it_must_and_says_what_was_cut_short(
    valkey_server: ValkeyProcess, arguments: list[str], status: int
) -> None:
    broker = Broker(valkey_server.url)
    raw = RawPeer(broker.url)
    topic = broker.unique("topic")
    try:
        command = started(broker.url, *arguments, topic)
        with talking(lambda n: raw.publish(topic, b"x")), command as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=LONGEST)
    finally:
        raw.close()
    assert (process.returncode, besides_waiting(errors)) == (status, "")


def test_a_reader_that_has_seen_enough_ends_echo(valkey_server: ValkeyProcess) -> None:
    broker = Broker(valkey_server.url)
    raw = RawPeer(broker.url)
    topic = broker.unique("topic")
    try:
        command = started(broker.url, "echo", topic)
        with talking(lambda n: raw.publish(topic, b"x")), command as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "---\n"
            process.stdout.close()
            assert process.wait(LONGEST) == 0
            assert process.stderr is not None
            assert besides_waiting(process.stderr.read()) == ""
    finally:
        raw.close()


def test_a_broker_that_is_not_there_is_told_with_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("commlib.cli._common.CONNECT_SECONDS", 0.2)
    result = run("redis://127.0.0.1:1", "list")
    assert result.exit_code == 1
    assert "no broker at redis://127.0.0.1:1" in result.stderr
