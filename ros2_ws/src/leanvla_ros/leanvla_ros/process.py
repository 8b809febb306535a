"""One node in one process: signals, spinning, and a way out that always publishes safety first."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Protocol

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock as ClockMessage

from policy.robot.session import Now

RCLError = rclpy_implementation.RCLError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node

INTERRUPTED = 130
FAILED = 3
SWITCH_S = 0.0005  # the interpreter's own 5 ms would be a tenth of a period at every hand-over
GRACE_S = 3.0  # for threads that may be stuck in native code


class Leaving(Protocol):
    """A node that knows how to leave its robot."""

    exit_code: int | None

    def leave(self) -> None:
        """Publish the safe action once, and stop."""
        ...

    def destroy_node(self) -> None:
        """Leave the graph."""
        ...


class NoClockError(RuntimeError):
    """use_sim_time is set and nobody publishes /clock."""


def run(make: Callable[[], Leaving], args: Sequence[str] | None = None) -> int:
    """Spin the node that `make` gives until it is told to end; the exit code.

    SIGTERM ends with 0 and SIGINT with 130, after the safe action went out once; a second signal
    changes nothing. A node that sets `exit_code` ends by itself.
    """
    sys.setswitchinterval(SWITCH_S)
    try:
        heard = start(args)
        node = make()
    except RCLError as error:  # security that is asked for and cannot be had, for one
        sys.stderr.write(f"cannot start: {error}\n")
        return _end(FAILED)
    spin(node, heard)
    node.leave()
    time.sleep(0.1)  # lets the last message leave
    node.destroy_node()  # or the graph would remember its publishers for a while
    code = node.exit_code if node.exit_code is not None else 0
    return _end(INTERRUPTED if heard[:1] == [signal.SIGINT] else code)


def start(args: Sequence[str] | None = None) -> list[int]:
    """Begin with ROS; gives the list into which signals will be written, in their order."""
    heard: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: heard.append(got))
    rclpy.init(
        args=list(args) if args is not None else None,
        signal_handler_options=SignalHandlerOptions.NO,
    )
    return heard


def spin(node: Leaving, heard: list[int]) -> None:
    """Spin until a signal is heard, or the node has an exit code."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not heard and node.exit_code is None:
            executor.spin_once(timeout_sec=0.1)
    except (ExternalShutdownException, KeyboardInterrupt):
        heard.append(signal.SIGINT)


def _end(code: int) -> int:
    """Leave without waiting for threads that may hang in native code."""
    rclpy.try_shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def now(node: Node) -> Now:
    """The node's clock and monotonic time."""
    return Now(node.get_clock().now().nanoseconds * 1e-9, time.monotonic())


def steady_timer(node: Node, period_s: float, callback: Callable[[], None]) -> object:
    """A timer that goes on when simulated time stands still."""
    return node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))


def wait_for_clock(node: Node, timeout_s: float) -> None:
    """Wait until simulated time runs; returns at once where it is not used.

    A node of its own listens, because this one's executor may be the caller.

    Raises:
        NoClockError: when nothing is heard in time.
    """
    if not node.get_parameter("use_sim_time").value:
        return
    listener = rclpy.create_node(f"{node.get_name()}_clock_probe", use_global_arguments=False)
    executor = SingleThreadedExecutor()
    heard: list[ClockMessage] = []
    listener.create_subscription(ClockMessage, "/clock", heard.append, 1)
    executor.add_node(listener)
    deadline = time.monotonic() + timeout_s
    while not heard and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    listener.destroy_node()
    if not heard:
        raise NoClockError(
            f"use_sim_time is set and nothing was heard on /clock for {timeout_s:g} s: start the "
            "simulator or the bag (with --clock), or set use_sim_time to false"
        )
