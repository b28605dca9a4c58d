"""Where an AMQP broker is, and how to get in."""

from __future__ import annotations

import logging
import ssl
from math import inf
from typing import Any

import pytest

from commlib.transports.amqp import ConnectionParameters, Credentials


def test_by_default_it_is_rabbitmq_on_this_machine() -> None:
    params = ConnectionParameters()
    assert str(params) == "amqp://127.0.0.1:5672"
    assert params.credentials == ("guest", "guest")
    assert (params.vhost, params.exchange, params.mechanism) == ("/", "amq.topic", "PLAIN")
    assert params.ssl_context() is None


def test_a_url_says_all_of_it() -> None:
    params = ConnectionParameters.from_url(
        "amqp://us%40er:pa%3Ass@host:5673/robots%2Farm?tls=1&heartbeat_timeout=10&exchange=x"
        "&queue_size=5&message_ttl=1000&blocked_connection_timeout=2.5"
    )
    assert (params.host, params.port, params.ssl) == ("host", 5673, True)
    assert params.credentials == ("us@er", "pa:ss")
    assert (params.vhost, params.exchange) == ("robots/arm", "x")
    assert (params.heartbeat_timeout, params.blocked_connection_timeout) == (10, 2.5)
    assert params.queue_arguments == {
        **{"x-max-length": 5, "x-overflow": "drop-head"},
        "x-message-ttl": 1000,
    }
    assert str(params) == "amqps://host:5673/robots/arm"
    assert "pa:ss" not in repr(params)


@pytest.mark.parametrize(
    ("path", "vhost"),
    [("", "/"), ("/", "/"), ("/%2F", "/"), ("/a", "a"), ("/a%2Fb", "a/b"), ("/%CE%B1", "α")],
)
def test_the_path_of_a_url_is_the_virtual_host(path: str, vhost: str) -> None:
    assert ConnectionParameters.from_url(f"amqp://host{path}").vhost == vhost


def test_amqps_is_tls_on_its_own_port() -> None:
    params = ConnectionParameters.from_url("amqps://host")
    assert (params.port, params.ssl) == (5671, True)
    context = params.ssl_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    "given",
    [
        {"creds": Credentials("robot", "s3cret")},
        {"username": "robot", "password": "s3cret"},
    ],
)
def test_credentials_may_be_given_in_one_piece(given: dict[str, object]) -> None:
    params = ConnectionParameters(**given)  # type: ignore[arg-type]
    assert params.credentials == ("robot", "s3cret")
    assert "s3cret" not in repr(params)
    assert "s3cret" not in str(params)


def test_the_names_of_the_seed_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    params = ConnectionParameters(
        *("host", 5672, "/", Credentials("a", "b")),
        secure=True,
        reconnect_attempts=3,
        retry_delay=2.0,
        timeout=7,
        blocked_connection_timeout=3,
        heartbeat_timeout=9,
        channel_max=10,
    )
    assert params.ssl is True
    assert params.connect_timeout == 7
    assert "reconnect_attempts and retry_delay change nothing" in caplog.text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mechanism": "AMQPLAIN"}, "mechanism='AMQPLAIN': it is PLAIN or EXTERNAL"),
        ({"exchange": ""}, "topics need one of the type topic"),
        ({"heartbeat_timeout": -1}, "at least 0 is needed"),
        ({"heartbeat_timeout": float("nan")}, "at least 0 is needed"),
        ({"channel_max": 6}, "at least 7 is needed"),
        ({"channel_max": 7, "session_expiry": 60, "client_id": "robot"}, "at least 8 is needed"),
        ({"session_expiry": 60}, "session_expiry: it needs a client_id"),
        ({"session_expiry": -1, "client_id": "robot"}, "session_expiry=-1: it is a time in sec"),
        ({"session_expiry": 1 << 32, "client_id": "robot"}, "seconds, 4294967 at most"),
        ({"session_expiry": "1", "client_id": "robot"}, "session_expiry='1': it is a time"),
        ({"queue_type": "stream"}, "queue_type='stream': it is classic or quorum"),
        ({"client_id": "amq.robot"}, "does not begin with 'amq.'"),
        ({"client_id": "a\nb"}, "without control characters"),
        ({"client_id": "x" * 101}, "100 bytes at most"),
        ({"keepalive": 0}, "at least 1 is needed"),
        ({"timeout": 0}, "connect_timeout=0: at least"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_said(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ConnectionParameters(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"queue_size": -1},
        {"queue_size": 2**63},
        {"message_ttl": -1},
        {"message_ttl": 2**63},
        {"vhost": "x" * 256},
        {"exchange": "x" * 256},
    ],
)
def test_what_amqp_has_no_room_for_is_refused_when_it_is_said(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        ConnectionParameters(**options)  # type: ignore[arg-type]


def test_only_lasting_subscriptions_need_a_channel_more() -> None:
    assert ConnectionParameters(channel_max=7).first_service == 7
    params = ConnectionParameters(channel_max=8, session_expiry=60, client_id="robot")
    assert params.first_service == 8


def test_without_bounds_the_queue_has_none() -> None:
    assert ConnectionParameters().queue_arguments == {}
    assert ConnectionParameters(queue_size=0).queue_arguments == {
        **{"x-max-length": 0, "x-overflow": "drop-head"},
    }


def lasting(**options: Any) -> dict[str, Any]:
    params = {"client_id": "robot-1", "session_expiry": 1.5, **options}
    return ConnectionParameters(**params).lasting_arguments


def test_a_queue_that_outlives_the_connection_says_for_how_long() -> None:
    assert lasting() == {"x-queue-type": "classic", "x-expires": 1500}
    assert lasting(session_expiry=0.0001)["x-expires"] == 1
    assert lasting(session_expiry=inf) == {"x-queue-type": "classic"}
    assert lasting(queue_type="quorum", queue_size=9, message_ttl=5) == {
        **{"x-queue-type": "quorum", "x-expires": 1500, "x-single-active-consumer": True},
        **{"x-max-length": 9, "x-overflow": "drop-head", "x-message-ttl": 5},
    }


def test_a_session_can_be_asked_for_in_a_url() -> None:
    url = "amqp://host?client_id=robot-1&session_expiry=3600&queue_type=quorum"
    params = ConnectionParameters.from_url(url)
    assert (params.client_id, params.session_expiry) == ("robot-1", 3600.0)
    assert params.queue_type == "quorum"
    assert params.make_transport().traits.lasting
    assert not ConnectionParameters(client_id="robot-1").make_transport().traits.lasting


def test_the_same_broker_has_the_same_address_by_whatever_way() -> None:
    address = ConnectionParameters("10.0.0.1").address
    assert ConnectionParameters("10.0.0.1", username="x", ssl=True).address == address
    assert ConnectionParameters("10.0.0.1", vhost="other").address != address
    assert ConnectionParameters("10.0.0.1", exchange="other").address != address


def test_a_password_that_is_not_encoded_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="%2F") as raised:
        ConnectionParameters.from_url("amqp://bob:12/34@127.0.0.1/shop")
    assert "34" not in str(raised.value)
