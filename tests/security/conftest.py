"""Who gets in, and who may do what, on every kind of broker. No test knows which one it is."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme

from brokers import Server
from security.certificates import files_for, trusting
from security.kinds import KINDS, Kind


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of broker in turn."""
    return KINDS[request.param]


@pytest.fixture
def topic() -> str:
    """A name of one word that no other test has."""
    return f"t{os.urandom(4).hex()}"


@pytest.fixture(scope="session")
def guarded(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A broker with users, of whom one may not do all."""
    kind.server.need()
    folder = tmp_path_factory.mktemp("rights")
    with closing(kind.server(**kind.rights(folder))) as server:
        yield server.start()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Whom the clients here trust, and brokers that ask for certificates."""
    return trustme.CA()


@pytest.fixture(scope="session")
def asking(
    kind: Kind, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A broker that speaks TLS for 127.0.0.1, and wants a certificate of the client as well."""
    kind.server.need()
    files = files_for(authority, tmp_path_factory.mktemp("tls"), "127.0.0.1")
    options: dict[str, Any] = {"certificates": files, "require_certificate": True}
    with closing(kind.server(**options)) as server:
        yield server.start()


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    """One that trusts the authority; a test may add to it."""
    return trusting(authority)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For files of the test."""
    return tmp_path
