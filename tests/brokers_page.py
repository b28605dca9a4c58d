"""The tables of docs/brokers.md, made of the traits and of a run of tests/conformance."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from commlib.transports import resolve
from commlib.transports.base import Traits

PAGE = Path(__file__).parent.parent / "docs" / "brokers.md"
WRITE = "BROKERS_PAGE"
"""With this in the environment the page is written instead of being compared."""

# The brokers of the suite, each with a URL that its traits are told by.
BROKERS = {
    "memory": ("memory", "memory://"),
    "redis": ("Redis", "redis://"),
    "valkey": ("Valkey", "valkey://"),
    "mqtt": ("Mosquitto, MQTT 5", "mqtt://"),
    "mqtt311": ("Mosquitto, 3.1.1", "mqtt://?protocol=MQTTv311"),
    "nats": ("NATS, 3.1.1", "mqtt://?protocol=MQTTv311"),
    "amqp": ("RabbitMQ", "amqp://"),
}
PATTERNS = {
    "test_pubsub": "PubSub",
    "test_patterns": "pattern subscriptions",
    "test_absence": "subscribers that are away",
    "test_forms": "serializers, compression, bare payloads",
    "test_delivery": "QoS, retained messages, overlapping patterns",
    "test_rpc": "RPC",
    "test_actions": "actions",
    "test_action_aio": "actions in asyncio",
    "test_action_peers": "actions with other peers",
    "test_events": "events",
    "test_groups": "many topics or services on one connection",
    "test_node": "nodes",
    "test_node_services": "heartbeats, control services, remote log",
    "test_discovery": "discovery",
    "test_bridges": "bridges",
    "test_aio": "all of it in asyncio",
    "test_errors": "errors, garbage",
    "test_robustness": "more garbage, and callbacks that hang or exit",
    "test_bounds": "bounds of rate, queue and time",
    "test_idempotent": "calls that are sent again",
    "test_signing": "signed messages",
}
SHOWN = "shown by a pattern"
"""The property of a report that tells the file, the brokers and the outcome of a test."""
Outcomes = dict[tuple[str, str], set[str]]
"""From the file and the broker: what came out, "passed", "failed", or why a test was skipped."""


def shown(file: str, parameters: Iterable[object], outcome: str) -> tuple[str, object]:
    """The property of a report for what came out of a test, or why it was skipped."""
    names = [
        name.removeprefix("second_")
        for parameter in parameters
        # A bridge has a pair of brokers, of which the second one may be another of its kind.
        for name in (parameter if isinstance(parameter, tuple) else (parameter,))
        if isinstance(name, str)
    ]
    return SHOWN, (file, [name for name in names if name in BROKERS], outcome)


class Record:
    """What a run of the conformance suite has shown; a plugin of pytest."""

    def __init__(self) -> None:
        self.outcomes: Outcomes = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The end of one test."""
        for name, value in report.user_properties:
            if name == SHOWN:
                file, brokers, outcome = value
                for broker in brokers:
                    self.outcomes[file, broker].add(outcome)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The run fails if the page is not what it has shown."""
        wrong = self.settle()
        if wrong:
            session.config.get_terminal_writer().line(f"\n{wrong}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def settle(self) -> str:
        """Write the page, or compare it; returns what is wrong with it, empty if nothing is."""
        if not self.is_whole:
            return ""  # a part of the suite, or a failure that is told elsewhere
        page = self.page()
        if os.environ.get(WRITE) == "write":
            PAGE.write_text(page)
        if PAGE.read_text() != page:
            again = f"{WRITE}=write make test"
            return f"docs/{PAGE.name} is not what this run has shown; write it: {again}"
        return ""

    @property
    def is_whole(self) -> bool:
        """Whether every pattern was tried on every broker, and nothing failed."""
        tried = {(file, broker) for file in PATTERNS for broker in BROKERS}
        return tried <= self.outcomes.keys() and not any(
            "failed" in outcomes for outcomes in self.outcomes.values()
        )

    def page(self) -> str:
        """The page as it should be."""
        text = PAGE.read_text()
        text = _between(text, "traits", traits_table())
        return _between(text, "conformance", self._table())

    def _table(self) -> str:
        notes: list[str] = []
        rows = [
            [label, *(self._cell(file, broker, notes) for broker in BROKERS)]
            for file, label in PATTERNS.items()
        ]
        lines = _table(["", *(label for label, _ in BROKERS.values())], rows)
        return "\n".join([*lines, *(f"\n{n}. Not tried: {text}." for n, text in _numbered(notes))])

    def _cell(self, file: str, broker: str, notes: list[str]) -> str:
        reasons = sorted(self.outcomes[file, broker] - {"passed"})
        for reason in reasons:
            if reason not in notes:
                notes.append(reason)
        numbers = ", ".join(str(notes.index(reason) + 1) for reason in reasons)
        return f"yes, but {numbers}" if numbers else "yes"


def traits_table() -> str:
    """What each broker can do, from its Traits."""
    traits = {name: resolve(url).make_transport().traits for name, (_, url) in BROKERS.items()}
    rows: list[list[str]] = [
        [text, *(tell(traits[name]) for name in BROKERS)] for text, tell in _TRAITS
    ]
    return "\n".join(_table(["", *(label for label, _ in BROKERS.values())], rows))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_TRAITS = [
    ("several services of one name share its requests", lambda t: _yes(t.competing)),
    ("a queue keeps what nobody consumes", lambda t: _yes(t.stores_unread)),
    ("QoS", lambda t: ", ".join(map(str, t.delivery_levels))),
    ("the last message is kept for those who come later (`retain`)", lambda t: _yes(t.retained)),
    ("headers beside the payload", lambda t: _headers(t)),
    ("wildcards of its own that pass through", lambda t: _code(t.native_wildcards)),
]


def _headers(traits: Traits) -> str:
    if traits.native_headers:
        return "always"
    return "beside bare payloads" if traits.header_beside_bare else "no"


def _code(characters: str) -> str:
    return " ".join(f"`{character}`" for character in characters) or "none"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _numbered(notes: list[str]) -> list[tuple[int, str]]:
    return list(enumerate(notes, 1))


def _between(text: str, name: str, table: str) -> str:
    marks = f"<!-- {name}: made by the tests -->\n", f"<!-- end of {name} -->"
    before, _, rest = text.partition(marks[0])
    _, end, behind = rest.partition(marks[1])
    assert end, f"{PAGE.name} has no marks for its table of {name}"
    return f"{before}{marks[0]}\n{table}\n\n{end}{behind}"
