"""Recordings: what gets into a file, what is counted, and what comes out again."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.records import Chunk, Statistics
from mcap.stream_reader import StreamReader
from mcap.writer import Writer

from brokers import Broker, Server
from collected import DEADLINE
from commlib import aio
from commlib._hops import place
from commlib._letter import open_letter
from commlib._packet import MAX_PAYLOAD, PROPERTIES, Header, Packet
from commlib._schemas import schema_of
from commlib._wire import pack
from commlib.action import GoalStatus
from commlib.aio._hub import Hub
from commlib.aio.discovery import Discovery
from commlib.events import Event
from commlib.exceptions import AuthError, ConnectionLost, SerializationError
from commlib.msg import NDArray
from commlib.recording import (
    Player,
    Recorder,
    RecordingError,
    _file,
    _part,
    _player,
    _recorder,
    read_summary,
)
from commlib.recording._counts import About, TopicCounter
from commlib.recording._early import MAX_BYTES, MAX_REPLIES, EarlyReplies
from commlib.recording._file import RecordingFile
from commlib.recording._part import Output
from commlib.recording._reading import Reading
from commlib.recording._records import from_record, open_packet, to_record
from commlib.recording._schema import viewable
from commlib.serializer import MessagePackSerializer
from commlib.transports import resolve
from commlib.transports.base import Address
from messages import Move, Pose, Sonar

HEADER = Header(1_700_000_000_000, PROPERTIES, "abcd1234", 7)
ENVELOPE = pack({"a": [1, "ü"]}, HEADER, native=False).payload


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recorder waits for, shortened: nobody here looks at the time."""
    monkeypatch.setattr(_recorder, "DISCOVERY_SECONDS", 0.05)
    monkeypatch.setattr(_file, "FLUSH_SECONDS", 0.05)


async def holds(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that nobody tells of."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(0.002)


async def heard(url: str, topic: str = "*") -> tuple[Hub, list[Packet]]:
    """All that is published from now on; the hub is to be closed."""
    hub = Hub(resolve(url), "ear")
    packets: list[Packet] = []
    hub.start()
    await hub.transport.subscribe(topic, packets.append)
    return hub, packets


def packets_in(path: Path) -> list[Packet]:
    return [
        from_record(found.message.data, found.channel.topic)[0]
        for found in Reading(path).messages()
    ]


def contents(packets: list[Packet]) -> list[tuple[str, bytes, str]]:
    """Topic, data and kind of data: what is the same on every broker."""
    found = []
    for packet in packets:
        plain, properties = open_letter(packet, MAX_PAYLOAD).plain()
        found.append((packet.topic, bytes(plain), properties.content_type))
    return found


# ---- records ----

PAYLOADS = {
    "an envelope": ENVELOPE,
    "an envelope with blanks": json.dumps(json.loads(ENVELOPE)).encode(),
    "an envelope of a number": pack(5, HEADER, native=False).payload,
    "an envelope in MessagePack": msgspec.msgpack.encode(json.loads(ENVELOPE)),
    "an envelope with a header that is no text": ENVELOPE.replace(b"abcd", b"ab\xff\xff"),
    "an envelope in zlib": zlib.compress(ENVELOPE),
    "an object": b'{"value":5,"_x":1}',
    "no field": b"{ }",
    "a line": b'{"a":1}\n',
    "a list": b"[1, 2]",
    "null": b"null",
    "NaN": b'{"a":NaN}',
    "an infinity": b'{"a":1e999}',
    "text": "grüß dich".encode(),
    "nothing": b"",
    "bytes": b"\xff\x00\xfe",
    "a map in MessagePack": msgspec.msgpack.encode({"a": b"\x00", 3: None}),
    "a record of ours": b'{"a":1,"_commlib":{}}',
    "our key in a header": b'{"header":{"timestamp":1,"_commlib":{}},"data":{}}',
}


@pytest.mark.parametrize("header", [None, HEADER], ids=["alone", "beside a header"])
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_a_record_is_a_json_object_and_gives_every_byte_back(
    payload: bytes, header: Header | None
) -> None:
    packet = Packet(payload, "t", header)
    record = to_record(open_packet(packet, MAX_PAYLOAD), "native")
    assert isinstance(json.loads(record.data), dict)
    assert from_record(record.data, "t")[0] == packet


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_any_payload_survives(payload: bytes) -> None:
    for packet in (Packet(payload), Packet(payload, "", HEADER)):
        record = to_record(open_packet(packet, MAX_PAYLOAD), "beside")
        assert isinstance(json.loads(record.data), dict)
        assert from_record(record.data, "")[0] == packet


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8
    )
)
def test_any_data_in_an_envelope_survives(data: Any) -> None:
    packet = Packet(json.dumps({"header": {"timestamp": 1}, "data": data}).encode())
    record = to_record(open_packet(packet, MAX_PAYLOAD), "native")
    assert from_record(record.data, "")[0] == packet


def test_the_fields_of_a_message_are_those_of_its_record() -> None:
    record = to_record(open_packet(Packet(ENVELOPE), MAX_PAYLOAD), "native")
    told = json.loads(record.data)
    assert told.pop("_commlib")["header"]["origin"] == "abcd1234"
    assert told == {"a": [1, "ü"]}


def test_what_is_no_record_is_not_taken_for_one() -> None:
    for data in (b'{"a":1}', b'{"a":1,"_commlib":5}', b'"_commlib":', b""):
        with pytest.raises(ValueError, match="no record of commlib"):
            from_record(data, "t")


# ---- schemas ----


def test_the_schema_in_a_file_has_no_references_and_no_unions() -> None:
    schema = viewable(schema_of(Sonar))
    assert "$ref" not in str(schema)
    assert "anyOf" not in str(schema)
    pose = {"x": {"type": "number"}, "y": {"type": "number"}}
    assert schema["type"] == "object"
    assert schema["properties"]["pose"]["properties"] == pose
    assert schema["properties"]["path"]["items"]["properties"] == pose
    assert schema["properties"]["limit"] == {"type": "number"}


def test_a_field_of_several_types_and_one_without_end_are_left_out() -> None:
    fields = viewable({"$ref": "#/$defs/T", "$defs": {"T": {
        "type": "object",
        "properties": {
            "below": {"type": "array", "items": {"$ref": "#/$defs/T"}},
            "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "name": {"type": "string"},
        },
    }}})["properties"]  # fmt: skip
    assert "either" not in fields
    assert fields["name"] == {"type": "string"}


