"""Corrections on the real simulator: the policy drives, the expert labels and takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from policy.types import ActionChunk, ActionSpec, Inference, Timing
from pruning.history import fresh
from sim.dagger import correct, latest_take_over
from sim.suites import make_suite
from sim.training_data import episode_stats, training_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policy.types import Observation
    from pruning.history import PrunerState
    from sim.suites.tabletop.suite import Tabletop

SEED = 3_000_000


class Lazy:
    """A policy that stands still, and counts how often it is asked."""

    action_spec = ActionSpec(("a",) * 7, 8, 20.0)

    def __init__(self) -> None:
        self.asked = 0

    def initial_state(self) -> PrunerState:
        return fresh()

    def infer(self, observation: Observation, state: PrunerState) -> Inference:
        self.asked += 1
        still = np.zeros((8, 7), np.float32)
        return Inference(ActionChunk(still, still, None, ()), state, Timing(0.0))


@pytest.fixture(scope="module")
def suite() -> Iterator[Tabletop]:
    made = make_suite("tabletop")
    yield made
    made.close()


def test_expert_finishes_what_the_policy_does_not(suite: Tabletop) -> None:
    policy = Lazy()
    episode, alone = correct(suite, policy, SEED, execute=4)
    assert episode.success
    assert not alone
    assert episode.source == "dagger"
    take_over = int(np.random.default_rng([SEED, 2]).integers(10, 140))
    assert policy.asked == -(-min(take_over, episode.steps) // 4)
    # While the policy stood still the label went on asking for motion.
    assert np.abs(episode.arrays["actions"][5:take_over, :3]).max() > 0.2


def test_the_expert_takes_over_in_time_for_the_length_of_the_demonstrations(
    suite: Tabletop,
) -> None:
    policy = Lazy()
    episode, _ = correct(suite, policy, SEED, execute=4, latest=11)
    assert policy.asked == 3  # ten steps alone, four a query
    assert latest_take_over([episode]) == max(11, round(1.8 * episode.steps))


def test_corrections_become_training_data(suite: Tabletop) -> None:
    episode, _ = correct(suite, Lazy(), SEED + 1, execute=8)
    data = training_data(
        [episode], episode_stats([episode]), lambda text: [1, len(text)], correction_weight=2.0
    )
    assert len(data) == episode.steps
    assert set(data.weight.tolist()) == {2.0}
    assert data.points.shape == (episode.steps, 2, 2, 2)
    assert bool(data.has_goal.all()) == ("pick" not in episode.instruction)
    reach = np.abs(data.positions[:, :3]).max()
    assert 0.05 < reach < 1.0  # metres from the hand to the object
