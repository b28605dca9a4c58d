"""A drive that moves to where it is told, tells how far it is, and stops when it is cancelled.

Usage: python examples/action_service.py

It serves until Ctrl-C or SIGTERM.
"""

from commlib.action import GoalHandler
from commlib.node import Node
from messages import Drive

STEP_SECONDS = 0.05


def drive(goal_h: GoalHandler[Drive.Goal, Drive.Result, Drive.Feedback]) -> Drive.Result:
    done = 0.0
    while done < goal_h.data.metres:
        # As a pause between two steps, which ends at once when the goal is cancelled.
        if goal_h.cancel_event.wait(STEP_SECONDS):
            break
        done += 1.0
        goal_h.send_feedback(Drive.Feedback(metres=done))
    return Drive.Result(metres=done)


node = Node("drive")
node.create_action("robot.drive", Drive, drive)
print("serving robot.drive", flush=True)
node.run_forever()
