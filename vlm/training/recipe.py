"""The recipe of `mini-vlm` as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Stage:
    """One stretch of training at one resolution of what the decoder sees.

    Attributes:
        frames: pictures to see, over all workers; a clip of four counts as four.
        batch: pictures per step and worker; what is longer is left out of the stage.
        pool: side of the square of visual tokens that is averaged into one; 1 is the model itself.
        learning_rate: peak.
        final: decay the learning rate to zero over this part of the stage.
    """

    frames: int
    batch: int
    pool: int
    learning_rate: float
    final: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How the model is learnt.

    Attributes:
        stages: run in order, weights carried over.
        shares: share of the frames that pictures, clips and haystacks get.
        text_tokens: tokens of questions and answers that go with one picture, clip or haystack: as
            many questions as fit share its visual tokens.
        warmup_steps: linear warm-up at the start of every stage.
        weight_decay: decoupled, on matrices only.
        ema: decay of the averaged weights that are saved.
        patch_weight: weight of the loss that names what lies on every patch.
        pointing_weight: weight of the loss that points from a question to what it is about.
    """

    stages: tuple[Stage, ...]
    shares: dict[str, float] = field(
        default_factory=lambda: {"image": 0.74, "clip": 0.16, "needle": 0.10}
    )
    text_tokens: dict[str, int] = field(
        default_factory=lambda: {"image": 176, "clip": 56, "needle": 40}
    )
    warmup_steps: int = 150
    weight_decay: float = 0.05
    ema: float = 0.998
    patch_weight: float = 0.5
    pointing_weight: float = 0.3

    def scaled(self, effort: float) -> Recipe:
        """The same recipe with `effort` times the frames in every stage.

        Raises:
            ValueError: when `effort` is not positive.
        """
        if not effort > 0:
            raise ValueError(f"effort is {effort}: give a positive share of the recipe's frames")
        stages = (replace(s, frames=max(1, round(s.frames * effort))) for s in self.stages)
        return replace(self, stages=tuple(stages))


MINI = Recipe(
    (
        Stage(64_000, 16, pool=2, learning_rate=1e-3),
        Stage(18_000, 8, pool=1, learning_rate=8e-4, final=0.75),
    )
)
"""Most is learnt while the decoder sees 64 tokens of a picture; the last fifth has all 256.

Why so: a dozen questions share one pass over their picture, so a step of 16 pictures asks two
hundred. The tower starts from nothing, since naming patches teaches it in a thousand pictures. What
to expect at the start, one worker: after 180 steps of the first stage (2,900 draws from 2,000
pictures, four CPU minutes) 81 % (existence), 55 % (counts), 55 % (colours) and 54 % (relations) of
the batch's questions are answered right, before it is learnt from; patches come first, then
pointing. If existence is not above 60 % by then, something is broken. Long haystacks are seen in
the first stage alone, where 16 frames are a thousand tokens.
"""
