"""Section Req/Resp, client side: one request object, changed between the calls."""

import sys
import time

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


if __name__ == "__main__":
    port, rpc_name = sys.argv[1:]
    conn_params = ConnectionParameters(host="localhost", port=int(port))

    node = Node(
        node_name="myclient",
        transport_type=TransportType.REDIS,
        transport_connection_params=conn_params,
        debug=True,
    )
    rpc = node.create_rpc_client(msg_type=AddTwoIntMessage, rpc_name=rpc_name)
    node.run()

    msg = AddTwoIntMessage.Request()
    while True:
        resp = rpc.call(msg)
        print(resp, flush=True)
        msg.a += 1
        msg.b += 1
        time.sleep(0.01)
