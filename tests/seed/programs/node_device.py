"""Section Node class: a program subclasses it and gives all that the constructor takes."""

import sys

from commlib.events import Event
from commlib.node import Node, TransportType
from commlib.transports.redis import ConnectionParameters


class Device(Node):
    def __init__(self, name, conn_params, device_id):
        super().__init__(
            name,
            TransportType.REDIS,
            conn_params,
            remote_logger=True,
            remote_logger_uri=f"{name}.news",
            debug=True,
            device_id=device_id,
            heartbeat_uri=f"nodes.{name}.heartbeat",
            has_start_rpc=True,
            has_stop_rpc=True,
        )
        self.emitter = self.create_event_emitter()
        self.create_rpc(rpc_name=f"{self.namespace}.ops.ring", on_request=self.on_ring)

    def on_ring(self, msg):
        self.log.info("somebody rings")
        self.emitter.send_event(Event(name="Ring", uri=f"{self.namespace}.bell", payload=msg))
        return {"state": int(self.state)}


if __name__ == "__main__":
    port, name, device_id = sys.argv[1:]
    Device(name, ConnectionParameters(port=int(port)), device_id).run_forever()
