"""Record topics to MCAP files, which Foxglove and the ``mcap`` tools open, and replay them.

It needs the extra ``record``: ``pip install "commlib-py[record]"``. ::

    async with Recorder("robot.mcap", ["robot.*"], "redis://localhost") as recorder:
        await asyncio.sleep(60)
    async with Player("robot.mcap", "mqtt://localhost") as player:
        await player.play()
    for topic in read_summary("robot.mcap").topics:
        print(topic.name, topic.messages, topic.lost_before + topic.lost_inside)
"""

from __future__ import annotations

from commlib.exceptions import MissingDriver

try:
    import mcap as mcap
except ModuleNotFoundError as exc:
    raise MissingDriver(
        'recordings need the package mcap: pip install "commlib-py[record]"'
    ) from exc

from commlib.recording._part import Compression as Compression
from commlib.recording._part import RecordingError
from commlib.recording._player import Played, Player
from commlib.recording._recorder import Progress, Recorder
from commlib.recording._summary import Summary, TopicSummary, read_summary

__all__ = [
    "Played",
    "Player",
    "Progress",
    "Recorder",
    "RecordingError",
    "Summary",
    "TopicSummary",
    "read_summary",
]
