"""What a broker means when it closes something."""

from __future__ import annotations

import pytest

from commlib.exceptions import AuthError, ConnectError, ConnectionLost
from commlib.transports._amqp_codes import Refusal, loss, refusal, refused_argument
from commlib.transports._amqp_methods import Closing


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (403, AuthError),
        (530, AuthError),
        (404, Refusal),
        (405, Refusal),
        (406, Refusal),
        (541, Refusal),
        (0, Refusal),
    ],
)
def test_a_channel_is_closed_for_want_of_rights_or_for_something_else(
    code: int, kind: type[Exception]
) -> None:
    error = refusal("amqp://host", Closing(code, "WHY - because", b""))
    assert type(error) is kind
    if isinstance(error, Refusal):
        assert error.code == code
    assert str(error) == "amqp://host: the broker says: WHY - because"


@pytest.mark.parametrize("otherwise", [ConnectionLost, ConnectError])
@pytest.mark.parametrize("code", [320, 403, 501, 530, 541])
def test_a_connection_is_closed_for_want_of_rights_or_for_something_else(
    code: int, otherwise: type[ConnectionLost | ConnectError]
) -> None:
    error = loss("amqp://host", Closing(code, "", b""), otherwise)
    assert type(error) is (AuthError if code in (403, 530) else otherwise)
    assert str(error) == f"amqp://host: the broker says: reply code {code}"


@pytest.mark.parametrize(
    "text",
    [
        "NOT_ALLOWED - access to vhost '/' refused for user 'a': connection limit (1) is reached",
        "NOT_ALLOWED - connection refused for user 'a': user connection limit (1) is reached",
    ],
)
def test_a_limit_on_connections_is_no_missing_right(text: str) -> None:
    assert type(loss("amqp://host", Closing(530, text, b""), ConnectError)) is ConnectError


def test_the_argument_that_a_queue_has_in_another_way_is_told() -> None:
    text = (
        "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'robot-1:a:1' in vhost '/': "
        "received '2000' but current is '1000'"
    )
    assert refused_argument(refusal("amqp://host", Closing(406, text, b""))) == "x-expires"
    assert refused_argument(Refusal("something else", 406)) == ""
