from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim.suites import make_suite, suite_spec, traits_of
from sim.suites.grasp import narrow_turn
from sim.suites.robosuite.spec import SUITES, make_example, task_of, tasks_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.suites.robosuite.suite import Robosuite


@pytest.mark.parametrize("suite", SUITES)
def test_the_example_fits_the_spec_and_seeds_walk_through_all_tasks(suite: str) -> None:
    spec, (observation, action) = suite_spec(suite), make_example()
    observation.check_against(spec.observation)
    assert action.shape == (spec.action.dof,)
    tasks = tasks_of(suite)
    assert [task_of(suite, seed) for seed in range(len(tasks))] == list(tasks)
    assert spec.max_steps == max(task.max_steps for task in tasks)
    traits = traits_of(suite)
    assert traits.expert == all(task.expert for task in tasks)
    assert all(traits.swaps(seed) for seed in range(9)) == all(task.others for task in tasks)


def test_there_are_ten_tasks_with_their_own_words() -> None:
    tasks = tasks_of("robosuite")
    assert len({task.name for task in tasks}) == len({task.instruction for task in tasks}) == 10


def test_fingers_take_the_narrow_side_and_keep_clear_of_what_stands_beside() -> None:
    box = np.array([[x, y] for x in (-0.02, 0.02) for y in (-0.06, 0.06)])
    assert abs(narrow_turn(box, np.array([0.0, 1.0, 0.0]))) == pytest.approx(np.pi / 2, abs=0.1)
    assert narrow_turn(box, np.array([1.0, 0.0, 0.0])) == 0.0
    cube = np.array([[x, y] for x in (-0.02, 0.02) for y in (-0.02, 0.02)])
    beside = np.array([[0.05, 0.0]])
    assert narrow_turn(cube, np.array([1.0, 0.0, 0.0])) == 0.0
    assert abs(narrow_turn(cube, np.array([1.0, 0.0, 0.0]), beside)) > 0.4


@pytest.fixture(scope="module")
def stack() -> Iterator[Robosuite]:
    suite = make_suite("robosuite_stack")
    yield suite
    suite.close()


def solve(suite: Robosuite, seed: int) -> bool:
    suite.reset(seed)
    steps = range(suite._task.max_steps)
    return any(suite.step(suite.expert_action()).success for _ in steps)


@pytest.mark.gl
def test_a_seed_is_the_same_episode_every_time(stack: Robosuite) -> None:
    first, seen = stack.reset(3), stack.observe()
    for _ in range(3):
        stack.step(np.array([0.5, 0, -0.5, 0, 0, 0.3, 1], np.float32))
    moved, other = stack.observe(), stack.reset(4)
    again, back = stack.reset(3), stack.observe()
    assert first == again
    assert other.init_state_hash != first.init_state_hash
    assert np.array_equal(seen.state, back.state)
    assert all(map(np.array_equal, seen.images, back.images))
    assert not np.array_equal(seen.state, moved.state)


@pytest.mark.gl
def test_a_point_appears_where_its_object_is_seen(stack: Robosuite) -> None:
    stack.reset(3)
    mask, names = stack.segmentation("agentview")
    place = {name: number for number, name in names.items()}
    for role, name in (("target", "cubeA"), ("goal", "cubeB")):
        (uv,), (inside,) = stack.project(stack.grounding()[role][None], "agentview")
        rows, columns = np.nonzero(mask == place[name])
        assert inside
        assert np.abs(uv * 96 - (columns.mean(), rows.mean())).max() < 6
    assert {"table", "robot"} <= set(names.values())


@pytest.mark.gl
def test_the_expert_stacks(stack: Robosuite) -> None:
    assert all(solve(stack, seed) for seed in (100, 101))


@pytest.mark.gl
def test_another_instruction_asks_for_something_else(stack: Robosuite) -> None:
    start = stack.reset(3)
    assert stack.alternative_instruction(0) == "stack the green cube on the red cube"
    stack.set_instruction("wait")
    assert stack.observe().instruction == "wait" != start.instruction


@pytest.mark.gl
def test_fewer_cameras_can_be_shown() -> None:
    suite = make_suite("robosuite_lift", views=("robot0_eye_in_hand",), view_size=64)
    try:
        seen = suite.observe()
        assert len(seen.images) == 1
        assert seen.images[0].shape == (64, 64, 3)
        assert suite.spec == suite_spec("robosuite_lift", views=("robot0_eye_in_hand",))
        assert solve(suite, 100)
        with pytest.raises(ValueError, match="nothing else can be asked for"):
            suite.alternative_instruction(0)
    finally:
        suite.close()
    with pytest.raises(ValueError, match="shows agentview, robot0_eye_in_hand: choose"):
        suite_spec("robosuite_lift", views=("frontview",))


@pytest.mark.gl
@pytest.mark.slow
def test_groceries_are_judged_by_what_was_asked_for() -> None:
    suite = make_suite("robosuite_pick_place")
    try:
        assert solve(suite, 115)  # the can
        suite.reset(100)
        asked = suite._task
        assert asked.name == "milk"
        suite._task = suite._judge._task = task_of("robosuite_pick_place", 103)
        results = []
        for _ in range(60):
            action = suite.expert_action()
            suite._judge._task = asked
            results.append(suite.step(action))
            suite._judge._task = suite._task
        assert any(result.wrong_object for result in results)
        assert not any(result.success for result in results)
    finally:
        suite.close()


@pytest.mark.gl
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tasks_without_an_expert_are_there_and_doing_nothing_fails() -> None:
    suite = make_suite("robosuite")
    try:
        for seed, name in ((8, "door"), (9, "wipe")):
            assert suite.reset(seed).task == name
            results = [suite.step(np.zeros(7, np.float32)) for _ in range(5)]
            assert not any(result.success or result.wrong_object for result in results)
            assert np.isfinite(suite.grounding()["target"]).all()
            assert suite.observe().images[0].std() > 5
            with pytest.raises(ValueError, match=f"{name} has no scripted expert"):
                suite.expert_action()
    finally:
        suite.close()
