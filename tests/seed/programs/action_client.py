"""Section Actions, client side: a goal is sent, its feedback printed, its result waited for."""

import sys

from commlib.action import GoalStatus  # noqa: F401 - as in the README
from commlib.msg import ActionMessage, DataClass
from commlib.transports.redis import ActionClient, ConnectionParameters


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


def on_feedback(feedback):
    print(f"ActionClient <on-feedback> callback: {feedback}", flush=True)


def on_goal_reached(result):
    print(f"ActionClient <on-goal-reached> callback: {result}", flush=True)


if __name__ == "__main__":
    port, action_uri = sys.argv[1:]
    conn_params = ConnectionParameters(port=int(port))
    action_c = ActionClient(
        msg_type=ExampleAction,
        conn_params=conn_params,
        action_uri=action_uri,
        on_feedback=on_feedback,
        on_goal_reached=on_goal_reached,
    )
    goal_msg = ExampleAction.Goal(target_cm=5)
    action_c.send_goal(goal_msg)
    resp = action_c.get_result(wait=True)
    # Not to where the callbacks print: they may be told at the same time, in their own thread.
    print(resp, file=sys.stderr)
