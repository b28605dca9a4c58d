"""What is in a recording: per topic, how much of it, how often, and what is missing."""

from __future__ import annotations

from contextlib import suppress
from os import PathLike
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from commlib.exceptions import SerializationError
from commlib.recording._counts import Written
from commlib.recording._part import LOSSES, RECORDING, TOPICS
from commlib.recording._reading import Reading
from commlib.recording._records import from_record

if TYPE_CHECKING:
    from mcap.records import Channel

_read_written = msgspec.json.Decoder(Written).decode


class TopicSummary(Struct, kw_only=True):
    """One topic of a recording.

    ``kind`` is ``topic``, ``request`` or ``response``. ``bytes`` are those of the payloads on the
    wire. ``lost_before`` is what the senders' numbers say is missing, ``lost_inside`` what the
    recorder had no room for. ``unnumbered`` messages have no number: what was lost among them,
    nobody knows. ``schema`` is the JSON Schema in the file.
    """

    name: str
    kind: str = "topic"
    type: str = ""
    encoding: str = ""
    messages: int = 0
    bytes: int = 0
    rate: float = 0.0
    lost_before: int = 0
    lost_inside: int = 0
    duplicates: int = 0
    unnumbered: int = 0
    schema: dict[str, Any] | None = None

    @property
    def published(self) -> int:
        """How many its senders have published meanwhile, by all that is known."""
        return self.messages - self.duplicates + self.lost_before + self.lost_inside


class Summary(Struct, kw_only=True):
    """What is in a recording.

    ``start`` and ``end`` are ns since 1970, when the first and the last message came.
    ``complete`` is False for a file that was cut off; what was lost in its last second is not
    known then. ``faults`` says what is wrong with it, as far as that was read: of a complete file
    its end alone. ``recording`` says what was recorded, where, and by whom.
    """

    path: str
    size: int
    complete: bool
    start: int = 0
    end: int = 0
    messages: int = 0
    topics: list[TopicSummary] = []
    recording: dict[str, str] = {}
    faults: list[str] = []

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end - self.start) / 1e9


def read_summary(path: str | PathLike[str]) -> Summary:
    """What is in an MCAP file: from its end if that is there, else by reading all of it.

    Raises RecordingError.
    """
    reading = Reading(path)
    statistics = reading.summary()
    topics = {each.name: each for each in reading.metadata}.get(TOPICS)
    if statistics is None or topics is None:
        return _scanned(path)
    summary = _empty(reading)
    summary.start, summary.end = statistics.message_start_time, statistics.message_end_time
    for id, channel in reading.channels.items():
        found = _topic(summary, channel, reading)
        found.messages += statistics.channel_message_counts.get(id, 0)
    _add_losses(summary, topics.metadata, with_bytes=True)
    return _finished(summary)


def _scanned(path: str | PathLike[str]) -> Summary:
    reading = Reading(path)
    first: int | None = None
    last = 0
    counts: dict[int, Written] = {}
    for channel, message in reading.messages():
        first = message.log_time if first is None else min(first, message.log_time)
        last = max(last, message.log_time)
        count = counts.get(channel.id)
        if count is None:
            count = counts[channel.id] = Written()
        _count(count, message.data)
    summary = _empty(reading)
    summary.start, summary.end = first or 0, last
    for id, count in counts.items():
        found = _topic(summary, reading.channels[id], reading)
        found.messages += count.messages
        found.bytes += count.bytes
        found.unnumbered += count.unnumbered
    for metadata in reading.metadata:
        if metadata.name in (LOSSES, TOPICS):
            _add_losses(summary, metadata.metadata, with_bytes=False)
    return _finished(summary)


def _count(count: Written, data: bytes) -> None:
    """Count a message. One of another program has no number."""
    size, is_numbered = len(data), False
    with suppress(SerializationError):
        packet, mark = from_record(data, "")
        size, is_numbered = len(packet.payload), mark.is_numbered
    count.messages += 1
    count.bytes += size
    count.unnumbered += not is_numbered


def _empty(reading: Reading) -> Summary:
    about = next((each.metadata for each in reading.metadata if each.name == RECORDING), {})
    return Summary(
        path=str(reading.path),
        size=reading.path.stat().st_size,
        complete=reading.is_complete,
        recording=about,
        topics=[],
        faults=reading.faults,
    )


def _topic(summary: Summary, channel: Channel, reading: Reading) -> TopicSummary:
    """The topic of a channel: it may have several, for messages of several shapes."""
    for each in summary.topics:
        if each.name == channel.topic:
            return each
    schema = reading.schemas.get(channel.schema_id)
    found = TopicSummary(
        name=channel.topic,
        kind=channel.metadata.get("kind", "topic"),
        type=channel.metadata.get("type") or (schema.name if schema else ""),
        encoding=channel.message_encoding,
    )
    if schema is not None and schema.encoding == "jsonschema":
        try:
            found.schema = msgspec.json.decode(schema.data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            found.schema = None  # of another program, which has written something else there
    summary.topics.append(found)
    return found


def _add_losses(summary: Summary, told: dict[str, str], *, with_bytes: bool) -> None:
    by_name = {each.name: each for each in summary.topics}
    for name, text in told.items():
        try:
            written = _read_written(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # another program's
        found = by_name.get(name)
        if found is None:  # nothing of it has got in
            found = TopicSummary(name=name)
            summary.topics.append(found)
        found.lost_before, found.lost_inside = written.before, written.inside
        found.duplicates = written.duplicates
        found.unnumbered = max(found.unnumbered, written.unnumbered)
        if with_bytes:
            found.bytes = written.bytes


def _finished(summary: Summary) -> Summary:
    summary.topics.sort(key=lambda each: each.name)
    summary.messages = sum(each.messages for each in summary.topics)
    for each in summary.topics:
        # As many pauses as messages but one: of a single message nobody knows how often it comes.
        if each.messages > 1 and summary.duration > 0:
            each.rate = each.messages / summary.duration
    return summary
