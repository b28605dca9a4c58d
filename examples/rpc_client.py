"""Calls the service of rpc_service.py: one call after the other, then many at once.

Usage: python examples/rpc_client.py [TIMES]
"""

import sys
from contextlib import suppress

from commlib.exceptions import RPCError
from commlib.node import Node
from messages import AddTwoInts

times = int(sys.argv[1]) if len(sys.argv) > 1 else 10

with suppress(KeyboardInterrupt), Node("client") as node:
    if not node.connected:
        sys.exit("no broker; start one with: commlib broker")
    client = node.create_rpc_client("calculator.add_two_ints", msg_type=AddTwoInts)
    if not client.wait_for_service(timeout=10):
        sys.exit("nobody serves calculator.add_two_ints; start rpc_service.py")

    request = AddTwoInts.Request(a=1)
    try:
        for _ in range(times):
            print(f"{request.a} + {request.b} = {client.call(request, timeout=5).c}")
            request.b += 1

        requests = [AddTwoInts.Request(a=number, b=number) for number in range(100)]
        futures = [client.call_async(request, timeout=5) for request in requests]
        print(f"a hundred at once: {sum(future.result().c for future in futures)}")
    except RPCError as error:
        sys.exit(f"the call failed: {error}")
