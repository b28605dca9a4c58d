"""Where an MQTT broker is, how to get in, and what to leave there."""

from __future__ import annotations

import ssl

import pytest

from commlib.transports.mqtt import ConnectionParameters, Credentials, MQTTProtocolType, Will


def test_by_default_it_is_mqtt_5_on_this_machine() -> None:
    params = ConnectionParameters()
    assert str(params) == "mqtt://localhost:1883"
    assert params.protocol is MQTTProtocolType.MQTTv5
    assert params.keepalive == 60


def test_a_url_says_all_of_it() -> None:
    params = ConnectionParameters.from_url(
        "mqtt://us%40er:pa%3Ass@host:8884?tls=1&protocol=MQTTv311&keepalive=5&client_id=me"
    )
    assert (params.host, params.port, params.ssl) == ("host", 8884, True)
    assert params.credentials == ("us@er", "pa:ss")
    assert params.protocol is MQTTProtocolType.MQTTv311
    assert (params.keepalive, params.client_id) == (5, "me")
    assert str(params) == "mqtts://host:8884"
    assert "pa:ss" not in repr(params)


def test_mqtts_is_tls_on_its_own_port() -> None:
    params = ConnectionParameters.from_url("mqtts://host")
    assert (params.port, params.ssl) == (8883, True)
    context = params.ssl_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_credentials_may_be_given_in_one_piece() -> None:
    params = ConnectionParameters(creds=Credentials("robot", "secret"))
    assert params.credentials == ("robot", "secret")
    assert "secret" not in repr(params)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"protocol": "MQTTv6"}, "protocol='MQTTv6': it is MQTTv311 or MQTTv5"),
        ({"keepalive": 70_000}, "room for 65535"),
        ({"will": Will("a.*")}, "a pattern"),
        ({"birth": Will("a", qos=3)}, "3 is not a valid QoS"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_said(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ConnectionParameters(**options)  # type: ignore[arg-type]


def test_a_path_in_a_url_is_refused() -> None:
    with pytest.raises(ValueError, match="no path"):
        ConnectionParameters.from_url("mqtt://host/topic")


@pytest.mark.parametrize(
    ("payload", "raw"),
    [(b"\x00", b"\x00"), ("off", b"off"), ({"on": False}, b'{"on":false}'), (None, b"null")],
)
def test_a_will_is_bytes_text_or_json(payload: object, raw: bytes) -> None:
    will = Will("robot.state", payload, qos=1, retain=True).as_will()
    assert (will.topic, will.payload, will.qos, will.retain) == ("robot/state", raw, 1, True)


def test_the_same_broker_has_the_same_address_by_whatever_way() -> None:
    address = ConnectionParameters("10.0.0.1", 1883).address
    assert ConnectionParameters("10.0.0.1", 1883, username="x", ssl=True).address == address
