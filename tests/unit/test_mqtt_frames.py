"""The bytes of MQTT packets: as the standards have them, and as another codec makes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqttium import MQTTProtocolVersion, QoS
from mqttium.codec import decode_properties, encode_properties
from mqttium.packets import (
    ConnectPacket,
    PubAckPacket,
    PublishPacket,
    SubscribeOptions,
    SubscribePacket,
    Subscription,
    UnsubscribePacket,
)
from mqttium.types import Properties

from commlib.transports import _mqtt_bytes as wire
from commlib.transports import _mqtt_control as control
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_bytes import Malformed
from commlib.transports._mqtt_control import V5, V311

VERSIONS = {V311: MQTTProtocolVersion.MQTTv311, V5: MQTTProtocolVersion.MQTTv5}
texts = st.text(
    st.characters(codec="utf8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30
)
topics = texts.filter(lambda text: not set(text) & set("+#"))
version = st.sampled_from([V311, V5])


# ---- numbers and texts ----


@pytest.mark.parametrize(
    ("number", "raw"),  # MQTT 5.0, table 1-1
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_a_length_is_written_as_the_table_of_the_standard_has_it(number: int, raw: str) -> None:
    assert wire.length(number).hex() == raw
    assert wire.read_length(b"\0" + bytes.fromhex(raw), 1) == (number, 1 + len(raw) // 2)


def test_a_length_has_at_most_four_bytes() -> None:
    with pytest.raises(Malformed, match="more than four"):
        wire.read_length(b"\x80\x80\x80\x80\x01", 0)


def test_a_text_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(Malformed, match="no UTF-8"):
        wire.read_text(b"\x00\x02\xff\xfe", 0)


# ---- properties ----

PROPERTIES: dict[str, Any] = {
    "payload_format_indicator": 1,
    "message_expiry_interval": 7,
    "content_type": "application/json",
    "response_topic": "a/b",
    "correlation_data": b"\x00\x01",
    "subscription_identifier": (5, 268_435_455),
    "user_property": (("origin", "ab"), ("", "")),
}


def test_all_properties_of_a_publish_are_read_or_passed_over() -> None:
    raw = encode_properties(Properties(PROPERTIES), "PUBLISH")
    published, end = frames.read_published(b"head" + raw + b"payload", 4)
    assert end == 4 + len(raw)
    assert published.expiry == 7
    assert sorted(published.ids) == [5, 268_435_455]
    assert published.pairs == [("origin", "ab"), ("", "")]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x02\x7f\x00", "unknown property, 0x7f"),
        (b"\x09\x0b\x05", "longer than their packet"),
        (b"\x03\x02\x00\x00", "cut off"),
        (b"\x03\x23\x00\x01", "alias"),
        (b"\x02\x0b\x80", "cut off|longer"),
        (b"\x05\x26\x00\x09ab", "longer than"),
        (b"\xff\xff\xff\xff\x7f", "four bytes"),
        (b"", "cut off"),
    ],
)
def test_properties_that_make_no_sense_are_refused(raw: bytes, text: str) -> None:
    with pytest.raises(Malformed, match=text):
        frames.read_published(raw, 0)


@given(st.binary(max_size=40))
def test_random_properties_are_read_or_refused(raw: bytes) -> None:
    try:
        _, end = frames.read_published(raw, 0)
    except Malformed:
        return
    assert end <= len(raw)


@given(st.none() | st.floats(-10, 1e12), st.lists(st.tuples(texts, texts), max_size=3))
def test_what_is_published_with_properties_another_codec_reads(
    expiry: float | None, pairs: list[tuple[str, str]]
) -> None:
    raw = frames.publish_properties(expiry, pairs)
    properties, end = decode_properties(raw, 0, "PUBLISH")
    assert end == len(raw)
    assert properties is not None or not (pairs or expiry)
    values = properties.values if properties is not None else {}
    assert [tuple(pair) for pair in values.get("user_property", ())] == pairs
    if expiry is None:
        assert "message_expiry_interval" not in values
    else:
        # Whole seconds, and rather too long than too short.
        seconds = values["message_expiry_interval"]
        assert 1 <= seconds <= 0xFFFFFFFF
        assert seconds >= min(expiry, 0xFFFFFFFF)


# ---- PUBLISH ----


@given(version, topics, st.binary(max_size=300), st.booleans())
def test_a_publish_at_qos_0_is_what_another_codec_makes(
    version: int, topic: str, payload: bytes, retain: bool
) -> None:
    properties = frames.NO_PROPERTIES if version == V5 else b""
    ours = frames.publish(wire.text(topic), payload, int(retain), properties)
    theirs = PublishPacket(topic=topic, payload=payload, qos=QoS(0), retain=retain, dup=False)
    assert ours == theirs.encode(VERSIONS[version])


@given(version, topics, st.binary(max_size=300), st.sampled_from([1, 2]), st.integers(1, 65_535))
def test_a_publish_at_qos_1_and_2_is_what_another_codec_makes(
    version: int, topic: str, payload: bytes, qos: int, packet_id: int
) -> None:
    properties = frames.NO_PROPERTIES if version == V5 else b""
    flags = qos << frames.QOS_SHIFT
    before, behind = frames.publish_parts(wire.text(topic), payload, flags, properties)
    theirs = PublishPacket(
        topic=topic, payload=payload, qos=QoS(qos), retain=False, dup=False, mid=packet_id
    )
    assert before + wire.u16.pack(packet_id) + behind == theirs.encode(VERSIONS[version])


@given(topics, st.binary(max_size=300), st.sampled_from([0, 1, 2]), st.none() | st.integers(1, 99))
def test_a_publish_for_mqtt_5_can_be_made_one_for_3_1_1(
    topic: str, payload: bytes, qos: int, expiry: int | None
) -> None:
    def frame(properties: bytes) -> bytes:
        flags = qos << frames.QOS_SHIFT
        if not qos:
            return frames.publish(wire.text(topic), payload, flags, properties)
        before, behind = frames.publish_parts(wire.text(topic), payload, flags, properties)
        return before + b"\x12\x34" + behind

    new = frame(frames.publish_properties(expiry, [("name", "value")]))
    assert frames.downgraded(new) == frame(b"")


def test_other_packets_are_left_as_they_are_for_3_1_1() -> None:
    assert frames.downgraded(control.PINGREQ) == control.PINGREQ


# ---- acknowledgements ----


@given(version, st.integers(1, 65_535))
def test_an_acknowledgement_is_what_another_codec_makes(version: int, packet_id: int) -> None:
    ours = frames.acknowledge(frames.PUBACK, packet_id)
    assert ours == PubAckPacket(packet_id).encode(VERSIONS[version])
    assert frames.read_acknowledgement(ours[2:]) == (packet_id, 0)


def test_an_acknowledgement_of_mqtt_5_may_say_no() -> None:
    assert frames.read_acknowledgement(b"\x00\x07\x87\x00") == (7, 0x87)
    with pytest.raises(Malformed, match="packet identifier"):
        frames.read_acknowledgement(b"\x00")


# ---- CONNECT and its like ----


@given(
    version,
    texts,
    st.integers(0, 65_535),
    st.none() | texts,
    st.none() | texts,
    st.none()
    | st.builds(
        control.Will, topics, st.binary(max_size=9), st.sampled_from([0, 1, 2]), st.booleans()
    ),
)
def test_connect_is_what_another_codec_makes(
    version: int,
    client_id: str,
    keepalive: int,
    username: str | None,
    password: str | None,
    will: control.Will | None,
) -> None:
    if password is not None and username is None:
        username = "somebody"  # the other codec refuses what 3.1.1 does not allow
    theirs = ConnectPacket(
        client_id,
        keepalive=keepalive,
        username=username,
        password=password.encode() if password else None,
        protocol=VERSIONS[version],
        **(
            {
                "will_topic": will.topic,
                "will_payload": will.payload,
                "will_qos": QoS(will.qos),
                "will_retain": will.retain,
            }
            if will is not None
            else {}
        ),
    )
    ours = control.connect(version, client_id, keepalive, username or "", password or "", will)
    assert ours == theirs.encode()


def test_a_password_alone_has_an_empty_user_name() -> None:
    frame = control.connect(V311, "c", 60, "", "secret", None)
    assert frame.endswith(b"\x00\x01c\x00\x00\x00\x06secret")
    assert frame[9] == 0xC2  # user name, password, clean session


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.5, 1), (3600.0, 3600), (1e10, 0xFFFFFFFF), (math.inf, 0xFFFFFFFF)]
)
def test_connect_asks_for_a_session_that_the_broker_keeps(seconds: float, told: int) -> None:
    theirs = ConnectPacket(
        "robot",
        keepalive=60,
        clean_start=False,
        protocol=VERSIONS[V5],
        properties=Properties({"session_expiry_interval": told}),
    )
    assert control.connect(V5, "robot", 60, "", "", None, seconds) == theirs.encode()


def test_on_mqtt_3_1_1_connect_says_only_that_the_session_is_to_be_kept() -> None:
    clean, kept = (control.connect(V311, "robot", 60, "", "", None, s) for s in (0, 3600))
    assert (clean[9], kept[9]) == (2, 0)
    assert clean[:9] + clean[10:] == kept[:9] + kept[10:]


def test_the_answer_of_the_broker_says_what_became_of_the_session() -> None:
    granted = control.read_connack(V5, b"\x01\x00\x05\x11\x00\x00\x00\x3c")
    assert (granted.is_resumed, granted.session_expiry) == (True, 60)
    granted = control.read_connack(V311, b"\x01\x00")
    assert (granted.is_resumed, granted.session_expiry) == (True, None)
    assert not control.read_connack(V5, b"\x00\x00\x00").is_resumed


def test_the_answer_of_the_broker_says_what_it_can_do() -> None:
    said = {
        "server_keep_alive": 30,
        "receive_maximum": 10,
        "maximum_qos": 1,
        "retain_available": 0,
        "maximum_packet_size": 1000,
        "subscription_identifier_available": 0,
        "shared_subscription_available": 0,
        "reason_string": "welcome",
        "assigned_client_identifier": "x",
        "topic_alias_maximum": 3,
        "wildcard_subscription_available": 1,
    }
    raw = encode_properties(Properties(said), "CONNACK")
    assert control.read_connack(V5, b"\x00\x00" + raw) == control.Granted(
        *(0, "welcome", 30, 10, 1, False, 1000, False, False)
    )
    assert control.read_connack(V5, b"\x00\x00\x00") == control.Granted(0)


def test_a_broker_without_mqtt_5_answers_in_its_own_way() -> None:
    assert control.read_connack(V5, b"\x00\x01").code == 1
    old = control.read_connack(V311, b"\x00\x00")
    assert (old.numbers, old.shares, old.window) == (False, False, 20)
    with pytest.raises(Malformed, match="CONNACK"):
        control.read_connack(V311, b"\x00")


@given(version, st.integers(1, 65_535), texts, st.sampled_from([0, 1, 2]), st.integers(0, 300))
def test_subscribe_and_its_end_are_what_another_codec_makes(
    version: int, packet_id: int, topic: str, qos: int, number: int
) -> None:
    topic = topic.replace("+", "p").replace("#", "h")
    number = number if version == V5 else 0
    theirs = SubscribePacket(
        packet_id,
        (Subscription(topic, SubscribeOptions(QoS(qos))),),
        Properties({"subscription_identifier": number}) if number else None,
    )
    ours = control.subscribe(version, packet_id, topic, qos, number)
    assert ours == theirs.encode(VERSIONS[version])
    end = UnsubscribePacket(packet_id, (topic,))
    assert control.unsubscribe(version, packet_id, topic) == end.encode(VERSIONS[version])


def test_the_answers_to_subscribe_are_read() -> None:
    assert control.read_suback(V311, b"\x00\x09\x02") == (9, 2)
    assert control.read_suback(V5, b"\x00\x09\x04\x1f\x00\x01x\x87") == (9, 0x87)
    assert control.read_suback(V311, b"\x00\x09") == (9, 0)  # UNSUBACK
    with pytest.raises(Malformed):
        control.read_suback(V5, b"\x00")


def test_the_farewell_of_the_broker_is_read() -> None:
    assert control.read_disconnect(b"") == (0, "")
    assert control.read_disconnect(b"\x8e") == (0x8E, "")
    assert control.read_disconnect(b"\x8b\x06\x1f\x00\x03bye") == (0x8B, "bye")


def test_another_codec_reads_what_a_broker_would() -> None:
    frame = frames.publish(wire.text("a/b"), b"hi", 0, frames.publish_properties(5, []))
    packet = PublishPacket.decode(0, frame[2:], MQTTProtocolVersion.MQTTv5)
    assert (packet.topic, packet.payload) == ("a/b", b"hi")
