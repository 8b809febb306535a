"""Any suite, perturbed. The seed of an episode decides how; the values go into its record."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.suites.perturb.scene import Original, change_lights, move_cameras
from sim.suites.perturb.words import paraphrase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sim.suites.base import EpisodeStart, TrainingSuite


class Perturbed:
    """A suite whose episodes are perturbed; everything else is the suite's own.

    Args:
        suite: in this process; it gives its `scene()`, and for `pose` and `distractors` has
            methods `move_arm` and `add_distractors`.
        sizes: how much of each kind, see `KINDS`.
    """

    def __init__(self, suite: TrainingSuite, sizes: Mapping[str, float]) -> None:
        self._suite: Any = suite
        self._sizes = dict(sizes)
        self._original: Original | None = None
        self._words = np.random.default_rng(0)

    def __getattr__(self, name: str) -> Any:
        """Everything that is not perturbed."""
        return getattr(self._suite, name)

    def reset(self, seed: int) -> EpisodeStart:
        """The episode of `seed`, perturbed by `seed`."""
        if self._original is not None:
            self._original.restore()
        if "distractors" in self._sizes:
            self._suite.add_distractors(int(self._sizes["distractors"]))
        start = self._suite.reset(seed)
        scene = self._suite.scene()
        if self._original is None or self._original.model is not scene.model:
            self._original = Original(scene)
        values = {name: self._apply(name, seed) for name in self._sizes}
        if "paraphrase" in self._sizes:
            self._words = self._rng("paraphrase", seed)
            self.set_instruction(start.instruction)
        text = start.init_state_hash + json.dumps(values)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return start._replace(perturbed=values, init_state_hash=digest)

    def set_instruction(self, instruction: str) -> None:
        """Say something else, in words that are perturbed as well."""
        if "paraphrase" in self._sizes:
            instruction = paraphrase(instruction, int(self._sizes["paraphrase"]), self._words)
        self._suite.set_instruction(instruction)

    def _apply(self, name: str, seed: int) -> list[float]:
        """Do one kind; returns what was drawn, or the size of a kind that draws elsewhere."""
        size, rng, scene = self._sizes[name], self._rng(name, seed), self._suite.scene()
        if name == "camera":
            return move_cameras(scene, size, rng)
        if name == "lighting":
            return change_lights(scene, size, rng)
        if name == "pose":
            offsets = rng.uniform(-size, size, 7)
            self._suite.move_arm(offsets)
            return [float(offset) for offset in offsets]
        return [float(size)]

    @staticmethod
    def _rng(name: str, seed: int) -> np.random.Generator:
        """A kind draws the same whether it comes alone or with others."""
        return np.random.default_rng([seed, zlib.crc32(name.encode())])
