"""A broker as a test of patterns sees it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from commlib.transports import resolve
from commlib.transports.base import Traits


@dataclass
class Broker:
    """Where a broker is and what it can do, not which it is."""

    url: str
    never_in_names: str = ""
    """Characters that this server takes in no name, beside those that its traits tell."""
    _suffix: str = field(default_factory=lambda: os.urandom(4).hex())

    @property
    def traits(self) -> Traits:
        """What it can do."""
        return resolve(self.url).make_transport().traits

    @classmethod
    def named(cls, name: str, servers: Callable[[str], Any]) -> Self:
        """The broker of this name: one in this process, or on the server of the fixture."""
        if "memory" in name:
            broker = cls("")
            broker.url = f"memory://{broker.unique(name)}"
            return broker
        server = servers(f"{name}_server")
        return cls(server.url, getattr(server, "never_in_names", ""))

    def takes(self, name: str) -> bool:
        """Whether a topic or a service may have this name."""
        traits = self.traits
        if len(name.encode()) > traits.longest_name:
            return False
        return not set(name) & {*self.never_in_names, *traits.never_in_names}

    def unique(self, word: str = "t") -> str:
        """A name, one word long, that no other test has."""
        return f"{word}_{self._suffix}"

    def with_options(self, **options: object) -> str:
        """The URL with options for the connection, such as ``max_payload=1000``."""
        words = "&".join(f"{name}={value}" for name, value in options.items())
        return f"{self.url}{'&' if '?' in self.url else '?'}{words}"
