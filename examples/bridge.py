"""What a robot publishes on its own broker is seen on another one, and its service called there.

Usage: python examples/bridge.py

The other broker is one in this process; as a real one it would be another URL.
"""

import sys
from queue import SimpleQueue

from commlib.bridges import PTopicBridge, RPCBridge
from commlib.node import Node
from messages import AddTwoInts, Sonar

CLOUD = "memory://cloud"

seen: SimpleQueue[tuple[str, Sonar]] = SimpleQueue()


def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return AddTwoInts.Response(c=request.a + request.b)


robot = Node("robot")
sonar = robot.create_mpublisher(msg_type=Sonar)
robot.create_rpc("calculator.add", add, msg_type=AddTwoInts)

cloud = Node("cloud", connection_params=CLOUD)
cloud.create_psubscriber("fleet.*", lambda msg, topic: seen.put((topic, msg)), msg_type=Sonar)
client = cloud.create_rpc_client("fleet.robot1.add", msg_type=AddTwoInts)

with robot, cloud:
    if not robot.connected:
        sys.exit("no broker; start one with: commlib broker")
    with (
        PTopicBridge(None, "sensors.*", "fleet.robot1", None, CLOUD),
        RPCBridge(None, "fleet.robot1.add", "calculator.add", CLOUD, None),
    ):
        for place in ("front", "rear"):
            sonar.publish(Sonar(distance=1.5), f"sensors.sonar.{place}")
            topic, msg = seen.get(timeout=5)
            print(f"{topic}: {msg.distance} m", flush=True)
        print("1 + 2 =", client.call(AddTwoInts.Request(a=1, b=2), timeout=5).c)
