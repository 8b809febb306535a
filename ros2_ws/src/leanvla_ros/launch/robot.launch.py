"""A policy and its guard on a robot.

ros2 launch leanvla_ros robot.launch.py contract:=franka policy:=/path/to/checkpoint
"""

from leanvla_ros.launching import arguments, node

from launch import LaunchDescription

POLICY = ("contract", "policy", "unnorm_key", "method", "keep", "ladder", "engine", "device")
POLICY += ("threads", "autostart", "guard_timeout_s", "clock_timeout_s", "record", "redact")
GUARD = ("contract", "clock_timeout_s")


def generate_launch_description() -> LaunchDescription:
    """The guard in a process of its own, and the policy."""
    return LaunchDescription(
        [*arguments(POLICY), node("guard_node", GUARD), node("policy_node", POLICY)]
    )
