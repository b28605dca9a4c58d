"""What is said about certificates, told from the errors of OpenSSL."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from brokers import free_port
from commlib import _tls
from commlib._dial import connect
from security.certificates import files_for, trusting


def failed(reason: str, verify_code: int | None = None) -> ssl.SSLError:
    kind = ssl.SSLError if verify_code is None else ssl.SSLCertVerificationError
    error: Any = kind(1, f"[SSL: {reason}]")
    error.reason = reason
    if verify_code is not None:
        error.verify_code = verify_code
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("verify_code", "advice"),
    [
        (18, "a CA of your own"),  # self-signed
        (20, "a CA of your own"),  # no such issuer here
        (10, "clock of this machine right.*a new one"),
        (9, "clock of this machine right"),
        (62, "connect by a name that stands in it"),
        (64, "connect by a name that stands in it"),
    ],
)
def test_what_is_wrong_with_the_brokers_certificate_is_told_with_the_way_out(
    verify_code: int, advice: str
) -> None:
    error = failed("CERTIFICATE_VERIFY_FAILED", verify_code)
    assert re.search(advice, _tls.fault(error))
    assert _tls.heals(error) is (verify_code == 9)


@pytest.mark.parametrize(
    "reason",
    [
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_ACCESS_DENIED",
    ],
)
def test_that_the_broker_does_not_take_ours_is_told_as_well(reason: str) -> None:
    error = failed(reason)
    assert "a certificate of ours" in _tls.fault(error)
    assert not _tls.heals(error)


@pytest.mark.parametrize(
    "error",
    [
        failed("WRONG_VERSION_NUMBER"),
        failed("TLSV1_ALERT_INTERNAL_ERROR"),
        ConnectionResetError(),
        UnicodeDecodeError("utf8", b"", 0, 1, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_other_errors_say_nothing_about_certificates(error: Exception) -> None:
    assert _tls.fault(error) == ""
    assert not _tls.heals(error)


async def test_of_several_addresses_a_wrong_certificate_is_told_and_the_others_are_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It says more than that another one is away."""
    _, cert, key = files_for(trustme.CA(), tmp_path, "robot.test")
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(cert, key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=shown)
    there = socket.getaddrinfo("127.0.0.1", server.sockets[0].getsockname()[1], proto=6)
    away = socket.getaddrinfo("127.0.0.1", free_port(), proto=6)
    tried = trusting(trustme.CA())
    async with server:
        for addresses in (there + away, away + there):
            monkeypatch.setattr(socket, "getaddrinfo", lambda *a, found=addresses, **o: found)
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(asyncio.Protocol, "robot.test", 1, tried, 10)
