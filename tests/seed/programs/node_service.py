"""Section Node: a service on a node, with parameters that are not those of its transport type."""

import sys

from commlib.msg import DataClass, RPCMessage
from commlib.node import Node, TransportType
from commlib.transports.redis import ConnectionParameters


class AddTwoIntMessage(RPCMessage):
    @DataClass
    class Request(RPCMessage.Request):
        a: int = 0
        b: int = 0

    @DataClass
    class Response(RPCMessage.Response):
        c: int = 0


def on_request(msg):
    print(f"On-Request: {msg}", flush=True)
    resp = AddTwoIntMessage.Response(c=msg.a + msg.b)
    return resp


if __name__ == "__main__":
    transport = TransportType.MQTT
    port, rpc_name = sys.argv[1:]
    conn_params = ConnectionParameters(port=int(port))

    node = Node(
        node_name="example-node",
        transport_type=transport,
        transport_connection_params=conn_params,
        debug=True,
    )
    rpc = node.create_rpc(msg_type=AddTwoIntMessage, rpc_name=rpc_name, on_request=on_request)
    node.run_forever()
