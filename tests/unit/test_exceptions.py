"""The tree of errors as it is drawn, and the old names in it."""

from __future__ import annotations

import pickle
import re

import pytest

from commlib import exceptions
from commlib.exceptions import (
    AuthError,
    CommlibError,
    ConnectError,
    ConnectionLost,
    EndpointClosed,
    OutboxFull,
    PayloadTooBig,
    RPCClientError,
    RPCClientTimeoutError,
    RPCRemoteError,
    RPCTimeout,
    SerializationError,
)

OLD_NAMES = [
    "AMQPError",
    "MQTTError",
    "NodeError",
    "PublisherError",
    "RPCClientError",
    "RPCClientTimeoutError",
    "RPCRequestError",
    "RPCServerError",
    "RPCServiceError",
    "RedisError",
    "SerializationError",
    "SubscriberError",
]

LOST = ConnectionLost("it is away")
SENDING = [
    LOST,
    ConnectError("refused"),
    AuthError("no such user"),
    OutboxFull("no room"),
    SerializationError("no Sonar"),
    PayloadTooBig(20, 10),
    EndpointClosed("it was stopped"),
]
CALLING = [*SENDING, RPCTimeout("nobody answered"), RPCRemoteError("ValueError", "no such arm")]
BROKER = [LOST, ConnectError("refused"), AuthError("no such user")]


@pytest.mark.parametrize("name", OLD_NAMES)
def test_an_old_name_can_be_raised_with_a_text(name: str) -> None:
    error = getattr(exceptions, name)
    with pytest.raises(error, match=r"^no such arm$") as caught:
        raise error("no such arm")
    assert isinstance(caught.value, CommlibError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == "no such arm"


@pytest.mark.parametrize(
    ("name", "situations"),
    [
        ("PublisherError", SENDING),
        ("SubscriberError", [*BROKER, SerializationError("no Sonar")]),
        ("NodeError", [*BROKER, EndpointClosed("it was stopped")]),
        ("RPCClientError", CALLING),
        ("RPCClientTimeoutError", [RPCTimeout("nobody answered")]),
        ("RPCRequestError", [SerializationError("no Request"), PayloadTooBig(20, 10)]),
        ("RPCServerError", [*BROKER, EndpointClosed("it was stopped")]),
        ("RPCServiceError", [*BROKER, RPCRemoteError("ValueError", "no such arm")]),
        ("AMQPError", BROKER),
        ("MQTTError", BROKER),
        ("RedisError", BROKER),
    ],
)
def test_an_old_except_clause_catches_what_is_raised_in_its_situation(
    name: str, situations: list[CommlibError]
) -> None:
    for error in situations:
        with pytest.raises(getattr(exceptions, name)):
            raise error


def test_an_old_timeout_is_still_an_old_client_error() -> None:
    assert issubclass(RPCClientTimeoutError, RPCClientError)


def test_the_tree_is_drawn_as_it_is_and_names_the_old_names() -> None:
    drawing = exceptions.__doc__ or ""
    parents = ["CommlibError"]
    drawn = {"CommlibError"}
    for stem, name, builtin in re.findall(
        r"^    ([│ ]*)[├└]── (\w+)(?: \((\w+)\))?", drawing, re.MULTILINE
    ):
        depth = len(stem) // 4 + 1
        parents[depth:] = [name]
        error = getattr(exceptions, name)
        assert error.__bases__[0] is getattr(exceptions, parents[depth - 1])
        assert builtin in ("", error.__bases__[-1].__name__)
        drawn.add(name)
    classes = {value.__name__ for value in vars(exceptions).values() if isinstance(value, type)}
    assert drawn == classes
    for name in OLD_NAMES:
        assert f"``{name}``" in drawing
