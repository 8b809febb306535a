"""Stand-ins for `launch` and `launch_ros` that only write down what they are given.

Neither is on the package registries; where ROS is installed, the real ones are loaded as well.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "launch"
FILES = sorted(FOLDER.glob("*.launch.py"))


class Written:
    """Anything: its name and arguments."""

    def __init__(self, *args, **words) -> None:
        self.args, self.words = args, words


def _kind(name: str) -> type:
    return type(name, (Written,), {})


_NAMES = {
    "launch": ["LaunchDescription"],
    "launch.actions": [
        "DeclareLaunchArgument",
        "EmitEvent",
        "ExecuteProcess",
        "RegisterEventHandler",
    ],
    "launch.events": ["Shutdown"],
    "launch.event_handlers": ["OnProcessExit"],
    "launch.substitutions": ["LaunchConfiguration"],
    "launch_ros": [],
    "launch_ros.actions": ["Node"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
}


@contextmanager
def stubbed():
    """The stand-ins in place of the real modules, and gone again afterwards."""
    before = {n: m for n, m in sys.modules.items() if n.startswith(("launch", "leanvla_ros.laun"))}
    for name in before:
        del sys.modules[name]
    for name, kinds in _NAMES.items():
        module = ModuleType(name)
        for kind in kinds:
            setattr(module, kind, _kind(kind))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in [n for n in sys.modules if n.startswith(("launch", "leanvla_ros.laun"))]:
            del sys.modules[name]
        sys.modules.update(before)


def load(path: Path):
    """What a launch file generates."""
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0] + "_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()
