"""Connection parameters: from a URL or from Python, and what is said about wrong ones."""

from __future__ import annotations

import copy
import pickle
import ssl
from dataclasses import InitVar, dataclass, replace
from typing import Any

import pytest

from commlib._packet import MAX_PAYLOAD
from commlib._params import BaseParameters, Offline, nearest
from commlib.exceptions import MissingDriver
from commlib.transports import amqp, memory, mqtt, redis
from commlib.transports.redis import (
    ConnectionParameters,
    Credentials,
    TCPConnectionParameters,
    UnixSocketConnectionParameters,
)

# ---- URLs ----


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {}),
        ("redis://robot", {"host": "robot"}),
        ("redis://robot:7000", {"host": "robot", "port": 7000}),
        ("redis://robot:7000/", {"host": "robot", "port": 7000}),
        ("redis://robot/3", {"host": "robot", "db": 3}),
        ("redis://:secret@robot", {"host": "robot", "password": "secret"}),
        ("redis://me:secret@robot", {"host": "robot", "username": "me", "password": "secret"}),
        ("redis://m%40e:s%2Fe%3A@robot", {"host": "robot", "username": "m@e", "password": "s/e:"}),
        ("redis://[::1]:7000/1", {"host": "::1", "port": 7000, "db": 1}),
        ("redis://[fe80::1%25Eth0]", {"host": "fe80::1%Eth0"}),  # RFC 6874
        ("redis://[fe80::1%Eth0]:7000", {"host": "fe80::1%Eth0", "port": 7000}),
        ("redis://[fe80::1%25]", {"host": "fe80::1%25"}),  # zones may be numbers, as this one
        ("valkey://robot", {"host": "robot"}),
        ("rediss://robot", {"host": "robot", "ssl": True}),
        ("valkeys://robot", {"host": "robot", "ssl": True}),
        ("redis://robot?ssl=true", {"host": "robot", "ssl": True}),
        ("rediss://robot?ssl=1", {"host": "robot", "ssl": True}),
        ("redis+unix:///run/redis.sock", {"unix_socket": "/run/redis.sock"}),
        (
            "redis+unix://me:pw@/run/a%20b.sock?db=2",
            {"unix_socket": "/run/a b.sock", "username": "me", "password": "pw", "db": 2},
        ),
        ("redis://robot?keepalive=5", {"host": "robot", "keepalive": 5.0}),
        (
            "redis://robot?connect_timeout=0.5&reconnect=false&max_payload=1000&offline=wait",
            {
                "host": "robot",
                "connect_timeout": 0.5,
                "reconnect": False,
                "max_payload": 1000,
                "offline": "wait",
            },
        ),
    ],
)
def test_a_url_says_all_that_parameters_say(url: str, expected: dict[str, Any]) -> None:
    assert ConnectionParameters.from_url(url) == ConnectionParameters(**expected)


@pytest.mark.parametrize(
    ("url", "name"),
    [("memory://", ""), ("memory://lab", "lab"), ("memory://lab/left", "lab/left")],
)
def test_a_memory_url_names_a_broker(url: str, name: str) -> None:
    assert memory.ConnectionParameters.from_url(url) == memory.ConnectionParameters(name)


