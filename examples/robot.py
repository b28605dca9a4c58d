"""A whole robot: sensors, a service to steer it, an action to drive that can be taken over, events,
and a bridge to a second broker from which it is watched.

Usage: python examples/robot.py

The pilot runs in the same process here; as a rule it is a program on another machine.
"""

import asyncio
import sys
from queue import SimpleQueue
from typing import Any

from commlib.action import AsyncGoalHandler, GoalStatus
from commlib.bridges import PTopicBridge
from commlib.events import Event
from commlib.msg import HeartbeatMessage
from commlib.node import Node
from commlib.timer import Timer
from messages import Drive, Sonar

STATION = "memory://station"  # the second broker


class Robot(Node):
    """Drives, looks ahead, and says what happens to it."""

    def __init__(self) -> None:
        super().__init__("rover-1", heartbeat_interval=0.2, remote_logger=True, ctrl_services=True)
        self.speed = 1.0
        self.position = 0.0
        self.sonar = self.create_publisher("rover.sonar", msg_type=Sonar)
        self.events = self.create_event_emitter()
        self.create_rpc("rover.speed", self.set_speed)
        # A new goal takes the robot over from the one before.
        self.create_action("rover.drive", Drive, self.drive, preempt=True)
        self.scan = Timer(0.05, lambda event: self.sonar.publish(Sonar(distance=9 - self.position)))

    def set_speed(self, request: dict[str, Any]) -> dict[str, Any]:
        self.speed = float(request["speed"])
        return {"speed": self.speed}

    async def drive(self, goal: AsyncGoalHandler[Any, Any, Any]) -> Drive.Result:
        start = self.position
        try:
            while self.position - start < goal.data.metres:
                await asyncio.sleep(0.02)
                self.position += self.speed
                await goal.send_feedback(Drive.Feedback(metres=self.position - start))
        except asyncio.CancelledError:
            self.log.warning("taken over at %g m", self.position)
        return Drive.Result(metres=self.position - start)


beats: SimpleQueue[HeartbeatMessage] = SimpleQueue()
scans: SimpleQueue[Sonar] = SimpleQueue()
arrivals: SimpleQueue[Event] = SimpleQueue()

robot = Robot()
pilot = Node("pilot")
pilot.create_subscriber("rover_1.heartbeat", beats.put, msg_type=HeartbeatMessage)
pilot.create_subscriber("rover.arrived", arrivals.put, msg_type=Event)
steer = pilot.create_rpc_client("rover.speed")
drive = pilot.create_action_client("rover.drive", Drive)
station = Node("station", connection_params=STATION)
station.create_subscriber("fleet.rover.sonar", scans.put, msg_type=Sonar)

with pilot, station:
    if not pilot.connected:
        sys.exit("no broker; start one with: commlib broker")
    with PTopicBridge(None, "rover.*", "fleet", None, STATION), robot, robot.scan:
        print("it lives:", beats.get(timeout=5).ts > 0, flush=True)
        print("it looks ahead, seen at the station:", scans.get(timeout=5).distance, "m")
        print("speed:", steer.call({"speed": 0.5}, timeout=5)["speed"])

        far = drive.send_goal(Drive.Goal(metres=1000.0))
        next(iter(far.feedback))
        near = drive.send_goal(Drive.Goal(metres=2.0))  # takes over
        far.result(timeout=5)
        print("the far goal:", GoalStatus(far.status).name)
        print("the near goal:", near.result(timeout=5).metres, "m")

        robot.events.send_event(
            Event(name="Arrived", uri="rover.arrived", payload={"by": "rover-1"})
        )
        print("event:", arrivals.get(timeout=5).payload)
