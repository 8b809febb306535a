"""What a pruner kept of what mattered: kept tokens against the simulator's own segmentation.

The simulator tells, per view, which pixels show the object asked for, the gripper and the goal, and
which phase the task is in. A patch shows a thing when at least a tenth of its pixels do. No policy
sees any of it, and nothing of it is computed unless it is asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.rollout.types import QueryTruth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Int64

    from policy.types import Policy
    from sim.suites.base import ShowsTruth, SuiteSpec

SHARE = 0.1
CROP_AREA = 0.9  # what a policy trained with augmentation sees of a frame


class TruthError(ValueError):
    """A suite or a policy of which no truth can be told: says what is missing."""


class Truth(NamedTuple):
    """The simulator's knowledge at one moment.

    Attributes:
        phase: what the task asks for now.
        masks: per role, one mask per view of the suite, in its order.
    """

    phase: str
    masks: dict[str, tuple[Bool[np.ndarray, "h w"], ...]]


def suite_truth(suite: ShowsTruth) -> Truth:
    """Ask a suite; renders one segmentation per view."""
    views = [suite.segmentation(view) for view in suite.spec.observation.views]
    masks = {
        role: tuple(mask == _id_of(name, names) for mask, names in views)
        for role, name in suite.roles().items()
    }
    return Truth(suite.phase(), masks)


class Witness:
    """Sets a policy's kept tokens beside the truth, view by view in the policy's order.

    Args:
        policy: whose tokens; its views are found among those of the suite.
        suite: what is shown.

    Raises:
        TruthError: when the suite tells no truth.
    """

    def __init__(self, policy: Policy, suite: SuiteSpec) -> None:
        if not suite.roles:
            raise TruthError(
                f"suite {suite.name} does not say what its views show: run without --truth"
            )
        shown = suite.observation.views
        self._views = [shown.index(view) for view in policy.observation_spec.views]
        cropped = getattr(getattr(policy, "config", None), "centre_crop", False)
        self._area = CROP_AREA if cropped else 1.0

    def compare(
        self, truth: Truth, kept: Sequence[Int64[np.ndarray, " k"]], view_tokens: int
    ) -> QueryTruth:
        """Count the patches that show each role, and those of them that live.

        Raises:
            TruthError: when a view's tokens do not form a square, so that none has a place.
        """
        side = math.isqrt(view_tokens)
        if side * side != view_tokens or not side:
            raise TruthError(
                f"a view has {view_tokens} tokens, no square of patches: run without --truth"
            )
        shown: dict[str, list[int]] = {}
        lives: dict[str, list[int]] = {}
        for role, masks in truth.masks.items():
            patches = [patches_of(masks[view], side, self._area) for view in self._views]
            shown[role] = [int(places.sum()) for places in patches]
            lives[role] = [
                int(places[tokens].sum()) for places, tokens in zip(patches, kept, strict=True)
            ]
        return QueryTruth(truth.phase, shown, lives)


def patches_of(
    mask: Bool[np.ndarray, "h w"], side: int, area: float = 1.0, share: float = SHARE
) -> Bool[np.ndarray, " n"]:
    """Which of `side * side` patches, row by row, show at least `share` of a mask.

    Args:
        mask: pixels that show the thing, of a square frame.
        side: patches along one edge.
        area: the central part of the frame that the policy sees.
        share: of a patch's pixels.
    """
    rows, columns = (_patch_of_pixel(length, side, area) for length in mask.shape)
    size = np.outer(
        np.bincount(rows[rows >= 0], minlength=side),
        np.bincount(columns[columns >= 0], minlength=side),
    )
    seen = mask[np.ix_(rows >= 0, columns >= 0)]
    place = rows[rows >= 0][:, None] * side + columns[columns >= 0][None, :]
    count = np.bincount(place[seen], minlength=side * side)
    return count >= np.maximum(share * size.ravel(), 1)


def _patch_of_pixel(length: int, side: int, area: float) -> Int64[np.ndarray, " length"]:
    """The patch, along one edge, that a pixel's centre falls into; -1 outside what is seen."""
    at = (np.arange(length) + 0.5) / length
    inner = (at - 0.5) / math.sqrt(area) + 0.5
    return np.where((inner >= 0) & (inner < 1), np.floor(inner * side), -1).astype(np.int64)


def _id_of(name: str, names: dict[int, str]) -> int:
    return next((number for number, known in names.items() if known == name), -1)
