"""A recorded bag instead of a robot: the policy answers, the guard judges, nothing moves.

ros2 launch leanvla_ros replay.launch.py bag:=/path/to/bag contract:=franka policy:=/path
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration
from leanvla_ros.launching import arguments, node

from launch import LaunchDescription

POLICY = ("contract", "policy", "unnorm_key", "method", "keep", "ladder", "engine", "device")
POLICY += ("threads", "autostart", "guard_timeout_s", "clock_timeout_s", "record", "redact")
GUARD = ("contract", "clock_timeout_s")


def generate_launch_description() -> LaunchDescription:
    """The bag gives time and sensors; recorded commands stay in the bag."""
    rate, bag = LaunchConfiguration("rate"), LaunchConfiguration("bag")
    topics = LaunchConfiguration("topics_regex")
    play = ExecuteProcess(
        cmd=["ros2", "bag", "play", bag, "--clock", "--rate", rate, "--regex", topics],
        output="screen",
    )
    return LaunchDescription(
        [
            *arguments(POLICY, use_sim_time="true", clock_timeout_s="60.0"),
            DeclareLaunchArgument("bag", description="Folder of the bag."),
            DeclareLaunchArgument("rate", default_value="1.0", description="Speed of the replay."),
            DeclareLaunchArgument(
                "topics_regex",
                default_value="^(?!.*(leanvla|cmds|trajectory)).*$",
                description="Topics to play: by default everything but commands.",
            ),
            node("guard_node", GUARD),
            node("policy_node", POLICY),
            play,
        ]
    )
