"""Training recipes as data: what `leanvla train` runs, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stage:
    """One stretch of training with fixed shapes.

    Attributes:
        samples: observations to see, over all worker processes.
        batch: observations per step and worker.
        patch: patch edge in pixels; a coarser one than the checkpoint's makes early training cheap
            (weights are carried over as in FlexiViT, arXiv 2212.08013).
        pool: side of the square of visual tokens averaged into one before the decoder; 1 is off.
        learning_rate: peak, for AdamW and (matched in update size) Muon.
        final: decay the learning rate to zero over this part of the stage.
    """

    samples: int
    batch: int
    patch: int
    pool: int
    learning_rate: float
    final: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How one policy is learnt.

    Attributes:
        name: the policy's name.
        stages: run in order, weights carried over.
        warmup_steps: linear warm-up at the start of every stage.
        weight_decay: decoupled, on matrices only.
        ema: decay of the averaged weights that are saved.
        action_weights: weight of each action dimension in the loss; equal when empty.
        label_sigma_bins: width of the softened action label, in bins.
        grounding_weight: weight of the patch-level loss that points at the object and the goal.
        position_weight: weight of the loss that regresses both positions from the action states.
    """

    name: str
    stages: tuple[Stage, ...]
    warmup_steps: int = 200
    weight_decay: float = 0.05
    ema: float = 0.998
    action_weights: tuple[float, ...] = ()
    label_sigma_bins: float = 3.0
    grounding_weight: float = 0.3
    position_weight: float = 0.3

    def scaled(self, effort: float) -> Recipe:
        """The same recipe with `effort` times the samples in every stage.

        Raises:
            ValueError: when `effort` is not positive.
        """
        if not effort > 0:
            raise ValueError(f"effort is {effort}: give a positive share of the recipe's samples")
        stages = (replace(s, samples=max(1, round(s.samples * effort))) for s in self.stages)
        return replace(self, stages=tuple(stages))
