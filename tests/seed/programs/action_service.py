"""Section Actions, service side: a goal that counts, tells of each step, and can be cancelled."""

import sys
import time

from commlib.action import GoalStatus  # noqa: F401 - as in the README
from commlib.msg import ActionMessage, DataClass
from commlib.transports.redis import ActionService, ConnectionParameters


class ExampleAction(ActionMessage):
    @DataClass
    class Goal(ActionMessage.Goal):
        target_cm: int = 0

    @DataClass
    class Result(ActionMessage.Result):
        dest_cm: int = 0

    @DataClass
    class Feedback(ActionMessage.Feedback):
        current_cm: int = 0


def on_goal(goal_h):
    c = 0
    res = ExampleAction.Result()
    while c < goal_h.data.target_cm:
        if goal_h.cancel_event.is_set():
            break
        goal_h.send_feedback(ExampleAction.Feedback(current_cm=c))
        c += 1
        time.sleep(0.01)
    res.dest_cm = c
    return res


if __name__ == "__main__":
    port, action_uri = sys.argv[1:]
    conn_params = ConnectionParameters(port=int(port))
    action = ActionService(
        msg_type=ExampleAction, conn_params=conn_params, action_uri=action_uri, on_goal=on_goal
    )
    action.run()
    print("running", flush=True)
    while True:
        time.sleep(0.001)
