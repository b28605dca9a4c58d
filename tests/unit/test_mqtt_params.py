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
        "&session_expiry=3600"
    )
    assert (params.host, params.port, params.ssl) == ("host", 8884, True)
    assert params.credentials == ("us@er", "pa:ss")
    assert params.protocol is MQTTProtocolType.MQTTv311
    assert (params.keepalive, params.client_id, params.session_expiry) == (5, "me", 3600)
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
        ({"session_expiry": 60.0}, "session_expiry: it needs a client_id"),
        ({"session_expiry": -1.0, "client_id": "me"}, "session_expiry=-1.0: it is a time"),
        ({"session_expiry": float("nan"), "client_id": "me"}, "session_expiry=nan: it is a time"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_said(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ConnectionParameters(**options)  # type: ignore[arg-type]


def test_a_path_in_a_url_is_refused() -> None:
    with pytest.raises(ValueError, match="no path"):
        ConnectionParameters.from_url("mqtt://host/topic")


# ---- websockets ----


@pytest.mark.parametrize(
    ("url", "port", "tls", "path", "text"),
    [
        ("ws://host", 80, False, "/mqtt", "ws://host:80/mqtt"),
        ("wss://host", 443, True, "/mqtt", "wss://host:443/mqtt"),
        ("ws://host:8083/", 8083, False, "/", "ws://host:8083/"),
        ("wss://host/a/b%20c", 443, True, "/a/b%20c", "wss://host:443/a/b%20c"),
        ("ws://[::1]:8083/ws", 8083, False, "/ws", "ws://[::1]:8083/ws"),
        ("ws://host?tls=1", 80, True, "/mqtt", "wss://host:80/mqtt"),
        ("mqtt://host:8083?transport=websockets", 8083, False, "/mqtt", "ws://host:8083/mqtt"),
    ],
)
def test_a_url_asks_for_websockets(url: str, port: int, tls: bool, path: str, text: str) -> None:
    params = ConnectionParameters.from_url(url)
    assert params.transport == "websockets"
    assert (params.port, params.ssl, params.path, str(params)) == (port, tls, path, text)


def test_it_has_credentials_and_options_as_any_other() -> None:
    params = ConnectionParameters.from_url("wss://me:pa%2Fss@host/ws?protocol=MQTTv311&keepalive=5")
    assert params.credentials == ("me", "pa/ss")
    assert (params.protocol, params.keepalive) == (MQTTProtocolType.MQTTv311, 5)


def test_what_may_hold_a_token_is_not_shown() -> None:
    params = ConnectionParameters(
        transport="websockets", path="/mqtt?token=s3cret", headers={"Authorization": "s3cret"}
    )
    for shown in (repr(params), str(params), params.address):
        assert "s3cret" not in shown


def test_brokers_behind_one_web_server_are_told_from_each_other() -> None:
    one, other, secure = (
        ConnectionParameters.from_url(url).address
        for url in ("ws://10.0.0.1:80/one", "ws://10.0.0.1/other", "wss://10.0.0.1:80/one")
    )
    assert one != other
    assert one == secure, "TLS is only another way in"


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"transport": "udp"}, ValueError, "transport='udp': it is tcp or websockets"),
        ({"path": "/ws"}, ValueError, "for transport='websockets'"),
        ({"headers": {"a": "b"}}, ValueError, "for transport='websockets'"),
        ({"transport": "websockets", "path": "mqtt"}, ValueError, "begins with /"),
        ({"transport": "websockets", "path": ""}, ValueError, "begins with /"),
        ({"transport": "websockets", "path": "/a b"}, ValueError, "percent-encoded"),
        ({"transport": "websockets", "path": "/é"}, ValueError, "percent-encoded"),
        ({"transport": "websockets", "path": "/a\r\nX: y"}, ValueError, "percent-encoded"),
        ({"transport": "websockets", "path": "/a#b"}, ValueError, "percent-encoded"),
        ({"transport": "websockets", "path": None}, TypeError, "path= is text"),
        ({"transport": "websockets", "headers": "a: b"}, TypeError, "texts by their names"),
        ({"transport": "websockets", "headers": {"a": "b\r\nc: d"}}, ValueError, "printable"),
        ({"transport": "websockets", "headers": {"a": 5}}, ValueError, "printable"),
        ({"transport": "websockets", "headers": {5: "a"}}, ValueError, "printable"),
        ({"transport": "websockets", "headers": {"": "a"}}, ValueError, "a name is letters"),
        ({"transport": "websockets", "headers": {"a b": "c"}}, ValueError, "a name is letters"),
        ({"transport": "websockets", "headers": {"a:": "b"}}, ValueError, "a name is letters"),
        ({"transport": "websockets", "headers": {"(a)": "b"}}, ValueError, "a name is letters"),
    ],
)
def test_what_no_websocket_has_is_refused(
    options: dict[str, object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        ConnectionParameters(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    ["Host", "upgrade", "CONNECTION", "Sec-WebSocket-Protocol", "sec-websocket-extensions"],
)
def test_the_headers_of_the_handshake_are_not_said_twice(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} belongs to the handshake"):
        ConnectionParameters(transport="websockets", headers={name: "x"})


def test_any_other_header_may_be_said() -> None:
    headers = {
        "Authorization": "Bearer x",
        "X-Host": "y",
        "Origin": "https://a",
        "!#$%&'*+.^_`|~": "",
    }
    assert ConnectionParameters(transport="websockets", headers=headers).headers == headers


def test_a_token_in_the_name_of_a_header_is_not_shown() -> None:
    with pytest.raises(ValueError) as raised:
        ConnectionParameters(transport="websockets", headers={"Authorization: s3cret": ""})
    assert "s3cret" not in str(raised.value)


def test_headers_do_not_stand_in_a_url() -> None:
    with pytest.raises(ValueError, match="'headers' is no option"):
        ConnectionParameters.from_url("ws://host?headers=x")


# ---- ALPN ----


@pytest.mark.parametrize("alpn", ["mqtt,x-amzn-mqtt-ca", ["mqtt", "x-amzn-mqtt-ca"]])
def test_names_for_a_port_that_many_share_are_one_or_several(alpn: str | list[str]) -> None:
    params = ConnectionParameters(ssl=True, alpn=alpn)
    assert params.alpn == ("mqtt", "x-amzn-mqtt-ca")
    assert ConnectionParameters(ssl=True, alpn="mqtt").alpn == ("mqtt",)


def test_none_are_said_unless_asked_for() -> None:
    assert ConnectionParameters().alpn == ConnectionParameters(alpn="").alpn == ()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpn": "mqtt"}, "within TLS: ssl=True, mqtts:// or wss://"),
        (
            {"alpn": "mqtt", "ssl": ssl.create_default_context()},
            r"set_alpn_protocols\(\['mqtt'\]\)",
        ),
        ({"alpn": ["x" * 256], "ssl": True}, "1 to 255 bytes"),
        ({"alpn": ["mqtt", ""], "ssl": True}, "1 to 255 bytes"),
        ({"alpn": [b"mqtt"], "ssl": True}, "1 to 255 bytes"),
    ],
)
def test_what_cannot_be_said_in_alpn_is_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ConnectionParameters(**options)  # type: ignore[arg-type]


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
