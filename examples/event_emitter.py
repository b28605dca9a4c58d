"""A house tells what happens in it, each event at an address of its own; a lamp listens.

Usage: python examples/event_emitter.py [TIMES]

Without TIMES it goes on until Ctrl-C.
"""

import sys
import time
from contextlib import suppress
from itertools import count, islice

from commlib.events import Event
from commlib.node import Node

times = int(sys.argv[1]) if len(sys.argv) > 1 else None


def on_event(event: Event, topic: str) -> None:
    print(f"{topic}: {event.name} {event.payload}", flush=True)


with suppress(KeyboardInterrupt), Node("house") as node:
    node.create_psubscriber("bedroom.lights.*", on_event, msg_type=Event)
    emitter = node.create_event_emitter()
    on = Event(name="TurnOn", uri="bedroom.lights.on", payload={"brightness": 0})
    off = Event(name="TurnOff", uri="bedroom.lights.off")
    for number in islice(count(1), times):
        on.payload["brightness"] = 10 * number
        emitter.send_event(on)
        emitter.send_event(off)
        time.sleep(0.1)
