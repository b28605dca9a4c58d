"""How `commlib topic echo` shows a message, in each of the forms that it can be asked for."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

import click

from commlib.cli._figures import counted
from commlib.cli._printing import say
from commlib.cli._shown import NoSuchField, inline, lines, pick, printable, record
from commlib.cli._watch import Heard

PAUSE = 1.0  # s between two reports of what is missing: in a flood they would be one


class Echo:
    """Prints messages, each at once, and tells on standard error what is missing between them.

    ``with_topic``: say on which topic each one came. ``field``: show nothing else of it. ``raw``:
    the bytes of payloads. ``as_json``: a line of JSON for each. ``full``: cut nothing.
    """

    def __init__(
        self, with_topic: bool, *, field: str | None, full: bool, raw: bool, as_json: bool
    ) -> None:
        self._with_topic = with_topic
        self._field = field
        self._full = full
        self._raw = raw
        self._as_json = as_json
        self._told: set[str] = set()
        self._missing = Missing()
        self.shown = 0
        """The messages of which something was shown."""

    def __call__(self, heard: Heard) -> None:
        topic = printable(heard.packet.topic)
        self._missing.note(topic, heard.lost, heard.dropped)
        if self._raw:
            _write(heard.packet.payload)
            self.shown += 1
        elif heard.error:
            _tell(f"{topic}: a message that cannot be read: {heard.error}")
        else:
            self._show(topic, heard)

    def _show(self, topic: str, heard: Heard) -> None:
        data = heard.data
        if self._field is not None:
            try:
                data = pick(data, self._field)
            except NoSuchField:
                self._tell_once(f"{topic}: messages without the field {self._field!r}")
                return
        self.shown += 1
        if self._as_json:
            click.echo(record(heard.packet.topic, heard.header, data))
        elif self._field is not None:
            label = f"{topic}: " if self._with_topic else ""
            click.echo(f"{label}{self._value(data)}")
        else:
            head = f"--- # {topic}" if self._with_topic else "---"
            click.echo("\n".join((head, *lines(data, self._full))))

    def _value(self, data: Any) -> str:
        """A field on one line, text without quotes."""
        if isinstance(data, str):
            return " ".join(lines(data, self._full))
        return inline(data, self._full)

    def close(self) -> None:
        """Tell what is yet to be told."""
        self._missing.tell()

    def _tell_once(self, text: str) -> None:
        if text not in self._told and len(self._told) < 100:
            self._told.add(text)
            _tell(text)


class Missing:
    """Tells of messages that are missing, at once, but not more often than once in ``PAUSE``.

    ``clock`` gives s.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._told_at = -PAUSE
        self._lost: Counter[str] = Counter()
        self._dropped = 0

    def note(self, topic: str, lost: int, dropped: int) -> None:
        """So many of a topic are missing before the message that has come."""
        if lost:
            self._lost[topic] += lost
        self._dropped += dropped
        if (self._lost or self._dropped) and self._clock() >= self._told_at + PAUSE:
            self.tell()

    def tell(self) -> None:
        """Tell what is yet to be told."""
        if self._dropped:
            count = counted(self._dropped, "message")
            _tell(f"{count} dropped here: they come faster than they are shown")
        for topic, lost in self._lost.items():
            _tell(f"{topic}: {counted(lost, 'message')} lost")
        self._lost.clear()
        self._dropped = 0
        self._told_at = self._clock()


def _tell(text: str) -> None:
    say(text, err=True)


def _write(payload: bytes) -> None:
    """As it is; a terminal gets lines, in which there is nothing that it obeys."""
    if sys.stdout.isatty():
        say(payload.decode(errors="backslashreplace"))
        return
    out = sys.stdout.buffer
    out.write(payload)
    out.flush()
