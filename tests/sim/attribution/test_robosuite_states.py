"""robosuite's scenes can be gone back to, bit for bit, while a thing is held and while none is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim.suites import make_suite, suite_spec
from sim.suites.robosuite.spec import SUITES

if TYPE_CHECKING:
    from sim.suites.robosuite.suite import Robosuite

STEPS = 20


def test_only_what_wipes_cannot_be_saved() -> None:
    assert [name for name in SUITES if not suite_spec(name).saves] == [
        "robosuite",
        "robosuite_wipe",
    ]


@pytest.mark.gl
@pytest.mark.parametrize("name", ["lift", "stack", "nut_assembly", "pick_place", "door"])
def test_the_same_actions_from_a_restored_state_give_the_same_bits(name: str) -> None:
    """Physics, judgement, proprioception and pixels; also after another episode came between."""
    suite = make_suite(f"robosuite_{name}", view_size=48)
    rng = np.random.default_rng(0)
    try:
        for seed, before in ((3, 45), (4, 6)):
            actions = rng.uniform(-1, 1, (STEPS, 7)).astype(np.float32)
            actions[:4, 3:6] = 0.0  # the hand's turn keeps its goal
            actions[2:8, 6] = -0.5  # between open and closed fingers go on from where they were
            suite.reset(seed)
            for _ in range(before):
                suite.step(suite.expert_action() if suite._task.expert else actions[-1])
            check_that_it_goes_back(suite, actions, seed, seed + 1)
    finally:
        suite.close()


def check_that_it_goes_back(suite: Robosuite, actions: np.ndarray, seed: int, other: int) -> None:
    """To where it is in the episode of `seed`, at once and from the episode of another seed."""
    saved = suite.save_state()
    first = play(suite, actions)
    suite.load_state(saved)
    np.testing.assert_array_equal(suite.save_state(), saved)
    same(first, play(suite, actions))
    suite.reset(other)
    suite.step(actions[0])
    suite.reset(seed)
    suite.load_state(saved)
    same(first, play(suite, actions))


def play(suite: Robosuite, actions: np.ndarray) -> tuple[list, np.ndarray, list]:
    """Results, the last state, and what was seen at first, on the way and at last."""
    seen, results = [suite.observe()], []
    for number, action in enumerate(actions, 1):
        results.append(suite.step(action))
        if number % (STEPS // 2) == 0:
            seen.append(suite.observe())
    return results, suite.save_state(), [part for one in seen for part in (*one.images, one.state)]


def same(first: tuple[list, np.ndarray, list], second: tuple[list, np.ndarray, list]) -> None:
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])
    for one, other in zip(first[2], second[2], strict=True):
        np.testing.assert_array_equal(one, other)
