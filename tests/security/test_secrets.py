"""No password, and no piece of one, in an error, a log, a ``repr`` or a reason."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brokers import Server
from collected import Collected
from commlib import aio
from commlib._params import Credentials, NetworkParameters
from commlib._session import Session
from commlib.exceptions import AuthError, ConnectError
from commlib.node import Node
from commlib.transports import MODULES, amqp, mqtt, redis, resolve
from security.access import round_trip, the_warning
from security.kinds import PASSWORD, ROBOT, WORDS, Kind

SCHEMES = [scheme for scheme in MODULES if scheme != "memory"]
PARAMETERS = [m.ConnectionParameters for m in (redis, mqtt, amqp)]

# What a URL splits at, what it strips, and what is refused in a host name or by its normal form.
SPECIAL = "/@:?#%&;=+,[]{}()<>|\\^~`'\"!$*. \t\n\u2100\uff03é\u0661\udc80"
passwords = st.lists(st.text(SPECIAL, min_size=1, max_size=3), min_size=2, max_size=3).map(
    lambda between: "".join(map("".join, zip(WORDS, [*between, ""], strict=False)))
)
places = st.sampled_from(["host", "host:7000", "host/0", "host?keepalive=5", "", "[::1]", "/run/s"])


def hides(*texts: str) -> None:
    """Nothing of the password is in any of them, in whatever case."""
    for text in texts:
        for word in WORDS:
            assert word.lower() not in text.lower(), text


def shown(exc: BaseException) -> str:
    """All that an error shows when nobody catches it."""
    return "".join(traceback.format_exception(exc)) + repr(exc)


def of_params(params: Any) -> list[str]:
    texts = [repr(params), str(params), params.address, repr(params.creds)]
    return texts + [f"{place!r}{place}" for place in params.each_place()]


@pytest.mark.parametrize("scheme", SCHEMES)
@given(passwords, places, st.sampled_from(["", "me", "m:e"]))
@example("Zq7x/31337@Kw9v", "host", "me")
@example("31337/Zq7x", "host", "")
@example("31337?Zq7x=Kw9v", "host", "me")
@example("31337#Zq7x", "host", "")
@example("Zq7x[31337]Kw9v", "host", "me")
@example("Zq7x\u210031337", "host", "me")
def test_a_password_that_is_not_encoded_is_understood_or_refused_and_never_shown(
    scheme: str, password: str, place: str, user: str
) -> None:
    url = f"{scheme}://{user}:{password}@{place}"
    try:
        params = resolve(url)
    except ValueError as exc:
        hides(shown(exc))
    else:
        hides(*of_params(params))


@pytest.mark.parametrize("scheme", SCHEMES)
@given(passwords.filter(lambda password: "\udc80" not in password), places)
def test_one_that_is_encoded_is_understood_and_never_shown(
    scheme: str, password: str, place: str
) -> None:
    url = f"{scheme}://me:{quote(password, safe='')}@{place}"
    try:
        params = resolve(url)
    except ValueError as exc:  # the place is none for this broker
        hides(shown(exc))
    else:
        assert isinstance(params, NetworkParameters)
        assert params.credentials == ("me", password)
        hides(*of_params(params), repr(aio.Node("n", params)))


@pytest.mark.parametrize("scheme", SCHEMES)
@given(passwords, st.booleans(), st.sampled_from(["", "&keepalive=never", "&pasword=1"]))
def test_nor_is_one_that_stands_among_the_options(
    scheme: str, password: str, encoded: bool, more: str
) -> None:
    written = quote(password.encode("utf8", "replace"), safe="") if encoded else password
    try:
        params = resolve(f"{scheme}://host?password={written}{more}")
    except ValueError as exc:
        hides(shown(exc))
    else:
        hides(*of_params(params))


@pytest.mark.parametrize("parameters", PARAMETERS)
@given(passwords)
def test_parameters_from_python_take_any_text_and_never_show_it(
    parameters: type[Any], password: str
) -> None:
    for given_as in ({"creds": Credentials("me", password)}, {"password": password}):
        try:
            params = parameters(username="me", **given_as)
        except ValueError as exc:  # a surrogate, which UTF-8 has no room for
            assert "\udc80" in password
            hides(shown(exc))
        else:
            hides(*of_params(params))


@pytest.mark.parametrize(
    "wrong",
    [
        "me:{}@redis://host",
        "redis//:{}@host",
        "redis:/me:{}@host",
        {"host": "robot", "password": "{}"},
        b"redis://me:{}@host",
        [b"redis://me:{}@host"],
    ],
)
def test_what_is_no_url_is_not_repeated_either(wrong: Any) -> None:
    word = WORDS[0]
    texts: dict[type, Callable[[Any], Any]] = {
        str: lambda text: text.format(word),
        dict: lambda tree: {**tree, "password": word},
        bytes: lambda raw: raw.replace(b"{}", word.encode()),
        list: lambda items: [item.replace(b"{}", word.encode()) for item in items],
    }
    with pytest.raises((TypeError, ValueError)) as caught:
        resolve(texts[type(wrong)](wrong))
    hides(shown(caught.value))


async def test_a_password_that_is_set_later_and_cannot_be_sent_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    params = redis.ConnectionParameters(reconnect=False)
    params.password = f"{WORDS[0]}\udc80{WORDS[2]}"

    async def dial() -> Any:
        params.password.encode()

    session = Session("redis", params, dial, lambda link, reason: None)
    with pytest.raises(ConnectError, match="UnicodeEncodeError") as caught:
        await session.ready()
    await session.close()
    hides(shown(caught.value), caplog.text)


# ---- real brokers ----


@contextmanager
def refused(params: Any) -> Iterator[tuple[Node, Collected, AuthError]]:
    """A node with endpoints of each sort that was not let in, what it was told, and the error."""
    told = Collected()
    node = Node("n", connection_params=params, on_state=told, remote_logger=True)
    node.create_subscriber("numbers", print)
    node.create_rpc("double", print)
    node.create_action("drive", on_goal=print)
    with pytest.raises(AuthError) as caught:
        node.run()
    yield node, told, caught.value
    node.stop()


@pytest.mark.parametrize(
    "login",
    [
        pytest.param((ROBOT, f"{PASSWORD}!"), id="wrong-password"),
        pytest.param(("nobody", PASSWORD), id="wrong-user"),
        pytest.param((ROBOT, ""), id="no-password"),
    ],
)
def test_a_login_that_is_refused_raises_at_once_is_logged_once_and_tells_no_secret(
    kind: Kind, guarded: Server, login: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    user, password = login
    params = kind.params(guarded.port, username=user, password=password)
    with refused(params) as (node, told, error):
        assert repr(user) in str(error), "who was refused is no secret, and may be a mistake"
        the_warning(caplog)
        late = node.create_publisher("numbers")
        with pytest.raises(AuthError) as again:
            late.publish({"n": 1})
        client = node.create_rpc_client("double")
        with pytest.raises(AuthError) as calling:
            client.call({"n": 1}, timeout=5)
        errors = [shown(exc) for exc in (error, again.value, calling.value)]
        hides(*errors, repr(node), str(node), repr(late), repr(client), repr(told.items))
    hides(caplog.text)
    assert the_warning(caplog).exc_info is None


def test_nor_is_it_logged_more_than_once_by_those_that_nobody_waits_for(
    kind: Kind, guarded: Server, caplog: pytest.LogCaptureFixture
) -> None:
    params = kind.params(guarded.port, username=ROBOT, password="wrong")
    node = Node("n", connection_params=params)
    node.create_subscriber("numbers", print)
    node.create_rpc("double", print)
    node.run(wait=False)
    with pytest.raises(AuthError):
        node.create_rpc_client("double").call({}, timeout=5)
    node.stop()
    assert the_warning(caplog).name == "commlib.session"


def test_what_is_right_opens_the_door_however_it_is_given_and_is_not_told_either(
    kind: Kind, guarded: Server, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = "&".join(f"{name}={value}" for name, value in kind.options.items())
    round_trip(f"{guarded.url_as(ROBOT, PASSWORD).partition('?')[0]}?{options}", topic)
    creds = Credentials(ROBOT, PASSWORD)
    round_trip(kind.params(guarded.port, creds=creds), topic)
    round_trip(kind.params(guarded.port, username=ROBOT, password=PASSWORD), topic)
    hides(caplog.text)
