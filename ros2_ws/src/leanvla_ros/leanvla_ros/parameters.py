"""The nodes' parameters as tables, readable without ROS, so that launch files can be checked."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policy.contract import ContractError

if TYPE_CHECKING:
    from rclpy.node import Node

Value = bool | int | float | str | list[str]


@dataclass(frozen=True)
class Parameter:
    """One parameter: default, meaning, range, and whether it may change at run time."""

    default: Value
    description: str
    low: float | None = None
    high: float | None = None
    changeable: bool = False


_CONTRACT = Parameter("tabletop", "Robot contract: a name in config/, or the path of a file.")
_CLOCK = Parameter(
    10.0, "With use_sim_time: how long to wait for /clock before giving up, s.", 0.0, 600.0
)

POLICY_NODE: dict[str, Parameter] = {
    "contract": _CONTRACT,
    "policy": Parameter("mini", "Policy: a packaged name, a checkpoint folder, module:callable."),
    "unnorm_key": Parameter("", "Data set that gives actions units; empty when there is one."),
    "method": Parameter(
        "dense", "Pruning method at work, of a rung of the ladder.", None, None, True
    ),
    "keep": Parameter(1.0, "Part of each view's tokens kept, of a rung.", 1e-6, 1.0, True),
    "ladder": Parameter(
        [""], "Rungs that method and keep may switch between while running, as METHOD:KEEP."
    ),
    "engine": Parameter(
        "auto",
        "What runs a checkpoint: `auto`, an engine where there is one (graphs without a package "
        "are exported at configure, once); `torch`; or a folder of `leanvla export`.",
    ),
    "device": Parameter("cpu", "Device of the policy."),
    "threads": Parameter(1, "Processor threads of the policy.", 1, 64),
    "autostart": Parameter(True, "Configure and activate at start; false waits to be told."),
    "guard_timeout_s": Parameter(
        30.0, "With autostart: how long to wait for the guard before giving up, s.", 0.0, 600.0
    ),
    "clock_timeout_s": _CLOCK,
    "record": Parameter(
        "",
        "Folder for recordings, a bag each time the node is activated; empty records nothing. "
        "May change while the node is not active.",
        None,
        None,
        True,
    ),
    "redact": Parameter("none", "Pictures in recordings: none (as they are), mosaic, drop."),
}
GUARD_NODE: dict[str, Parameter] = {"contract": _CONTRACT, "clock_timeout_s": _CLOCK}
SIM_NODE: dict[str, Parameter] = {
    "contract": _CONTRACT,
    "suite": Parameter("tabletop", "Suite that is simulated."),
    "seed": Parameter(0, "Seed of the first episode.", 0, 2**31 - 1),
    "episodes": Parameter(0, "Episodes before the node ends; 0 goes on for ever.", 0, 100_000),
    "max_steps": Parameter(0, "Control steps of an episode; 0 takes the suite's.", 0, 100_000),
    "speed": Parameter(1.0, "Simulated seconds per second, at most.", 0.05, 20.0),
    "lockstep": Parameter(
        True, "Time waits while the policy thinks; false goes on like a real robot's."
    ),
    "out": Parameter("", "File for the episodes' results, JSON; empty writes none."),
}
NODES = {"policy_node": POLICY_NODE, "guard_node": GUARD_NODE, "sim_node": SIM_NODE}


def declare(node: Node, table: dict[str, Parameter]) -> None:
    """Declare a table on a node: described, ranged, read-only where a change is unsafe."""
    for name, parameter in table.items():
        node.declare_parameter(name, parameter.default, _descriptor(parameter))


def value(node: Node, name: str) -> Any:
    """The present value of a parameter."""
    return node.get_parameter(name).value


def parameter_text(default: Value) -> str:
    """A default as one types it on a command line."""
    if isinstance(default, list):
        return "[" + ", ".join(f"'{item}'" for item in default) + "]"
    return str(default).lower() if isinstance(default, bool) else str(default)


def contract_path(name: str) -> Path:
    """The file of a contract's path, or of the name of one that this package brings along.

    Raises:
        ContractError: when there is no such contract; the message lists those that there are.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name)
    folder = Path(str(files("leanvla_ros"))) / "config"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ContractError(f"no contract {name!r}: give a file, or one of {known}")
    return path


def _descriptor(parameter: Parameter) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    out = ParameterDescriptor(description=parameter.description, read_only=not parameter.changeable)
    if parameter.low is not None and parameter.high is not None:
        low, high = parameter.low, parameter.high
        if isinstance(parameter.default, int):
            out.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
        else:
            out.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            ]
    return out
