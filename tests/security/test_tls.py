"""TLS: a broker whose certificate does not verify is told nothing, and a person is told why."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from brokers import Server
from collected import Collected, eventually
from commlib import _session
from commlib.exceptions import AuthError, CertificateError
from commlib.node import Node
from security.access import round_trip, the_warning
from security.front import CHUNK, Front
from security.kinds import SECURE, Kind

pytestmark = pytest.mark.parametrize("kind", SECURE, indirect=True)

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def pem(certificate: trustme.LeafCert) -> bytes:
    return certificate.private_key_and_cert_chain_pem.bytes()


def right(authority: trustme.CA) -> bytes:
    return pem(authority.issue_cert("127.0.0.1"))


def of_an_unknown_authority(authority: trustme.CA) -> bytes:
    return right(trustme.CA())


def signed_by_itself(authority: trustme.CA) -> bytes:
    own = trustme.CA()
    return own.private_key_pem.bytes() + own.cert_pem.bytes()


def for_another_host(authority: trustme.CA) -> bytes:
    return pem(authority.issue_cert("elsewhere.example", "127.0.0.2"))


def expired(authority: trustme.CA) -> bytes:
    dates = {"not_before": NOW - 2 * DAY, "not_after": NOW - DAY}
    return pem(authority.issue_cert("127.0.0.1", **dates))


def not_yet_valid(authority: trustme.CA) -> bytes:
    dates = {"not_before": NOW + DAY, "not_after": NOW + 2 * DAY}
    return pem(authority.issue_cert("127.0.0.1", **dates))


WRONG: dict[Callable[[trustme.CA], bytes], str] = {
    of_an_unknown_authority: "a CA of your own",
    signed_by_itself: "a CA of your own",
    for_another_host: "connect by a name that stands in it",
    expired: "expired.*is the clock of this machine right",
}


@pytest.fixture
def front(kind: Kind, folder: Path, request: pytest.FixtureRequest) -> Iterator[Front]:
    """Speaks TLS in front of the broker of this run."""
    server: Server = request.getfixturevalue(kind.plain)
    with Front(server.port, folder) as front:
        yield front


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that try again soon after a refusal."""
    monkeypatch.setattr(_session, "AUTH_PAUSE", 0.01)


# ---- the certificate of the broker ----


def test_a_certificate_that_verifies_lets_messages_through(
    kind: Kind, front: Front, authority: trustme.CA, context: ssl.SSLContext, topic: str
) -> None:
    front.show(right(authority))
    round_trip(kind.params(front.port, ssl=context), topic)
    assert front.told