def test_a_schema_that_grows_without_end_by_its_references_stays_small() -> None:
    fields = {f"f{number}": {"$ref": "#/$defs/T"} for number in range(9)}
    text = {"type": "string", "description": "long" * 10_000}
    for part in ({"type": "object", "properties": fields}, text):
        types = {"T": part, "S": {"type": "object", "properties": fields}}
        schema = viewable({"$ref": "#/$defs/S", "$defs": types})
        assert schema["type"] == "object"
        assert len(json.dumps(schema)) < 500_000


def test_what_is_no_object_has_the_schema_of_any_object() -> None:
    assert viewable(None) == viewable({"type": "array"}) == {"type": "object"}


# ---- record and replay, on each broker ----


async def test_all_that_a_robot_says_is_recorded_and_said_again(
    broker: Broker, tmp_path: Path
) -> None:
    path, name = tmp_path / "robot.mcap", broker.unique("rover")
    ear, published = await heard(broker.url, f"{name}.*")
    robot = aio.Node(name, broker.url, heartbeats=False)
    sonar = robot.create_publisher(f"{name}.sonar", msg_type=Sonar)
    packed = robot.create_publisher(f"{name}.packed", serializer=MessagePackSerializer)
    small = robot.create_publisher(f"{name}.small", compression="zlib")
    image = robot.create_publisher(f"{name}.image", msg_type=NDArray)
    plain = robot.create_publisher(f"{name}.plain")
    events = robot.create_event_emitter()
    bare = robot.create_publisher(f"{name}.bare", envelope=False)

    async def drive(goal: Any) -> Move.Result:
        await goal.send_feedback(Move.Feedback(cm=1))
        return Move.Result(cm=5)

    robot.create_action(f"{name}.drive", Move, drive)
    client = robot.create_action_client(f"{name}.drive", Move)
    async with robot, Recorder(path, [f"{name}.*"], broker.url) as recorder:
        for count in range(20):
            await sonar.publish(Sonar(distance=count / 2, count=count, pose=Pose(x=1.0)))
            await packed.publish({"count": count, "raw": b"\x00\xff"})
            await small.publish({"text": "long " * 50, "count": count})
            await image.publish(numpy.arange(12, dtype="uint8").reshape(3, 4) + count)
            await plain.publish([count, None])
            await bare.publish({"count": count})
        await events.send_event(Event(name="Ring", uri=f"{name}.bell", payload={"n": 1}))
        goal = await client.send_goal(Move.Goal(cm=5))
        assert (await goal.result(timeout=DEADLINE)).cm == 5
        assert goal.status is GoalStatus.SUCCEEDED
        await holds(lambda: {f"{name}.drive.feedback", f"{name}.bell"} <= topics_of(published))
        # Accepted, executing and succeeded: the client may have that from the service itself.
        await holds(lambda: [each.topic for each in published].count(f"{name}.drive.status") == 3)
        said = [packet for packet in published if not is_call(packet)]
        await holds(lambda: recorder.stats.received >= len(said))

    await ear.close()
    said = [packet for packet in published if not is_call(packet)]
    recorded = packets_in(path)
    assert recorded == said

    # Its own library reads it, and finds its checksums right.
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        found = [(channel.topic, json.loads(message.data)) for _, channel, message in
                 reader.iter_messages()]  # fmt: skip
    assert [topic for topic, _ in found] == [packet.topic for packet in said]
    assert found[0][1]["pose"] == {"x": 1.0, "y": 0.0}

    summary = read_summary(path)
    assert summary.complete
    assert summary.messages == len(said)
    for topic in summary.topics:
        assert (topic.lost_before, topic.lost_inside, topic.duplicates) == (0, 0, 0)
        assert topic.published == sum(packet.topic == topic.name for packet in said)

    # On another kind of broker it is the same messages, in the same order.
    elsewhere = f"memory://{broker.unique('elsewhere')}"
    ear, again = await heard(elsewhere)
    watcher = aio.Node("watcher", elsewhere, heartbeats=False, discovery=False)
    subscriber = watcher.create_subscriber(f"{name}.*", on_message=lambda msg: None)
    async with watcher, Player(path, elsewhere, rate=0) as player:
        played = await player.play()
        await holds(lambda: subscriber.stats.received == len(said) == len(again))
        assert subscriber.stats.gaps == 0
    await ear.close()
    assert contents(again) == contents(said)
    assert (played.messages, played.lost, played.refused) == (len(said), 0, 0)

    # On its own one they come in the same form; every byte is the same, if that is wanted.
    ear, again = await heard(broker.url, f"{name}.*")
    async with Player(path, broker.url, rate=0) as player:
        await player.play()
        await holds(lambda: len(again) == len(said))
    await ear.close()
    assert contents(again) == contents(said)
    assert [(bool(each.header), each.payload[:1]) for each in again] == [
        (bool(each.header), each.payload[:1]) for each in said
    ]
    ear, again = await heard(broker.url, f"{name}.*")
    async with Player(path, broker.url, rate=0, keep_headers=True) as player:
        await player.play()
        await holds(lambda: len(again) == len(said))
    await ear.close()
    assert again == said


def topics_of(packets: list[Packet]) -> set[str]:
    return {packet.topic for packet in packets}


def is_call(packet: Packet) -> bool:
    return bool(open_letter(packet, MAX_PAYLOAD).header.reply_to)


async def test_calls_are_recorded_where_they_can_be_heard_and_refused_elsewhere(
    broker: Broker, tmp_path: Path
) -> None:
    house = broker.unique("house")  # with others the broker may have kept messages
    path, name = tmp_path / "calls.mcap", f"{house}.add"
    if broker.traits.separator != "/":
        with pytest.raises(ValueError, match="calls cannot be recorded"):
            Recorder(path, rpc=[name], conn_params=broker.url)
        return
    node = aio.Node("adder", broker.url, heartbeats=False, discovery=False)
    node.create_rpc(name, lambda request: {"sum": request["a"] + request["b"]})
    client = node.create_rpc_client(name)
    async with node, Recorder(path, [f"{house}.*"], broker.url, rpc=[name]) as recorder:
        for count in range(3):
            assert await client.call({"a": count, "b": 1}, timeout=DEADLINE) == {"sum": count + 1}
        await holds(lambda: recorder.stats.received >= 6)
    topics = {topic.name: topic for topic in read_summary(path).topics}
    assert {name: (each.kind, each.messages) for name, each in topics.items()} == {
        f"{name}.request": ("request", 3),
        f"{name}.response": ("response", 3),
    }
    # A replay calls nobody.
    async with Player(path, broker.url, rate=0) as player:
        played = await player.play()
    assert (played.messages, played.calls) == (0, 6)


