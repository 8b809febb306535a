"""What a robot shows: messages checked, paired, and decoded when somebody will look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from policy.robot.ages import age_fault
from policy.robot.frozen import FrozenWatch
from policy.robot.health import Rate
from policy.robot.messages import (
    MessageError,
    check_image,
    decode_image,
    decode_state,
    hand_position,
    joint_positions,
    stamp_s,
)
from policy.robot.pairing import Pairing, Stamped

if TYPE_CHECKING:
    from jaxtyping import Float32, UInt8

    from policy.contract import Contract
    from policy.robot.health import Ledger
    from policy.robot.pairing import Paired
    from policy.types import ObservationSpec


class Reading(NamedTuple):
    """A measurement of the robot itself, and its stamp; None before the first."""

    stamp_s: float = 0.0
    value: np.ndarray | None = None


class Senses:
    """Everything that comes in from sensors.

    Args:
        contract: the robot.
        spec: what the policy reads, in its order.
        ledger: where dropped messages are counted.
    """

    def __init__(self, contract: Contract, spec: ObservationSpec, ledger: Ledger) -> None:
        self.contract, self.spec, self.ledger = contract, spec, ledger
        self.pairing, self.frozen = Pairing(contract), FrozenWatch()
        self.rates = {camera.view: Rate() for camera in contract.cameras}
        self._cameras = {camera.view: camera for camera in contract.cameras}
        self._sources = {source.topic: source for source in contract.state}
        self._joints, self._hand = Reading(), Reading()

    def image(self, view: str, message: Any, now_s: float) -> None:
        """Take a picture. Only its header and sizes are looked at."""
        try:
            check_image(message, self._cameras[view])
        except MessageError as error:
            self.ledger.drop("image", str(error))
            return
        self.rates[view].add(now_s)
        fault = self.pairing.image(view, Stamped(stamp_s(message), now_s, message))
        if fault:
            self.ledger.drop("image", f"camera {view}: picture {fault}")

    def state(self, topic: str, message: Any, now_s: float) -> None:
        """Take proprioception."""
        try:
            value = decode_state(message, self._sources[topic])
        except MessageError as error:
            self.ledger.drop("state", str(error))
            return
        fault = self.pairing.state(topic, Stamped(stamp_s(message), now_s, message, value))
        if fault:
            self.ledger.drop("state", f"{topic}: message {fault}")

    def joint_feedback(self, message: Any) -> None:
        """Take the robot's own measurement of its joints."""
        try:
            value = joint_positions(message, self.contract.command.joints)
        except MessageError as error:
            self.ledger.drop("feedback", str(error))
            return
        self._joints = Reading(stamp_s(message), value)

    def pose_feedback(self, message: Any) -> None:
        """Take the robot's own measurement of where its hand is."""
        try:
            self._hand = Reading(stamp_s(message), hand_position(message))
        except MessageError as error:
            self.ledger.drop("feedback", str(error))

    def joints(self, now_s: float) -> np.ndarray | None:
        """Measured joint positions; None when there is no fresh measurement."""
        return self._fresh(self._joints, now_s)

    def hand(self, now_s: float) -> np.ndarray | None:
        """Measured position of the hand; None when there is no fresh measurement."""
        return self._fresh(self._hand, now_s)

    def clear(self) -> None:
        """Forget everything: the clock or the robot is another one now."""
        self.pairing.clear()
        self.frozen.clear()
        self._joints, self._hand = Reading(), Reading()

    def decode(
        self, paired: Paired
    ) -> tuple[tuple[UInt8[np.ndarray, "h w 3"], ...], Float32[np.ndarray, " s"] | None]:
        """Pictures and state in the policy's order. May run on a thread of its own.

        Raises:
            MessageError: when a message cannot be decoded, or a camera shows a frozen picture.
        """
        frames: dict[str, np.ndarray] = {}
        values: dict[str, np.floating] = {}
        for camera, seen in zip(self.contract.cameras, paired.images, strict=True):
            frames[camera.view] = decode_image(seen.message, camera)
            still = self.frozen.look(camera, frames[camera.view], seen.stamp_s)
            if still:
                raise MessageError(still)
        for source, seen in zip(self.contract.state, paired.states, strict=True):
            said = decode_state(seen.message, source) if seen.value is None else seen.value
            values.update(zip(source.values, said, strict=True))
        names = self.spec.state_names
        state = np.array([values[name] for name in names], np.float32) if names else None
        return tuple(frames[view] for view in self.spec.views), state

    def _fresh(self, reading: Reading, now_s: float) -> np.ndarray | None:
        if reading.value is None:
            return None
        fault = age_fault(
            reading.stamp_s,
            now_s,
            self.contract.feedback.age,
            allow_unstamped=self.contract.allow_unstamped,
        )
        return None if fault else reading.value
