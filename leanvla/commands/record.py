"""`leanvla record`: a running robot's topics into a bag that `leanvla replay` reads."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from leanvla.errors import CHECK_FAILED, EnvironmentFault, UsageError

SCHEMA = "leanvla.record/1"


@dataclass(frozen=True)
class Record:
    """Record a running robot: every topic that its contract names, both sides of the guard.

    Runs beside the nodes, in an environment with rclpy, and never commands. Ctrl-C ends the bag.
    The policy's own node, started with `record:=FOLDER`, writes its decisions too.

    Attributes:
        contract: the robot: a name (tabletop, franka, ur5e_servo, so101) or a contract file.
        out: folder in which the bag is made, named by robot and time.
        seconds: end after so long; without, at Ctrl-C.
        redact: pictures as they are, as a mosaic, or not at all.
        sim_time: take time from /clock.
        policy_node: full name of the policy's node, for its instruction and status.
        guard_node: full name of the guard's node.
    """

    contract: tyro.conf.Positional[str]
    out: Path = Path("runs/bags")
    seconds: float | None = None
    redact: Literal["none", "mosaic", "drop"] = "none"
    sim_time: bool = False
    policy_node: str = "/policy_node"
    guard_node: str = "/guard_node"


def run(config: Record) -> int:
    """Record, print what it came to as JSON; gives the exit code.

    Raises:
        UsageError: on a length that is none.
        EnvironmentFault: where there is no rclpy.
        ContractError: when there is no such contract.
    """
    if config.seconds is not None and not 0 < config.seconds < float("inf"):
        raise UsageError(f"--seconds {config.seconds:g}: give a length above zero")
    _need_ros()
    from leanvla_ros.record_node import Options, record

    done = record(
        Options(
            config.contract,
            str(config.out),
            config.redact,
            config.seconds,
            config.sim_time,
            config.policy_node,
            config.guard_node,
        )
    )
    document = {"schema": SCHEMA, "bag": str(done.bag), "state": done.state, "messages": done.heard}
    print(json.dumps(document, indent=2))
    print(done.message, file=sys.stderr)
    silent = [topic for topic, count in done.heard.items() if not count]
    if silent:
        print(f"nothing was heard on {', '.join(silent)}", file=sys.stderr)
    return 0 if done.state == "closed" and len(silent) < len(done.heard) else CHECK_FAILED


def _need_ros() -> None:
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault(
            f"rclpy cannot be imported ({error}): source your ROS 2 installation "
            "(`source /opt/ros/<distro>/setup.bash`) and run this with its Python, or run "
            "`scripts/ros_venv.sh` and then `.venv-ros/bin/python -m leanvla record ...`"
        ) from None