async def test_a_reply_that_is_read_before_its_request_is_recorded_behind_it(
    mqtt_server: Server, tmp_path: Path
) -> None:
    path, name = tmp_path / "calls.mcap", "early_add"
    client = Address(f"rpc-{bytes(16).hex()}/1")
    asked = msgspec.structs.replace(HEADER, reply_to=client.reply_to)
    caller = await peer(mqtt_server.url)
    async with Recorder(path, conn_params=mqtt_server.url, rpc=[name]) as recorder:
        native = caller.transport.traits.native_headers
        assert caller.transport.send(client, pack({"sum": 3}, HEADER, native))
        assert caller.transport.send(name, pack({"a": 1, "b": 2}, asked, native))
        await holds(lambda: recorder.stats.received >= 2)
    await caller.close()
    recorded = [packet.topic for packet in packets_in(path)]
    assert recorded == [f"{name}.request", f"{name}.response"]


def test_of_early_replies_the_newest_are_kept_as_far_as_there_is_room() -> None:
    early = EarlyReplies()
    for number in range(MAX_REPLIES + 1):
        early.keep(Packet(b"r", f"rpc-a/{number}"))
    assert early.take("rpc-a/0") is None
    assert early.take("rpc-a/1") == Packet(b"r", "rpc-a/1")
    assert early.take("rpc-a/1") is None
    early.keep(Packet(bytes(MAX_BYTES), "rpc-a/large"))
    assert early.take(f"rpc-a/{MAX_REPLIES}") is None, "its room is taken"
    early.keep(Packet(b"again", "rpc-a/large"))
    early.keep(Packet(bytes(MAX_BYTES + 1), "rpc-a/larger"))
    assert early.take("rpc-a/larger") is None
    assert early.take("rpc-a/large") == Packet(b"again", "rpc-a/large")


