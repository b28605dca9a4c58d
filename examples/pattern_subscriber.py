"""Listens to all sensors of a robot by one pattern, and lets two of them speak.

Usage: python examples/pattern_subscriber.py [TIMES]

Without TIMES it goes on until Ctrl-C.
"""

import sys
import time
from contextlib import suppress
from itertools import count, islice

from commlib.node import Node
from messages import Sonar

times = int(sys.argv[1]) if len(sys.argv) > 1 else None


def on_sensor(msg: Sonar, topic: str) -> None:
    print(f"{topic}: {msg.distance:.1f} m", flush=True)


with suppress(KeyboardInterrupt), Node("robot") as node:
    node.create_psubscriber("robot.sensors.*", on_sensor, msg_type=Sonar)
    sensors = node.create_mpublisher(msg_type=Sonar)
    for number in islice(count(), times):
        sensors.publish(Sonar(distance=2.0 + number), "robot.sensors.sonar.front")
        sensors.publish(Sonar(distance=0.1), "robot.sensors.infrared")
        time.sleep(0.1)
