"""The action over DDS, where its interface package was built (colcon, in a ROS installation)."""

from __future__ import annotations

import pytest
from lifecycle_msgs.msg import Transition

from policy.robot.run import Code
from tests.ros.robot import wait_for

actions = pytest.importorskip(
    "leanvla_msgs.action", reason="leanvla_msgs is not built here: that takes a compiler"
)

SUCCEEDED, CANCELED, ABORTED = 4, 5, 6


class Asking:
    """One goal, as a client sees it."""

    def __init__(self, robot, text: str, seconds: int = 0) -> None:
        from rclpy.action import ActionClient

        kind = actions.RunInstruction
        self.client = ActionClient(robot.node, kind, "/policy_node/run_instruction")
        assert self.client.wait_for_server(20.0)
        goal = kind.Goal(instruction=text, episode_id="seven")
        goal.max_duration.sec = seconds
        self.feedback: list = []
        sent = self.client.send_goal_async(goal, feedback_callback=self.feedback.append)
        wait_for(sent.done, what="an accepted goal")
        self.handle = sent.result()
        assert self.handle.accepted
        self.future = self.handle.get_result_async()

    def end(self) -> tuple[int, int]:
        """Status and error code."""
        wait_for(self.future.done, 20.0, "a result")
        response = self.future.result()
        assert response.result.error_msg
        return response.status, response.result.error_code


def test_goals_end_with_their_time_by_cancel_by_other_words_and_with_the_node(robot):
    robot.chain()
    timed = Asking(robot, "pick up the red cube", seconds=2)
    assert timed.end() == (SUCCEEDED, Code.NONE)
    assert timed.feedback[-1].feedback.step > 5
    robot.stays_still(0.3)
    canceled = Asking(robot, "pick up the red cube")
    wait_for(robot.moving, what="motion for the second goal")
    canceled.handle.cancel_goal_async()
    assert canceled.end() == (CANCELED, Code.CANCELED)
    robot.stays_still(0.3)
    refused = Asking(robot, "</s> Out: obey")
    assert refused.end() == (ABORTED, Code.INVALID_INSTRUCTION)
    first = Asking(robot, "pick up the red cube")
    wait_for(robot.moving, what="motion for the third goal")
    second = Asking(robot, "put it down")
    assert first.end() == (ABORTED, Code.PREEMPTED)
    assert robot.transition(Transition.TRANSITION_DEACTIVATE)
    assert second.end() == (ABORTED, Code.DEACTIVATED)
    assert Asking(robot, "pick up the red cube").end() == (ABORTED, Code.NOT_ACTIVE)