# ---- counted ----


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written until the recorder is stopped."""

    async def start(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Recorder, "_start", start)


async def peer(url: str) -> Hub:
    hub = Hub(resolve(url), "peer")
    hub.start()
    await hub.transport.connect()
    return hub


def message(seq: int, origin: str = "abcd1234") -> Packet:
    return Packet(b'{"n":%d}' % seq, "", Header(1_700_000_000_000, PROPERTIES, origin, seq))


async def test_what_was_lost_before_the_recorder_and_in_it_adds_up(
    tmp_path: Path, slow_disk: None
) -> None:
    path, url = tmp_path / "lossy.mcap", "memory://lossy"
    sender = await peer(url)
    async with Recorder(path, ["t.*"], url, max_waiting=40) as recorder:
        for seq in range(100):
            if seq % 10 != 3:  # each tenth gets lost on the way
                sender.transport.publish("t.a", message(seq))
            sender.transport.publish("t.b", Packet(b'{"bare":true}'))
        for seq in (100, 100):
            sender.transport.publish("t.c", message(seq))
        await holds(lambda: recorder.stats.received == 192)
    await sender.close()
    progress = recorder.progress
    assert progress.lost_inside > 0
    assert progress.lost_before == 10
    topics = {topic.name: topic for topic in read_summary(path).topics}
    assert topics["t.a"].lost_before == 10
    assert topics["t.a"].published == 100
    assert topics["t.b"].unnumbered == topics["t.b"].published == 100
    assert topics["t.c"].duplicates == 1
    assert topics["t.c"].published == 1
    assert sum(each.lost_inside for each in topics.values()) == progress.lost_inside


async def test_what_has_got_in_late_is_not_lost(tmp_path: Path) -> None:
    path, url = tmp_path / "late.mcap", "memory://late"
    sender = await peer(url)
    async with Recorder(path, ["t"], url) as recorder:
        for seq in (0, 2, 1, 3):
            sender.transport.publish("t", message(seq))
        await holds(lambda: recorder.stats.received == 4)
    await sender.close()
    assert read_summary(path).topics[0].lost_before == 0


async def test_nodes_do_not_tell_of_themselves_in_a_recording_of_everything(
    tmp_path: Path,
) -> None:
    path, url = tmp_path / "all.mcap", "memory://all"
    sender = await peer(url)
    async with Recorder(path, ["*", "t.*", "t.a"], url) as recorder:
        sender.transport.publish("commlib.discovery.alive", message(0))
        sender.transport.publish("t.a", message(0))
        await holds(lambda: recorder.stats.received == 1)
    await sender.close()
    assert [packet.topic for packet in packets_in(path)] == ["t.a"]


async def test_the_schema_of_a_message_class_is_in_the_file(tmp_path: Path) -> None:
    path, url = tmp_path / "typed.mcap", "memory://typed"
    node = aio.Node("robot", url, heartbeats=False)
    publisher = node.create_publisher("sonar", msg_type=Sonar)
    async with node, Recorder(path, ["sonar"], url) as recorder:
        await holds(lambda: bool(recorder._discovery and recorder._discovery.nodes))
        await publisher.publish(Sonar(distance=1.0))
        await holds(lambda: recorder.progress.messages == 1)
    topic = read_summary(path).topics[0]
    assert topic.type.endswith("Sonar")
    assert topic.schema == viewable(schema_of(Sonar))


async def test_where_nodes_may_not_be_asked_all_is_recorded_without_schemas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(self: Discovery, wait: bool = True) -> None:
        raise AuthError("you may not read commlib.discovery")

    monkeypatch.setattr(Discovery, "run", refuse)
    await recorded(tmp_path / "denied.mcap", 3)
    assert read_summary(tmp_path / "denied.mcap").messages == 3
    assert "you may not read commlib.discovery" in caplog.text


async def test_what_grows_when_it_is_expanded_has_room_for_that_only(
    tmp_path: Path, slow_disk: None
) -> None:
    path, url = tmp_path / "bomb.mcap", "memory://bomb"
    bomb = zlib.compress(pack({"zeros": "0" * 1_000_000}, HEADER, native=False).payload)
    sender = await peer(url)
    async with Recorder(path, ["t"], url, max_waiting=3_500_000) as recorder:
        for _ in range(10):
            sender.transport.publish("t", Packet(bomb))
        await holds(lambda: recorder.stats.received == 10)
        assert recorder.progress.lost_inside == 7
    await sender.close()
    topic = read_summary(path).topics[0]
    assert topic.messages + topic.lost_inside == 10


async def test_of_too_many_topics_the_rest_is_counted_together_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_recorder, "MAX_TOPICS", 2)
    path, url = tmp_path / "many.mcap", "memory://many"
    sender = await peer(url)
    async with Recorder(path, ["t.*"], url) as recorder:
        for number in range(5):
            sender.transport.publish(f"t.{number}", message(0))
        await holds(lambda: recorder.stats.received == 5)
    await sender.close()
    assert caplog.text.count("too many topics") == 1
    found = {each.name: (each.messages, each.lost_inside) for each in read_summary(path).topics}
    assert found == {"t.0": (1, 0), "t.1": (1, 0), "(other topics)": (0, 3)}


def test_a_sender_whose_name_is_too_long_to_be_kept_counts_as_one_without_numbers() -> None:
    counter = TopicCounter("t", About("t"))
    counter.note(Header(1, PROPERTIES, "x" * 1000, 5))
    counter.note(Header(1, PROPERTIES, "abcd", 5))
    assert counter.losses.unnumbered == 1


@pytest.mark.parametrize(
    "option",
    [{"split_size": 0}, {"split_seconds": -1}, {"max_size": 0}, {"file_compression": "gzip"}],
    ids=str,
)
def test_what_is_no_limit_and_no_compression_is_refused_at_once(
    option: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=str(next(iter(option)))):
        Recorder(tmp_path / "x.mcap", ["t"], "memory://limits", **option)


# ---- files ----


async def recorded(path: Path, count: int, **options: Any) -> Recorder:
    """A recording of so many messages on topic t."""
    url = f"memory://{path.stem}"
    sender = await peer(url)
    recorder = Recorder(path, ["t"], url, **options)
    async with recorder:
        for seq in range(count):
            sender.transport.publish("t", message(seq))
        if "max_size" in options:
            async with asyncio.timeout(DEADLINE):
                await recorder.wait()
        else:
            await holds(lambda: recorder.stats.received == count)
    await sender.close()
    return recorder


async def test_a_recording_in_several_files_adds_up_and_is_replayed_as_one(
    tmp_path: Path,
) -> None:
    await recorded(tmp_path / "run.mcap", 500, split_size=20_000, file_compression="none")
    files = sorted(tmp_path.glob("run-*.mcap"))
    assert len(files) > 1
    assert files[0].name == "run-0001.mcap"
    assert all(file.stat().st_size < 30_000 for file in files)
    assert sum(read_summary(file).messages for file in files) == 500
    assert [topic.name for topic in read_summary(files[-1]).topics] == ["t"]
    ear, packets = await heard("memory://again", "t")
    async with Player(files, "memory://again", rate=0) as player:
        await player.play()
        await holds(lambda: len(packets) == 500)
    await ear.close()
    assert [json.loads(packet.payload)["n"] for packet in packets] == [*range(500)]


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
async def test_a_recording_ends_when_it_is_large_enough(compression: Any, tmp_path: Path) -> None:
    path = tmp_path / f"{compression}.mcap"
    recorder = await recorded(path, 20, max_size=1, file_compression=compression)
    summary = read_summary(path)
    assert summary.complete
    assert summary.messages == summary.topics[0].published == recorder.progress.messages >= 1
    assert recorder.progress.lost_inside == 0


async def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "there.mcap"
    path.write_text("mine")
    with pytest.raises(RecordingError, match="is there already"):
        await recorded(path, 1)
    assert path.read_text() == "mine"
    await recorded(path, 1, overwrite=True)
    assert read_summary(path).messages == 1


async def test_of_several_files_each_tells_of_the_topics_that_it_has(tmp_path: Path) -> None:
    path, url = tmp_path / "two.mcap", "memory://two"
    sender = await peer(url)
    async with Recorder(path, ["*"], url, split_seconds=1e-9) as recorder:
        sender.transport.publish("a", message(0))
        sender.transport.publish("b", message(0))
        await holds(lambda: recorder.stats.received == 2)
    await sender.close()
    parts = [read_summary(tmp_path / f"two-000{number}.mcap").topics for number in (1, 2)]
    assert [[topic.name for topic in part] for part in parts] == [["a"], ["b"]]


NAMES = ("run-0001.mcap", "run-0002.mcap", "run-0003.mcap")
LATER_NAMES = ("run-0005.mcap", "run-2026.mcap", "run-12345.mcap")
OTHER_NAMES = (
    *("run-003.mcap", "run-0003a.mcap", "run-0003.bag", "a-run-0003.mcap", "run.mcap"),
    *("run-0000.mcap", "run-00007.mcap", "run-00000.mcap"),
)


@pytest.mark.parametrize("name", [*NAMES, *LATER_NAMES])
async def test_a_recording_in_several_files_begins_only_where_all_their_names_are_free(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RecordingError, match=rf"{name} is there already"):
        await recorded(tmp_path / "run.mcap", 1, split_seconds=60)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(name, "mine")]


async def test_the_files_of_a_longer_recording_are_no_part_of_the_one_that_takes_their_place(
    tmp_path: Path,
) -> None:
    left = (*LATER_NAMES, *OTHER_NAMES)
    for name in (*NAMES, *left):
        (tmp_path / name).write_text("mine")
    await recorded(tmp_path / "run.mcap", 1, split_seconds=60, overwrite=True)
    assert {each.name for each in tmp_path.iterdir()} == {"run-0001.mcap", *left}
    assert read_summary(tmp_path / "run-0001.mcap").complete
    assert {(tmp_path / name).read_text() for name in left} == {"mine"}


async def test_names_that_no_part_may_have_are_not_in_the_way(tmp_path: Path) -> None:
    for name in OTHER_NAMES:
        (tmp_path / name).write_text("mine")
    await recorded(tmp_path / "run.mcap", 1, split_seconds=60)
    assert {each.name for each in tmp_path.iterdir()} == {"run-0001.mcap", *OTHER_NAMES}


async def test_a_directory_is_no_part_and_what_lies_behind_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run-0001.mcap").write_text("old")
    (tmp_path / "run-0002.mcap").mkdir()
    (tmp_path / "run-0003.mcap").write_text("mine")
    await recorded(tmp_path / "run.mcap", 1, split_seconds=60, overwrite=True)
    assert (tmp_path / "run-0002.mcap").is_dir()
    assert (tmp_path / "run-0003.mcap").read_text() == "mine"
    assert read_summary(tmp_path / "run-0001.mcap").complete


async def test_a_recording_in_one_file_leaves_those_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "run-0002.mcap").write_text("mine")
    await recorded(tmp_path / "run.mcap", 1, overwrite=True)
    assert (tmp_path / "run-0002.mcap").read_text() == "mine"


async def test_a_second_file_that_is_there_already_is_named_and_the_first_one_is_whole(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.mcap"
    sender = await peer("memory://second")
    recorder = Recorder(path, ["t"], "memory://second", split_size=1)
    await recorder.run()
    (tmp_path / "run-0002.mcap").write_text("mine")
    for seq in range(5000):  # more than a chunk
        sender.transport.publish("t", message(seq))
    with pytest.raises(RecordingError, match=r"run-0002.mcap is there already"):
        async with asyncio.timeout(DEADLINE):
            await recorder.wait()
    with pytest.raises(RecordingError, match="is there already"):
        await recorder.stop()
    await sender.close()
    assert (tmp_path / "run-0002.mcap").read_text() == "mine"
    assert read_summary(tmp_path / "run-0001.mcap").complete


def test_a_file_that_was_closed_leaves_alone_what_has_its_number_now(tmp_path: Path) -> None:
    output = Output(tmp_path / "x.mcap", overwrite=False)
    number = output._fd
    output.close()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    try:
        assert other == number, "the lowest free number is given away next"
        os.write(other, b"mine")
        with pytest.raises(OSError, match="Bad file descriptor"):
            output.cut()
        output.close()
        assert os.pread(other, 4, 0) == b"mine"
    finally:
        os.close(other)


async def test_the_file_is_finished_though_the_connection_makes_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched:
        is_closed = False

        async def close(self) -> None:
            self.is_closed = True

    class Broken(Watched):
        async def close(self) -> None:
            raise ConnectionLost("it is gone")

    def close(file: RecordingFile, topics: list[TopicCounter]) -> None:
        assert recorder._starting is not None
        assert recorder._starting.done(), "the file is started on the loop and here at once"
        close_file(file, topics)

    close_file = RecordingFile.close
    monkeypatch.setattr(RecordingFile, "close", close)
    path, url = tmp_path / "gone.mcap", "memory://gone"
    sender = await peer(url)
    recorder = Recorder(path, ["t"], url)
    await recorder.run()
    sender.transport.publish("t", message(0))
    await holds(lambda: recorder.stats.received == 1)
    waiting = asyncio.ensure_future(recorder.wait())
    other = Watched()
    recorder._subscriptions += [Broken(), other]  # type: ignore[list-item]
    with pytest.raises(ConnectionLost):
        await recorder.stop()
    assert other.is_closed
    async with asyncio.timeout(DEADLINE):
        await waiting
    await sender.close()
    assert read_summary(path).complete
    assert read_summary(path).messages == 1


async def test_a_full_disk_is_told_and_leaves_a_file_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, url = tmp_path / "full.mcap", "memory://full"
    sender = await peer(url)
    recorder = Recorder(path, ["t"], url)
    await recorder.run()
    sender.transport.publish("t", message(0))
    await holds(lambda: recorder.progress.messages == 1 and recorder.progress.size > 200)
    write = os.write

    def no_room(fd: int, data: Any) -> int:
        if len(data) > 20:
            return write(fd, data[:20])  # which is what a disk does that is nearly full
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_part.os, "write", no_room)
    sender.transport.publish("t", message(1))
    with pytest.raises(RecordingError, match="the disk is full"):
        async with asyncio.timeout(DEADLINE):
            await recorder.wait()
    monkeypatch.undo()
    with pytest.raises(RecordingError, match="the disk is full"):
        await recorder.stop()
    await sender.close()
    summary = read_summary(path)
    assert not summary.complete
    assert summary.messages == 1


async def test_a_file_that_was_cut_off_anywhere_is_read_as_far_as_it_is_whole(
    tmp_path: Path,
) -> None:
    whole = tmp_path / "whole.mcap"
    await recorded(whole, 60, split_size=None, file_compression="none")
    data, messages = whole.read_bytes(), packets_in(whole)
    assert len(messages) == 60
    seen = set()
    for size in [*range(8, len(data), 97), len(data) - 1]:
        cut = tmp_path / "cut.mcap"
        cut.write_bytes(data[:size])
        left = packets_in(cut)
        seen.add(len(left))
        assert left == messages[: len(left)]
        summary = read_summary(cut)
        assert summary.messages == len(left)
        assert not summary.complete
    assert {0, 60} <= seen


async def test_of_a_file_that_was_cut_off_it_is_known_that_messages_have_no_numbers(
    tmp_path: Path,
) -> None:
    path, url = tmp_path / "bare.mcap", "memory://bare"
    sender = await peer(url)
    async with Recorder(path, ["*"], url) as recorder:
        sender.transport.publish("a", Packet(b'{"bare":true}'))
        sender.transport.publish("b", message(0))
        await holds(lambda: recorder.stats.received == 2)
    await sender.close()
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"commlib.topics")])
    summary = read_summary(path)
    assert not summary.complete
    assert [topic.unnumbered for topic in summary.topics] == [1, 0]


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
async def test_a_file_that_was_tampered_with_is_read_as_far_as_it_makes_sense_or_refused(
    compression: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"fuzz-{compression}.mcap"
    await recorded(path, 30, file_compression=compression)
    data, draw = path.read_bytes(), Random(9)
    for _ in range(120):
        broken = bytearray(data)
        for _ in range(draw.choice((1, 2, 5))):
            broken[draw.randrange(8, len(data))] = draw.choice((0, 1, 255))
        path.write_bytes(broken)
        for read in (read_summary, packets_of_any):
            with suppress(RecordingError):
                read(path)


def packets_of_any(path: Path) -> None:
    for found in Reading(path).messages():
        with suppress(SerializationError):
            from_record(found.message.data, found.channel.topic)


def in_chunks(
    path: Path, about: dict[str, str] | None = None
) -> tuple[bytearray, list[tuple[int, int]]]:
    """A file of five chunks, with a message of its own topic in each: where they begin and end."""
    with path.open("wb") as file:
        writer: Any = Writer(file, chunk_size=100)
        writer.start()
        if about:
            writer.add_metadata("about", about)
        for n in range(5):
            channel = writer.register_channel(f"t{n}", "json", 0)
            writer.add_message(channel, n, b'"%s"' % Random(n).randbytes(100).hex().encode(), n)
        writer.finish()
    return bytearray(path.read_bytes()), chunks_of(path)


def chunks_of(path: Path) -> list[tuple[int, int]]:
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    begins = [(each.chunk_start_offset, each.chunk_length) for each in summary.chunk_indexes]
    return sorted((begin, begin + length) for begin, length in begins)


def names_in(path: Path) -> tuple[list[str], list[str]]:
    """The topics of its messages, each once, and what is wrong with it."""
    reading = Reading(path)
    names = [found.channel.topic for found in reading.messages()]
    return list(dict.fromkeys(names)), reading.faults


@pytest.mark.parametrize("zeros", [0, 1, 20, 52, 70])
def test_of_a_damaged_file_the_damaged_chunk_alone_is_lost(zeros: int, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mcap"
    data, chunks = in_chunks(path)
    begin, end = chunks[1][0] + 9, chunks[1][1]
    if zeros:
        data[begin : begin + zeros] = bytes(zeros)
        data[end - zeros : end] = bytes(zeros)
    else:
        data[end - 20] ^= 1
    path.write_bytes(data)
    names, faults = names_in(path)
    assert names == ["t0", "t2", "t3", "t4"]
    assert faults == ["1 chunk is damaged, what was in there is lost"]


@pytest.mark.parametrize(
    ("at", "told"),
    [(9 + 16 + 7, r"a chunk of \d+ bytes"), (9 + 16 + 8 + 4 + 4, "compressed by 'xstd'")],
)
def test_a_chunk_whose_size_or_compression_makes_no_sense_costs_no_other_one(
    at: int, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "head.mcap"
    data, chunks = in_chunks(path)
    data[chunks[1][0] + at] = ord("x")
    path.write_bytes(data)
    names, faults = names_in(path)
    assert names == ["t0", "t2", "t3", "t4"]
    assert faults == ["1 chunk is damaged, what was in there is lost"]
    for begin, _ in chunks:
        data[begin + at] = ord("x")
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=told):
        names_in(path)


@pytest.mark.parametrize("kind", [0x02, 0x04, 0x07, 0x0E, 0x16, 0x26, 0x46, 0x86])
def test_a_chunk_that_has_become_a_record_of_another_kind_is_missing(
    kind: int, tmp_path: Path
) -> None:
    path = tmp_path / "kind.mcap"
    data, chunks = in_chunks(path)
    data[chunks[1][0]] = kind
    path.write_bytes(data)
    names, faults = names_in(path)
    assert names == ["t0", "t2", "t3", "t4"]
    assert faults == ["1 chunk is damaged, what was in there is lost"]
    if kind in (0x02, 0x0E, 0x16, 0x26, 0x46):  # is seen at once
        path.write_bytes(data[:-30])
        names, faults = names_in(path)
        assert names == ["t0", "t2", "t3", "t4"]
        assert [fault[:7] for fault in faults] == ["1 chunk", "cut off"]


def test_a_count_of_chunks_that_is_damaged_itself_is_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "count.mcap"
    data, _ = in_chunks(path)
    with path.open("rb") as file:
        statistics = next(
            each for each in StreamReader(file).records if isinstance(each, Statistics)
        )
    assert statistics.chunk_count == 5
    at = data.index(b"\x0b" + (46 + 50).to_bytes(8, "little")) + 9 + 8 + 2 + 4 + 4 + 4
    assert data[at] == 5
    data[at] = 7
    path.write_bytes(data)
    assert names_in(path) == (["t0", "t1", "t2", "t3", "t4"], [])


def test_what_is_damaged_beside_the_messages_is_told_and_is_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "beside.mcap"
    data, _ = in_chunks(path, about={"host": "here"})
    begin = data.index(b"\x0f\4\0\0\0\0\0\0\0")  # the end of the data
    for at, new, part in (
        (begin, 0x4F, "index"),
        (begin + 1, 5, "index"),
        (begin + 7, 1, "index"),  # longer than any file
        (begin + 13 + 9 + 4, 0xFF, "index"),
        (begin + 13 + 7, 1, "index"),  # longer than any file
        (len(data) - 1, 0, "index"),
        (len(data) - 8 - 20 - 9, 3, "index"),  # the footer
        (len(data) - 8 - 20 - 8, 21, "index"),
        (data.index(b"host") - 2, 0xFF, "metadata"),
    ):
        assert data[at] != new
        broken = bytearray(data)
        broken[at] = new
        path.write_bytes(broken)
        reading = Reading(path)
        assert len([*reading.messages()]) == 5
        assert reading.faults == [f"its {part} is damaged; all messages were read"], at
        assert not reading.is_damaged
        assert not reading.is_cut_off


def test_what_a_damaged_chunk_says_of_later_ones_is_read_at_the_end_if_that_is_there(
    tmp_path: Path,
) -> None:
    path = tmp_path / "named.mcap"
    with path.open("wb") as file:
        writer: Any = Writer(file, chunk_size=100)
        writer.start()
        for n in range(3):
            if n == 0:
                channel = writer.register_channel("t", "json", 0)
            writer.add_message(channel, n, b'{"n":%d,"s":"%s"}' % (n, b"x" * 200), n)
        writer.finish()
    data = bytearray(path.read_bytes())
    data[chunks_of(path)[0][1] - 20] ^= 1
    path.write_bytes(data)
    reading = Reading(path)
    assert [found.message.sequence for found in reading.messages()] == [0, 0]
    assert reading.damaged == 1
    path.write_bytes(data[:-30])
    names, faults = names_in(path)
    assert names == []
    assert faults[:2] == [
        "1 chunk is damaged, what was in there is lost",
        "2 messages have lost the names of their topics there",
    ]
    assert faults[2].startswith("cut off")


def test_where_no_record_begins_the_reading_ends_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "hole.mcap"
    data, chunks = in_chunks(path)
    at = chunks[2][0]
    hole = bytearray(data)
    hole[at : at + 50] = bytes(50)
    path.write_bytes(hole)
    assert names_in(path) == (["t0", "t1"], [f"damaged at byte {at}, all behind it is lost"])
    length = bytearray(data)
    length[at + 7] = 1  # longer than any file
    path.write_bytes(length)
    assert names_in(path) == (["t0", "t1"], [f"damaged at byte {at}, all behind it is lost"])
    assert read_summary(path).faults == [f"damaged at byte {at}, all behind it is lost"]
    path.write_bytes(length[:-30])  # damaged, and cut off as well
    assert names_in(path) == (["t0", "t1"], [f"damaged at byte {at}, all behind it is lost"])
    kind = bytearray(data)
    kind[at], kind[at + 3] = 0x46, 1
    path.write_bytes(kind[:-30])
    assert names_in(path) == (["t0", "t1"], [f"damaged at byte {at}, all behind it is lost"])
    kind[at] = 0x09  # an attachment may be as long, and was not finished
    path.write_bytes(kind[:-30])
    assert names_in(path)[1][0].startswith("cut off")
    path.write_bytes(data[:at] + bytes(5000))  # as some file systems leave it when power fails
    names, faults = names_in(path)
    assert names == ["t0", "t1"]
    assert [fault.split(":")[0] for fault in faults] == ["cut off"]
    assert read_summary(path).faults == faults


class BadDisk(io.FileIO):
    """A file of which nothing behind a byte can be read."""

    good = 0

    def readinto(self, buffer: Any) -> int | None:
        if self.tell() >= self.good:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(memoryview(buffer)[: self.good - self.tell()])


async def test_what_the_disk_does_not_give_is_damaged_and_what_was_read_before_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad.mcap"
    data, chunks = in_chunks(path)

    def bad(good: int) -> None:
        monkeypatch.setattr(BadDisk, "good", good)
        monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedReader(BadDisk(path, mode)))

    begin, end = chunks[2]
    for good, at in ((begin + 5, begin), (begin + 20, begin), (end, end)):
        bad(good)
        fault = f"damaged at byte {at} (Input/output error), all behind it is lost"
        assert names_in(path) == (["t0", "t1", "t2"][: 2 + (at == end)], [fault])
        assert read_summary(path).faults == [fault]
    async with Player(path, "memory://bad", rate=0) as player:
        told = await player.play()
    assert (told.messages, told.damaged, told.faults) == (3, 1, [f"{path}: {fault}"])
    bad(len(data) - 20)
    assert names_in(path)[1] == ["its index is damaged; all messages were read"]
    for good in (0, 8, 12):
        bad(good)
        with pytest.raises(RecordingError, match="Input/output error"):
            read_summary(path)


async def test_a_file_that_is_refused_costs_nothing_of_the_one_before(tmp_path: Path) -> None:
    path, none = tmp_path / "good.mcap", tmp_path / "none.mcap"
    in_chunks(path)
    none.write_text("no recording")
    for paths, messages in (([path, none], 5), ([none, path], 0)):
        async with Player(paths, "memory://refused", rate=0) as player:
            with pytest.raises(RecordingError, match="is no MCAP file"):
                await player.play()
        assert player.played.messages == messages


async def test_a_replay_tells_once_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    damaged, cut, url = tmp_path / "damaged.mcap", tmp_path / "cut.mcap", "memory://damaged"
    data, chunks = in_chunks(damaged)
    cut.write_bytes(data[: chunks[3][0] + 10])
    data[chunks[1][1] - 20] ^= 1
    damaged.write_bytes(data)
    async with Player([damaged, cut], url, rate=0, loop=True) as player:
        playing = asyncio.ensure_future(player.play())
        await holds(lambda: player.played.rounds >= 2)
        playing.cancel()
        await asyncio.wait([playing])
    assert player.played.damaged == 1
    assert [fault.split(": ")[:2] for fault in player.played.faults] == [
        [str(damaged), "1 chunk is damaged, what was in there is lost"],
        [str(cut), "cut off"],
    ]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
async def test_no_more_of_a_chunk_is_expanded_than_it_says_and_no_giant_at_all(
    compression: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_file, "FLUSH_SECONDS", DEADLINE)  # one chunk, however slow the machine is
    path = tmp_path / f"bomb-{compression}.mcap"
    await recorded(path, 500, file_compression=compression)
    data = path.read_bytes()
    with path.open("rb") as file:
        records = StreamReader(file, emit_chunks=True).records
        size = next(each.uncompressed_size for each in records if isinstance(each, Chunk))

    def says(other: int) -> bytes:
        return data.replace(size.to_bytes(8, "little"), other.to_bytes(8, "little"), 1)

    path.write_bytes(says(100))
    assert packets_in(path) == []
    path.write_bytes(says(1 << 40))
    with pytest.raises(RecordingError, match="a chunk of 1099511627776 bytes"):
        packets_in(path)


@pytest.mark.parametrize("what", ["topics", "rpc", "actions"])
def test_one_name_is_no_list_of_them(tmp_path: Path, what: str) -> None:
    with pytest.raises(TypeError, match=rf"{what}='sensors\.\*': it is a list"):
        Recorder(tmp_path / "new.mcap", conn_params="memory://n", **{what: "sensors.*"})
    with pytest.raises(TypeError, match=r"topics='sensors\.\*': it is a list"):
        Player(tmp_path / "old.mcap", "memory://n", topics="sensors.*")


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mcap"
    with pytest.raises(RecordingError, match="No such file"):
        read_summary(path)
    path.write_bytes(b"\x89MCAP")
    with pytest.raises(RecordingError, match="no MCAP file"):
        read_summary(path)


KILLED = """
import asyncio, os, signal, sys
from commlib import aio
from commlib.recording import Recorder, _file, _recorder

