"""The interface package, read by ROS's own parser and generated as far as the wheels go."""

from __future__ import annotations

from rosidl_adapter.parser import parse_action_file

from policy.robot.run import Code, Progress
from tests.launch.test_messages import PACKAGE


def test_the_action_is_read_as_it_is_meant():
    action = parse_action_file("leanvla_msgs", PACKAGE / "action/RunInstruction.action")
    assert [f"{f.type} {f.name}" for f in action.goal.fields] == [
        *("string instruction", "builtin_interfaces/Duration max_duration", "string episode_id")
    ]
    constants = {constant.name: constant.value for constant in action.result.constants}
    assert constants == {code.name: int(code) for code in Code}
    assert {constant.type for constant in action.result.constants} == {"uint16"}
    assert [f"{f.type} {f.name}" for f in action.result.fields] == [
        *("uint16 error_code", "string error_msg", "string termination_reason")
    ]
    assert [f.name for f in action.feedback.fields] == list(Progress._fields)
