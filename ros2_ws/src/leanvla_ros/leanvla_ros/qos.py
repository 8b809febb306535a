"""Qualities of service, and what happens when the other side's do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable

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
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL
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
        policy = getattr(event.last_policy_kind, "name", str(event.last_policy_kind)).lower()
        tell(
            f"{topic}: {event.total_count} publisher(s) do not offer the {policy} that is asked "
            f"for ({qos.reliability}, {qos.durability}): change the contract's qos, or theirs"
        )

    return SubscriptionEventCallbacks(incompatible_qos=incompatible)