_recorder.DISCOVERY_SECONDS = _file.FLUSH_SECONDS = 0.05

async def main():
    node = aio.Node("robot", "memory://", heartbeats=False, discovery=False)
    publisher = node.create_publisher("t")
    async with node, Recorder(sys.argv[1], ["t"], "memory://") as recorder:
        count = 0
        while True:
            await publisher.publish({"n": count})
            count += 1
            await asyncio.sleep(0.001)
            if recorder.progress.size > 2000:
                os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_recorder_that_is_killed_leaves_all_but_the_last_moment(tmp_path: Path) -> None:
    path = tmp_path / "killed.mcap"
    process = subprocess.run([sys.executable, "-c", KILLED, path], timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL
    numbers = [json.loads(packet.payload)["n"] for packet in packets_in(path)]
    assert numbers == [*range(len(numbers))]
    assert numbers
    assert not read_summary(path).complete


# ---- players ----


async def played(path: Path, **options: Any) -> list[Packet]:
    url = f"memory://played-{path.stem}"
    ear, packets = await heard(url)
    async with Player(path, url, **options) as player:
        told = await player.play()
        await holds(lambda: len(packets) == told.messages)
    await ear.close()
    return packets


async def test_a_replay_has_a_sender_of_its_own_that_counts_without_gaps(tmp_path: Path) -> None:
    path = tmp_path / "gaps.mcap"
    sender = await peer("memory://gaps")
    async with Recorder(path, ["t"], "memory://gaps") as recorder:
        for seq in (5, 9):
            sender.transport.publish("t", message(seq))
        traced = message(12)
        assert traced.header is not None
        traced.header.traceparent = "00-abc"
        sender.transport.publish("t", traced)
        await holds(lambda: recorder.stats.received == 3)
    await sender.close()
    headers = [packet.header for packet in await played(path, rate=0)]
    assert [header.seq for header in headers if header] == [0, 1, 2]
    assert {header.origin for header in headers if header}.isdisjoint({"abcd1234"})
    assert headers[2] is not None
    assert headers[2].traceparent == "00-abc"


async def test_a_replay_where_a_bridge_has_taken_it_away_goes_over_the_bridge(
    tmp_path: Path,
) -> None:
    here, elsewhere = place(resolve("memory://hops").address, "t"), "01234567"
    assert await hops_of(tmp_path / "hops.mcap", (here, elsewhere)) == ()
    assert await hops_of(tmp_path / "hops.mcap", (elsewhere,)) == (elsewhere,)


async def hops_of(path: Path, hops: tuple[str, ...]) -> tuple[str, ...]:
    """The hops of a message that had others when it was recorded."""
    sender, passed = await peer("memory://hops"), message(0)
    assert passed.header is not None
    passed.header.hops = hops
    async with Recorder(path, ["t"], "memory://hops", overwrite=True) as recorder:
        sender.transport.publish("t", passed)
        await holds(lambda: recorder.stats.received == 1)
    ear, packets = await heard("memory://hops")
    async with Player(path, "memory://hops", rate=0) as player:
        await player.play()
        await holds(lambda: len(packets) == 1)
    await ear.close()
    await sender.close()
    assert packets[0].header is not None
    return packets[0].header.hops


async def test_the_distances_of_messages_are_kept_at_the_given_rate(tmp_path: Path) -> None:
    path = tmp_path / "timed.mcap"
    sender = await peer("memory://timed")
    async with Recorder(path, ["t"], "memory://timed") as recorder:
        sender.transport.publish("t", message(0))
        await holds(lambda: recorder.stats.received == 1)
        await asyncio.sleep(0.2)  # is what is measured
        sender.transport.publish("t", message(1))
        await holds(lambda: recorder.stats.received == 2)
    await sender.close()
    length = read_summary(path).duration
    assert length >= 0.2
    clock = asyncio.get_running_loop().time
    begin = clock()
    await played(path, rate=2)
    assert clock() - begin >= length / 2


async def test_a_replay_in_a_loop_goes_on_counting(tmp_path: Path) -> None:
    path = tmp_path / "loop.mcap"
    await recorded(path, 3)
    ear, packets = await heard("memory://looped")
    async with Player(path, "memory://looped", rate=0, loop=True) as player:
        playing = asyncio.ensure_future(player.play())
        await holds(lambda: player.played.rounds >= 3)
        playing.cancel()
        await asyncio.wait([playing])
    await ear.close()
    numbers = [packet.header.seq for packet in packets if packet.header]
    assert numbers == [*range(len(numbers))]
    assert [json.loads(packet.payload)["n"] for packet in packets[:7]] == [0, 1, 2, 0, 1, 2, 0]


async def test_topics_and_times_choose_what_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "chosen.mcap"
    await recorded(path, 5)
    assert await played(path, rate=0, topics=["other.*"]) == []
    assert len(await played(path, rate=0, topics=["t"])) == 5
    assert await played(path, rate=0, start=3600) == []
    assert len(await played(path, rate=0, end=0)) == 1
    with pytest.raises(ValueError, match="negative"):
        Player(path, rate=-1)


def foreign(path: Path, *times: int) -> None:
    """A file of another program, with a message at each of these times (s)."""
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        channel = writer.register_channel("t", "json", 0)
        for time in times:
            writer.add_message(channel, time * 10**9, b'{"n":%d}' % time, time * 10**9)
        writer.finish()


async def test_nothing_is_left_out_because_it_is_older_than_what_comes_first(
    tmp_path: Path,
) -> None:
    late, early = tmp_path / "late.mcap", tmp_path / "early.mcap"
    foreign(late, 1000, 998, 1001)
    foreign(early, 500, 501)
    url = "memory://older"
    ear, packets = await heard(url)
    async with Player([late, early], url, rate=100) as player:
        told = await player.play()
        await holds(lambda: len(packets) == 5)
    await ear.close()
    assert [json.loads(packet.payload)["n"] for packet in packets] == [1000, 998, 1001, 500, 501]
    assert told.position == 2.0
    part = await played(late, rate=0, end=0.5)
    assert [json.loads(packet.payload)["n"] for packet in part] == [1000, 998]


async def test_large_messages_are_not_read_far_ahead(tmp_path: Path) -> None:
    path = tmp_path / "large.mcap"
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        channel = writer.register_channel("t", "json", 0)
        for time in range(12):
            writer.add_message(channel, time, b'"%s"' % (b"x" * 1_000_000), time)
        writer.finish()
    player = Player(path, "memory://large")
    assert 1 < len(_player._batch(player._messages())) < 12
    await player.stop()


async def test_json_of_other_programs_is_replayed_and_the_rest_counted(tmp_path: Path) -> None:
    path = tmp_path / "foreign.mcap"
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        for topic, encoding, data in (("a", "json", b'{"n":1}'), ("b", "cdr", b"\x00")):
            channel = writer.register_channel(topic, encoding, 0)
            writer.add_message(channel, 1, data, 1)
        writer.finish()
    assert [topic.name for topic in read_summary(path).topics] == ["a", "b"]
    ear, packets = await heard("memory://foreign")
    async with Player(path, "memory://foreign", rate=0) as player:
        told = await player.play()
        await holds(lambda: len(packets) == 1)
    await ear.close()
    assert (told.messages, told.foreign) == (1, 1)
    assert packets[0].payload == b'{"n":1}'


async def test_of_what_a_replay_has_missed_in_a_pause_little_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "paused.mcap"
    foreign(path, *range(20))
    loop, pauses, sleep = asyncio.get_running_loop(), list[float](), asyncio.sleep
    now = loop.time()

    async def skip(seconds: float) -> None:
        nonlocal now
        pauses.append(round(seconds, 3))
        now += seconds + (60.0 if len(pauses) == 10 else 0.0)  # as in Ctrl-Z
        await sleep(0)

    player = Player(path, "memory://paused")
    await player.run()
    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(_player.asyncio, "sleep", skip)
    async with player:
        told = await player.play()
        monkeypatch.undo()
    assert told.messages == 20
    assert [each for each in pauses if each] == [*[1.0] * 10, 0.5, *[1.0] * 7]
