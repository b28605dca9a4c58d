"""What the tests of the command share."""

from __future__ import annotations

import pytest

from brokers import Broker


@pytest.fixture
def url() -> str:
    """A broker in this process that no other test has."""
    return Broker.named("memory", lambda name: None).url