def test_a_url_makes_an_instance_of_the_class_it_is_given_to() -> None:
    params = UnixSocketConnectionParameters.from_url("redis+unix:///run/redis.sock")
    assert type(params) is UnixSocketConnectionParameters


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://robot?keepalife=5", "'keepalife' is no option .*; did you mean keepalive?"),
        ("redis://robot?ssl=maybe", "ssl=maybe: bool"),
        ("redis://robot?db=first", "db=first: int expected"),
        ("redis://robot?keepalive=long", "keepalive=long: float expected"),
        ("redis://robot?offline=drop", "offline='drop': it is one of buffer, wait, raise"),
        ("redis://robot?creds=me", "'creds' is no option"),
        ("rediss://robot?ssl=0", "rediss:// asks for TLS, and ssl=0 for none"),
        ("rediss://robot?tls=false", "rediss:// asks for TLS, and tls=false for none"),
        ("redis://robot/name", "/name: the path of a Redis URL is the number of the database"),
        ("redis://robot/1/2", "number of the database"),
        ("redis://robot:port", "[Pp]ort"),
        ("mqtt://robot", "mqtt:// is not one of redis, rediss"),
        ("redis://robot?keepalive=0.5", "keepalive=0.5: at least 1"),
        ("redis://robot?keepalive=nan", "keepalive=nan"),
        ("redis://robot?connect_timeout=0", "connect_timeout=0.0"),
        ("redis://robot?max_payload=0", "max_payload=0: at least 1"),
    ],
)
def test_a_wrong_url_is_refused_with_what_was_probably_meant(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ConnectionParameters.from_url(url)


# ---- defaults ----


def test_the_defaults_are_those_of_the_documentation() -> None:
    params = ConnectionParameters()
    assert (params.host, params.port, params.db) == ("localhost", 6379, 0)
    assert (params.unix_socket, params.credentials, params.ssl) == ("", ("", ""), False)
    assert (params.connect_timeout, params.keepalive, params.reconnect) == (10.0, 15.0, True)
    assert params.max_payload == MAX_PAYLOAD == 16 * 1024 * 1024
    assert params.offline_policy == Offline("buffer", 1000, 1_000_000, 5.0)
    assert TCPConnectionParameters is ConnectionParameters
    assert UnixSocketConnectionParameters().unix_socket == "/tmp/redis.sock"


def test_parameters_are_given_by_place_as_in_released_versions() -> None:
    params = ConnectionParameters("robot", 7000, 2, Credentials("me", "secret"))
    assert (params.host, params.port, params.db) == ("robot", 7000, 2)
    assert params.credentials == ("me", "secret")


@pytest.mark.parametrize("module", [redis, mqtt, amqp])
def test_a_misspelt_parameter_is_refused_with_what_was_probably_meant(module: Any) -> None:
    with pytest.raises(TypeError, match=r"have no 'pasword'; did you mean password\?"):
        module.ConnectionParameters(pasword="s3cret")
    params = module.ConnectionParameters("robot", password="s3cret")
    for other in (copy.copy(params), pickle.loads(pickle.dumps(params)), replace(params)):
        assert other == params


def test_parameters_of_a_programs_own_may_take_others() -> None:
    class OfSite(ConnectionParameters):
        def __init__(self, *, site: str, **given: Any) -> None:
            super().__init__(host=f"{site}.local", **given)

    @dataclass
    class Guarded(ConnectionParameters):
        secret: InitVar[str] = ""

        def __post_init__(self, secret: str) -> None:
            super().__post_init__()

    assert OfSite(site="lab", port=1).host == "lab.local"
    assert Guarded(secret="s", port=1).port == 1


def test_credentials_win_over_user_name_and_password() -> None:
    params = ConnectionParameters(creds=Credentials("a", "b"), username="c", password="d")
    assert params.credentials == ("a", "b")
    assert ConnectionParameters(username="c", password="d").credentials == ("c", "d")


def test_the_offline_policy_may_be_given_by_its_name() -> None:
    assert BaseParameters(offline="raise").offline_policy == Offline("raise")
    own = Offline("buffer", max_messages=5)
    assert BaseParameters(offline=own).offline_policy is own


def test_an_unknown_offline_policy_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="buffer, wait, raise"):
        BaseParameters(offline="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="buffer, wait, raise"):
        Offline("drop")  # type: ignore[arg-type]


def test_tls_checks_certificate_and_host_name_unless_a_context_says_otherwise() -> None:
    context = ConnectionParameters(ssl=True).ssl_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert ConnectionParameters(ssl=own).ssl_context() is own
    assert ConnectionParameters().ssl_context() is None


# ---- identity, and what is shown ----


SECRET = "correct horse"


@pytest.mark.parametrize(
    "params",
    [
        ConnectionParameters(password=SECRET),
        ConnectionParameters(username="me", password=SECRET, ssl=True),
        ConnectionParameters(creds=Credentials("me", SECRET)),
        ConnectionParameters(unix_socket="/run/redis.sock", password=SECRET),
        ConnectionParameters.from_url("redis://me:correct%20horse@robot"),
    ],
)
def test_a_password_is_never_shown(params: ConnectionParameters) -> None:
    for text in (repr(params), str(params), f"{params}", repr(params.creds)):
        assert SECRET not in text
    assert params.credentials[1] == SECRET


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (ConnectionParameters("robot", 7000, 1), "redis://robot:7000/1"),
        (ConnectionParameters("robot", ssl=True), "rediss://robot:6379/0"),
        (ConnectionParameters(unix_socket="/run/r.sock"), "redis+unix:///run/r.sock?db=0"),
        (memory.ConnectionParameters("lab"), "memory://lab"),
    ],
)
def test_parameters_are_shown_as_the_url_they_can_be_read_from(
    params: BaseParameters, text: str
) -> None:
    assert str(params) == text
    assert type(params).from_url(text) == params


def test_equal_parameters_are_equal_and_others_are_not() -> None:
    params = ConnectionParameters("robot", password="a")
    assert params == ConnectionParameters("robot", password="a")
    assert params != ConnectionParameters("robot", password="b")
    assert params != ConnectionParameters("robot2", password="a")
    assert params != memory.ConnectionParameters("robot")
    assert params == copy.deepcopy(params) == pickle.loads(pickle.dumps(params))
    assert replace(params, port=1).port == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"host": ""}, "host='': it is the name"),
        ({"host": 5}, "host=5: it is the name"),
        ({"host": "redis://:secret@robot"}, "host: the name or address of a machine alone"),
        ({"host": "127.0.0.1:6379"}, "the port is port=,"),
        ({"port": "6379"}, "port='6379': it is a number"),
        ({"port": -1}, "port=-1: it is a number from 1"),
        ({"username": 5}, "user name and password are text"),
        ({"ssl": "/etc/ca.pem"}, "ssl='/etc/ca.pem': .*cafile="),
        ({"keepalive": "5"}, "keepalive='5': at least 1"),
        ({"connect_timeout": None}, "connect_timeout=None: at least"),
        ({"reconnect": "no"}, "reconnect='no': it is True or False"),
        ({"fallbacks": 5}, "fallbacks=5: it is a list"),
        ({"fallbacks": [("two", 1)]}, "'host' or 'host:port'"),
    ],
)
def test_what_is_of_a_wrong_type_is_refused_with_its_name(
    options: dict[str, Any], text: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        ConnectionParameters(**options)


# ---- transports ----


def test_parameters_make_a_new_transport_each_time() -> None:
    params = memory.ConnectionParameters("lab")
    assert params.make_transport() is not params.make_transport()


def test_a_missing_driver_is_told_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hiredis", None)
    with pytest.raises(MissingDriver, match=r'pip install "commlib-py\[redis\]"'):
        redis.ConnectionParameters().make_transport()


def test_the_parameters_that_all_share_make_no_transport() -> None:
    with pytest.raises(NotImplementedError):
        BaseParameters().make_transport()


# ---- suggestions ----


def test_the_nearest_word_is_suggested_else_all_of_them() -> None:
    assert nearest("reddis", ["redis", "memory"]) == "did you mean redis?"
    assert nearest("xyz", ["redis", "memory"]) == "it has redis, memory"
