"""Adds two numbers for whoever asks, until Ctrl-C or SIGTERM.

Usage: python examples/rpc_service.py

Start several of them: they share the work.
"""

from commlib.node import Node
from messages import AddTwoInts


def add_two_ints(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return AddTwoInts.Response(c=request.a + request.b)


node = Node("calculator")
node.create_rpc("calculator.add_two_ints", add_two_ints, msg_type=AddTwoInts)
print("serving calculator.add_two_ints", flush=True)
node.run_forever()
