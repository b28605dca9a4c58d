"""Send a goal and hear how it goes; send another one, and cancel it on the way.

Usage: python examples/action_client.py

It needs examples/action_service.py.
"""

import sys
from contextlib import suppress

from commlib.action import GoalStatus
from commlib.exceptions import RPCTimeout
from commlib.node import Node
from messages import Drive

with suppress(KeyboardInterrupt), Node("pilot") as node:
    if not node.connected:
        sys.exit("no broker; start one with: commlib broker")
    client = node.create_action_client("robot.drive", Drive)

    try:
        goal = client.send_goal(Drive.Goal(metres=3.0), timeout=10)
        for feedback in goal.feedback:
            print(f"at {feedback.metres:g} m", flush=True)
        print(f"arrived after {goal.result(timeout=5).metres:g} m")

        goal = client.send_goal(Drive.Goal(metres=1000.0), timeout=10)
        for feedback in goal.feedback:
            if feedback.metres == 2.0:
                goal.cancel()
        print(f"stopped at {goal.result(timeout=5).metres:g} m: {GoalStatus(goal.status).name}")
    except RPCTimeout:
        sys.exit("nobody serves robot.drive; start action_service.py")
