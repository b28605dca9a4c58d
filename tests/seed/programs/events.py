"""Section EventEmitter: an emitter without a node tells two events, each at its own address."""

import sys
import time

from commlib.events import Event
from commlib.transports.redis import ConnectionParameters, EventEmitter

if __name__ == "__main__":
    port, namespace = sys.argv[1:]
    conn_params = ConnectionParameters(port=int(port))

    emitter = EventEmitter(conn_params=conn_params, debug=True)

    eventA = Event(name="TurnOnBedroomLights", uri=f"{namespace}.bedroom.lights.on")
    eventB = Event(name="TurnOffBedroomLights", uri=f"{namespace}.bedroom.lights.off")

    emitter.send_event(eventA)
    time.sleep(0.1)
    emitter.send_event(eventB)