@pytest.mark.parametrize("wrong", WRONG)
def test_one_that_does_not_is_told_nothing_and_a_person_is_told_why(
    kind: Kind,
    front: Front,
    authority: trustme.CA,
    context: ssl.SSLContext,
    wrong: Callable[[trustme.CA], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    front.show(wrong(authority))
    params = kind.params(front.port, ssl=context, username="robot", password="s3cret")
    node = Node("n", connection_params=params)
    node.create_subscriber("numbers", print)
    with pytest.raises(CertificateError, match=f"certificate verify failed.*{WRONG[wrong]}"):
        node.run()
    assert str(params) in the_warning(caplog).message
    publisher = node.create_publisher("numbers")
    with pytest.raises(AuthError):
        publisher.publish("a secret")
    node.stop()
    assert (front.handshakes, front.told) == (0, b"")
    assert the_warning(caplog), "there is still one"


@pytest.mark.parametrize("asked", ["url", "ssl=True"])
def test_without_a_word_it_is_the_authorities_of_the_system_that_are_trusted(
    kind: Kind,
    front: Front,
    authority: trustme.CA,
    folder: Path,
    topic: str,
    asked: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front.show(right(authority))
    by = {"url": kind.secure_url(front.port), "ssl=True": kind.params(front.port, ssl=True)}
    node = Node("n", connection_params=by[asked])
    with pytest.raises(CertificateError):
        node.run()
    node.stop()
    assert front.told == b""
    authority.cert_pem.write_to_path(folder / "system.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "system.pem"))  # as OpenSSL has it
    round_trip(by[asked], topic)


def test_one_that_is_mended_lets_the_node_in_by_and_by(
    kind: Kind, front: Front, authority: trustme.CA, context: ssl.SSLContext, hasty: None
) -> None:
    front.show(expired(authority))
    node = Node("n", connection_params=kind.params(front.port, ssl=context))
    with pytest.raises(CertificateError):
        node.run()
    node.run(wait=False)
    front.show(right(authority))
    eventually(lambda: node.connected)
    node.stop()


def test_one_that_is_not_valid_yet_is_waited_for_as_clocks_of_robots_begin_in_1970(
    kind: Kind,
    front: Front,
    authority: trustme.CA,
    context: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    front.show(not_yet_valid(authority))
    node = Node("n", connection_params=kind.params(front.port, ssl=context))
    node.run(wait=False)
    eventually(lambda: "is the clock of this machine right?" in caplog.text)
    assert not node.connected
    assert front.told == b""
    front.show(right(authority))
    eventually(lambda: node.connected)
    node.stop()


def test_versions_of_tls_that_are_broken_are_not_spoken(kind: Kind) -> None:
    context = kind.params(1, ssl=True).ssl_context()
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_where_tls_is_wanted_nothing_is_ever_said_without_it(
    kind: Kind, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    said = []
    with socket.create_server(("127.0.0.1", 0)) as broker:
        params = kind.params(broker.getsockname()[1], ssl=context, username="robot", password="pw")
        node = Node("n", connection_params=params)
        node.run(wait=False)
        for _ in range(2):
            client, _ = broker.accept()
            with client:
                said.append(client.recv(CHUNK))
                client.sendall(b"what is TLS?\r\n")
        eventually(lambda: "cannot be reached" in caplog.text)
        node.stop()
    # RFC 8446, section 5.1: a handshake.
    assert {words[:2] for words in said} == {b"\x16\x03"}


def test_who_speaks_none_where_it_is_wanted_is_told_so(
    kind: Kind, asking: Server, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node("n", connection_params=kind.params(asking.port))
    node.run(wait=False)
    eventually(lambda: "does it want TLS" in caplog.text)
    assert not node.connected
    node.stop()


# ---- the certificate of the client ----


def known(authority: trustme.CA, context: ssl.SSLContext) -> None:
    authority.issue_cert("robot.example.com").configure_cert(context)


def of_a_stranger(authority: trustme.CA, context: ssl.SSLContext) -> None:
    trustme.CA().issue_cert("robot.example.com").configure_cert(context)


def missing(authority: trustme.CA, context: ssl.SSLContext) -> None:
    """There is none."""


def test_a_certificate_of_the_client_opens_the_door(
    kind: Kind, asking: Server, authority: trustme.CA, context: ssl.SSLContext, topic: str
) -> None:
    known(authority, context)
    round_trip(kind.params(asking.port, ssl=context), topic)


@pytest.mark.parametrize("certificate", [of_a_stranger, missing])
def test_that_of_a_stranger_or_none_does_not_and_the_fix_is_told(
    kind: Kind,
    asking: Server,
    authority: trustme.CA,
    context: ssl.SSLContext,
    certificate: Callable[[trustme.CA, ssl.SSLContext], None],
) -> None:
    certificate(authority, context)
    node = Node("n", connection_params=kind.params(asking.port, ssl=context))
    with pytest.raises(CertificateError, match=r"wants a certificate of ours .* load_cert_chain"):
        node.run()
    assert not node.connected
    node.stop()


def test_tls_takes_a_burst_and_a_big_message(
    kind: Kind, asking: Server, authority: trustme.CA, context: ssl.SSLContext, topic: str
) -> None:
    known(authority, context)
    seen, big = Collected(), Collected()
    with Node("n", connection_params=kind.params(asking.port, ssl=context)) as node:
        node.create_subscriber(topic, seen)
        node.create_subscriber(f"{topic}.image", big, bytes)
        publisher = node.create_publisher(topic)
        for number in range(5000):
            publisher.publish(number)
        assert seen.wait(5000) == list(range(5000))
        image: Any = os.urandom(3_000_000)
        node.create_publisher(f"{topic}.image", bytes).publish(image)
        assert big.first == image
