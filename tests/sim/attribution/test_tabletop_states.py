"""The tabletop can be gone back to, bit for bit; and the shipped policy with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.openvla.policy import OpenVLAPolicy
from policy.registry import load_policy, resolve_policy
from pruning.base import MethodError
from pruning.registry import make_method
from sim.attribution.one_view import one_view
from sim.suites.tabletop.phase import PHASES
from sim.truth import suite_truth

if TYPE_CHECKING:
    from sim.suites.tabletop.suite import Tabletop

pytestmark = pytest.mark.gl


@given(
    seed=st.integers(0, 47),
    before=st.integers(0, 25),
    actions=st.lists(
        st.lists(st.floats(-1, 1, width=32), min_size=7, max_size=7), min_size=1, max_size=6
    ),
    elsewhere=st.booleans(),
)
@settings(max_examples=12)
def test_the_same_actions_from_a_restored_state_give_the_same_bits(
    tabletop: Tabletop, seed: int, before: int, actions: list[list[float]], elsewhere: bool
) -> None:
    """Physics, judgement, proprioception and pixels; also after another episode came between."""
    tabletop.reset(seed)
    for _ in range(before):
        tabletop.step(tabletop.expert_action())
    saved = tabletop.save_state()

    def play() -> tuple[list, np.ndarray, list[np.ndarray]]:
        results = [tabletop.step(np.array(action, np.float32)) for action in actions]
        seen = tabletop.observe()
        return results, tabletop.save_state(), [*seen.images, seen.state]

    first = play()
    if elsewhere:
        tabletop.reset(seed + 1)
        tabletop.step(np.zeros(7, np.float32))
        tabletop.reset(seed)
    tabletop.load_state(saved)
    np.testing.assert_array_equal(tabletop.save_state(), saved)
    second = play()
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])
    for one, other in zip(first[2], second[2], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(3))
def test_an_experts_episode_goes_through_its_phases_in_order(tabletop: Tabletop, seed: int) -> None:
    tabletop.reset(seed)
    seen = [tabletop.phase()]
    for _ in range(tabletop.spec.max_steps):
        done = tabletop.step(tabletop.expert_action()).success
        seen.append(tabletop.phase())
        if done:
            break
    order = list(dict.fromkeys(seen))
    assert set(order) <= set(PHASES)
    assert order == sorted(order, key=PHASES.index)
    assert order[0] == "reach"
    assert len(order) > 1


def test_truth_points_at_the_target_and_disturbs_nothing(tabletop: Tabletop) -> None:
    start = tabletop.reset(1)
    before = tabletop.observe()
    truth = suite_truth(tabletop)
    after = tabletop.observe()
    assert start.task == "put"
    assert set(truth.masks) == {"object", "gripper", "goal"} == set(tabletop.spec.roles)
    target = tabletop.grounding()["target"][None]
    (u, v), _ = tabletop.project(target, "agentview")[0][0], None
    rows, columns = np.nonzero(truth.masks["object"][0])
    assert abs(columns.mean() / 96 - u) < 0.06
    assert abs(rows.mean() / 96 - v) < 0.06
    for one, other in zip(before.images, after.images, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_view_is_pruned_as_the_method_would_and_the_other_stays_whole(
    tabletop: Tabletop,
) -> None:
    tabletop.reset(3)
    seen = tabletop.observe()
    pruned = load_policy("mini", method="vla_pruner", keep=0.125)
    inner = make_method("vla_pruner", keep=0.125)
    wanted = pruned.infer(seen, pruned.initial_state()).chunk.kept
    for view in (0, 1):
        method = one_view(inner, view, 2, 144)
        policy = OpenVLAPolicy.from_folder(resolve_policy("mini"), method=method)
        kept = policy.infer(seen, policy.initial_state()).chunk.kept
        np.testing.assert_array_equal(kept[view], wanted[view])
        np.testing.assert_array_equal(kept[1 - view], np.arange(144))
    with pytest.raises(MethodError, match="cannot be told apart"):
        one_view(make_method("pact", keep=0.25), 0, 2, 144)
