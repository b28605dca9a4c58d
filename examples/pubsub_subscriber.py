"""Prints what the sonar of pubsub_publisher.py measures.

Usage: python examples/pubsub_subscriber.py [TIMES]

Without TIMES it goes on until Ctrl-C.
"""

import sys
from contextlib import suppress
from itertools import count
from threading import Event

from commlib.node import Node
from messages import Sonar

times = int(sys.argv[1]) if len(sys.argv) > 1 else None
numbers = count(1)
done = Event()


def on_sonar(msg: Sonar) -> None:
    print(f"obstacle at {msg.distance:.1f} m", flush=True)
    if next(numbers) == times:
        done.set()


with suppress(KeyboardInterrupt), Node("watcher") as node:
    node.create_subscriber("robot.sonar.front", on_sonar, msg_type=Sonar)
    print("waiting for robot.sonar.front", flush=True)
    done.wait()
