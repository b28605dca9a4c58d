"""What nodes do, over a broker that commlib has never heard of: python demo.py URL"""

import sys
from queue import SimpleQueue

from commlib.action import GoalHandler
from commlib.bridges import TopicBridge
from commlib.node import Node

if len(sys.argv) != 2:
    raise SystemExit("python demo.py URL, with the scheme of a transport that this folder has")
URL = sys.argv[1]
heard: SimpleQueue[object] = SimpleQueue()
bridged: SimpleQueue[object] = SimpleQueue()


def drive(goal: GoalHandler) -> dict[str, object]:
    goal.send_feedback({"metres": 1})
    return {"metres": goal.data["metres"]}


robot, station = Node("robot", connection_params=URL), Node("station", connection_params=URL)
station.create_subscriber("sensors.*", lambda msg, topic: heard.put((topic, msg)))
robot.create_rpc("double", lambda number: 2 * number)
robot.create_action("drive", on_goal=drive)

with robot, station, Node("far", connection_params="memory://far") as far:
    robot.create_publisher("sensors.sonar").publish({"distance": 1.5})
    print("heard:", heard.get(timeout=5))

    print("called:", station.create_rpc_client("double").call(21, timeout=5))

    goal = station.create_action_client("drive").send_goal({"metres": 2}, timeout=5)
    print("on the way:", next(iter(goal.feedback)), "arrived:", goal.result(timeout=5))

    far.create_subscriber("robot.sonar", bridged.put)
    with TopicBridge(None, "sensors.sonar", "robot.sonar", URL, "memory://far"):
        robot.create_publisher("sensors.sonar").publish({"distance": 2.0})
        print("bridged:", bridged.get(timeout=5))
