"""What the launch files share: arguments as every ROS user types them, and nodes that take them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from leanvla_ros.parameters import NODES, parameter_text
from leanvla_ros.security import ENCLAVES

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_PARAMETERS = str(Path(__file__).with_name("no_parameters.yaml"))
_GENERAL = {
    "namespace": ("", "Namespace of all nodes."),
    "use_sim_time": ("false", "Take time from /clock."),
    "params_file": (
        NO_PARAMETERS,
        "Parameters of the nodes, YAML; what it says goes before the arguments.",
    ),
    "use_respawn": ("false", "Start a node again when it dies."),
    "log_level": ("info", "Log level of all nodes."),
}


def arguments(names: Iterable[str], **defaults: str) -> list[DeclareLaunchArgument]:
    """The general arguments, and one for each of the nodes' parameters in `names`."""
    known = dict(_GENERAL)
    for table in NODES.values():
        for name, parameter in table.items():
            known.setdefault(name, (parameter_text(parameter.default), parameter.description))
    return [
        DeclareLaunchArgument(
            name, default_value=defaults.get(name, known[name][0]), description=known[name][1]
        )
        for name in (*_GENERAL, *names)
    ]


def node(executable: str, names: Iterable[str], *, respawn: bool = True, **fixed: Any) -> Node:
    """One node that gets the arguments in `names` as parameters, and `fixed` ones as they are."""
    given: dict[str, Any] = {
        name: ParameterValue(LaunchConfiguration(name), value_type=_kind(executable, name))
        for name in names
    }
    if executable != "sim_node":  # it makes the time itself
        given["use_sim_time"] = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    return Node(
        package="leanvla_ros",
        executable=executable,
        name=executable,
        namespace=LaunchConfiguration("namespace"),
        parameters=[given | fixed, LaunchConfiguration("params_file")],
        arguments=[
            *("--ros-args", "--log-level", LaunchConfiguration("log_level")),
            *("--enclave", f"{ENCLAVES}/{executable}"),  # means something with SROS 2 only
        ],
        respawn=LaunchConfiguration("use_respawn") if respawn else False,
        respawn_delay=2.0,
        output="screen",
    )


def _kind(executable: str, name: str) -> Any:
    default = NODES[executable][name].default
    return list[str] if isinstance(default, list) else type(default)
