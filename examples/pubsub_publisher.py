"""Publishes what a sonar measures, ten times a second.

Usage: python examples/pubsub_publisher.py [TIMES]

Without TIMES it goes on until Ctrl-C.
"""

import sys
import time
from contextlib import suppress
from itertools import count, islice

from commlib.node import Node
from messages import Sonar

times = int(sys.argv[1]) if len(sys.argv) > 1 else None

with suppress(KeyboardInterrupt), Node("sonar") as node:
    publisher = node.create_publisher("robot.sonar.front", msg_type=Sonar)
    print("publishing on robot.sonar.front")
    for number in islice(count(), times):
        publisher.publish(Sonar(distance=2.0 + number / 10))
        time.sleep(0.1)
