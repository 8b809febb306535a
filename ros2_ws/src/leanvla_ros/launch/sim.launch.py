"""The tabletop simulator as a robot, with a policy and its guard: the whole chain on a laptop.

ros2 launch leanvla_ros sim.launch.py policy:=mini method:=vla_pruner keep:=0.25
"""

from launch.actions import EmitEvent, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from leanvla_ros.launching import arguments, node

from launch import LaunchDescription

POLICY = ("contract", "policy", "unnorm_key", "method", "keep", "ladder", "engine", "device")
POLICY += ("threads", "autostart", "guard_timeout_s", "clock_timeout_s", "record", "redact")
GUARD = ("contract", "clock_timeout_s")
SIM = ("contract", "suite", "seed", "episodes", "max_steps", "speed", "lockstep", "out")


def generate_launch_description() -> LaunchDescription:
    """Everything ends when the simulator has run its episodes."""
    sim = node("sim_node", SIM, respawn=False)
    done = OnProcessExit(target_action=sim, on_exit=[EmitEvent(event=Shutdown())])
    names = dict.fromkeys((*POLICY, *SIM))
    return LaunchDescription(
        [
            *arguments(names, use_sim_time="true", clock_timeout_s="60.0"),
            sim,
            node("guard_node", GUARD),
            node("policy_node", POLICY),
            RegisterEventHandler(done),
        ]
    )
