"""Qualities of service, and what happens when the other side's do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from policy.contract import Qos

_RELIABILITY = {
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
    "reliable": ReliabilityPolicy.RELIABLE,
}
_DURABILITY = {
    "volatile": DurabilityPolicy.VOLATILE,
    "transient_local": DurabilityPolicy.TRANSIENT_LOCAL,
}
COMMAND = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=2)
# Every command counts, for whoever must know all that the robot was told.
TOLD = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=32)
# What is offered with commands: a process that dies is known to be dead after this lease.
LIVE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=2,
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Duration(seconds=0.5),
)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# The end of a run and the begin of the next are said in one breath: neither may replace the other.
RUN = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=8, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


def profile(qos: Qos) -> QoSProfile:
    """A contract's quality of service."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=qos.depth,
        reliability=_RELIABILITY[qos.reliability],
        durability=_DURABILITY[qos.durability],
    )


def mismatch_events(topic: str, qos: Qos, tell: Callable[[str], None]) -> Any:
    """Callbacks that say which side promises too little, instead of silence."""

    def incompatible(event: Any) -> None:
        kind = getattr(event.last_policy_kind, "name", str(event.last_policy_kind))
        policy = kind.lower().removeprefix("rmw_qos_policy_")
        tell(
            f"{topic}: {event.total_count} publisher(s) do not offer the {policy} that is asked "
            f"for ({qos.reliability}, {qos.durability}): change the contract's qos, or theirs"
        )

    return SubscriptionEventCallbacks(incompatible_qos=incompatible)


class Commanders:
    """How many live publishers a topic has.

    The graph remembers a killed process for many seconds. A subscription that asks for liveliness,
    beside the one that takes the commands from whomever they come, knows better.

    Args:
        node: who asks.
        kind: the topic's type.
        topic: where commands are published.
    """

    def __init__(self, node: Node, kind: type, topic: str) -> None:
        self._node, self._topic, self._dead = node, topic, 0
        events = SubscriptionEventCallbacks(
            liveliness=self._changed, incompatible_qos=lambda event: None
        )
        node.create_subscription(kind, topic, lambda message: None, LIVE, event_callbacks=events)

    def _changed(self, event: Any) -> None:
        self._dead = event.not_alive_count

    def count(self) -> int:
        """Publishers that may speak."""
        return self._node.count_publishers(self._topic) - self._dead
