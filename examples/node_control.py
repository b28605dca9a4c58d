"""A robot as a class of its own, and a station that watches, stops and starts it from afar.

Usage: python examples/node_control.py [TIMES]

Without TIMES it goes on until Ctrl-C.
"""

import logging
import sys
import time
from contextlib import suppress
from itertools import count, islice
from queue import SimpleQueue
from typing import Any

from commlib.msg import HeartbeatMessage
from commlib.node import Node, NodeStartMessage, NodeStopMessage

times = int(sys.argv[1]) if len(sys.argv) > 1 else None


class Robot(Node):
    """Waves when it is asked to, and says so in its log."""

    def __init__(self) -> None:
        super().__init__("robot-1", remote_logger=True, ctrl_services=True, heartbeat_interval=0.1)
        self.log.setLevel(logging.INFO)
        self.create_rpc("robot.wave", self.wave)

    def wave(self, request: dict[str, Any]) -> dict[str, Any]:
        self.log.info("it waves")
        return {}


beats: SimpleQueue[HeartbeatMessage] = SimpleQueue()
lines: SimpleQueue[dict[str, str]] = SimpleQueue()

with suppress(KeyboardInterrupt), Node("station") as station:
    if not station.connected:
        sys.exit("no broker; start one with: commlib broker")
    station.create_subscriber("robot_1.heartbeat", beats.put, msg_type=HeartbeatMessage)
    station.create_subscriber("robot_1.logs", lines.put)
    stop = station.create_rpc_client("robot_1.stop", msg_type=NodeStopMessage)
    start = station.create_rpc_client("robot_1.start", msg_type=NodeStartMessage)
    wave = station.create_rpc_client("robot.wave")
    with Robot() as robot:
        for _ in islice(count(), times):
            beats.get(timeout=5)
            print("it lives", flush=True)
            wave.call({}, timeout=5)
            while not (line := lines.get(timeout=5)["msg"]).endswith("it waves"):
                pass  # it tells of its last stop, too
            print("it logs:", line.partition(" - ")[2], flush=True)
            stop.call(NodeStopMessage.Request(), timeout=5)
            print("it is", robot.state.name, flush=True)
            start.call(NodeStartMessage.Request(), timeout=5)
            print("it is", robot.state.name, flush=True)
            time.sleep(0.5)
