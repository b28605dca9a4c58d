"""A thermostat: functions become ports of a node by decorators.

Usage: python examples/node_decorators.py [TIMES]

Without TIMES it goes on until Ctrl-C.
"""

import sys
import time
from contextlib import suppress
from itertools import count, islice
from typing import Any

from commlib.node import Node

times = int(sys.argv[1]) if len(sys.argv) > 1 else None

node = Node("thermostat")
heating = node.create_publisher("room.heating", msg_type=dict)
wanted = 20.0


@node.rpc("room.set_temperature")
def set_temperature(request: dict[str, Any]) -> dict[str, Any]:
    global wanted
    wanted = request["celsius"]
    return {"celsius": wanted}


@node.subscribe("room.temperature")
def on_temperature(msg: dict[str, Any]) -> None:
    heating.publish({"on": msg["celsius"] < wanted})


@node.subscribe("room.heating")
def on_heating(msg: dict[str, Any]) -> None:
    print(f"the heating is {'on' if msg['on'] else 'off'}", flush=True)


with suppress(KeyboardInterrupt), node:
    if not node.connected:
        sys.exit("no broker; start one with: commlib broker")
    # What follows would be programs of their own: somebody who feels cold, and a thermometer.
    client = node.create_rpc_client("room.set_temperature")
    print(f"set to {client.call({'celsius': 21.5})['celsius']} °C", flush=True)
    thermometer = node.create_publisher("room.temperature", msg_type=dict)
    for number in islice(count(), times):
        thermometer.publish({"celsius": 20.5 + number % 2 * 2})
        time.sleep(0.1)
