"""LIBERO itself: skipped, with the reason, where its environment or assets are missing."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from sim.demos import TRAIN_SEED_BASE
from sim.suites import make_suite
from sim.suites.environment import environments
from sim.suites.libero.assets import VARIABLE
from sim.suites.libero.spec import TASKS, VIEW_SIZE, task_names
from sim.truth import suite_truth
from tests.sim.phases import phases_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.suites.base import ShowsTruth, TrainingSuite
    from sim.suites.environment import Environment

SHARED = Path(__file__).resolve().parents[3] / "shared" / "libero" / "assets"


@pytest.fixture(scope="module")
def assets() -> Iterator[None]:
    if not environments()["libero"].installed:
        pytest.skip("LIBERO's environment is missing: leanvla suites install libero")
    with pytest.MonkeyPatch.context() as patch:
        if VARIABLE not in os.environ:
            if not SHARED.is_dir():
                pytest.skip(f"LIBERO's assets are missing: set {VARIABLE}")
            patch.setenv(VARIABLE, str(SHARED))
        yield


@pytest.fixture(scope="module")
def libero(assets: None) -> Iterator[TrainingSuite]:
    suite = make_suite("libero_object", render_profile="lowpoly")
    yield suite
    suite.close()


@pytest.fixture(scope="module")
def environment() -> Environment:
    found = environments()["libero"]
    if not found.installed:
        pytest.skip("LIBERO's environment is missing: leanvla suites install libero")
    return found


def test_its_interpreter_tells_the_packages_that_are_pinned(environment: Environment) -> None:
    pinned, found = environment.lock.read_text().splitlines(), environment.packages()
    assert set(found) == set(environment.telling)
    assert {f"{name}=={version}" for name, version in found.items()} <= set(pinned)


def test_tasks_are_called_what_the_benchmark_calls_them(environment: Environment) -> None:
    (path,) = environment.folder.glob("lib/*/site-packages/libero/**/libero_suite_task_map.py")
    benchmark = runpy.run_path(str(path))["libero_task_map"]
    assert {suite: tuple(names) for suite, names in benchmark.items()} == {
        suite: task_names(suite) for suite in TASKS
    }


@pytest.mark.gl
@pytest.mark.timeout(300)
def test_a_seed_is_the_same_episode_every_time(libero: TrainingSuite) -> None:
    first, seen = libero.reset(0), libero.observe()
    for _ in range(3):
        libero.step(np.array([0.5, 0, -0.5, 0, 0, 0, 1], np.float32))
    moved = libero.observe()
    again, back = libero.reset(0), libero.observe()
    other = libero.reset(10)
    assert first == again
    assert first.task == "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    assert (other.task, other.init_state_hash != first.init_state_hash) == (first.task, True)
    assert np.array_equal(seen.state, back.state)
    assert all(map(np.array_equal, seen.images, back.images))
    assert not np.array_equal(seen.state, moved.state)
    assert seen.images[0].shape == (VIEW_SIZE, VIEW_SIZE, 3)


@pytest.mark.gl
@pytest.mark.timeout(300)
def test_a_training_seed_draws_a_scene_of_its_own(libero: TrainingSuite) -> None:
    evaluated, first = libero.reset(0), libero.reset(TRAIN_SEED_BASE)
    other, again = libero.reset(TRAIN_SEED_BASE + 10), libero.reset(TRAIN_SEED_BASE)
    assert first == again
    assert first.instruction == "pick up the alphabet soup and place it in the basket"
    assert (first.task, other.task) == (evaluated.task, evaluated.task)
    assert len({start.init_state_hash for start in (evaluated, first, other)}) == 3


@pytest.mark.gl
@pytest.mark.timeout(300)
def test_a_point_appears_where_its_object_is_seen(libero: TrainingSuite) -> None:
    libero.reset(0)
    mask, names = libero.segmentation("agentview")
    place = {name: number for number, name in names.items()}
    for role, name in (("target", "alphabet_soup_1"), ("goal", "basket_1")):
        (uv,), (inside,) = libero.project(libero.grounding()[role][None], "agentview")
        rows, columns = np.nonzero(mask == place[name])
        assert inside
        assert np.abs(uv * VIEW_SIZE - (columns.mean(), rows.mean())).max() < 16


@pytest.mark.gl
@pytest.mark.timeout(300)
def test_the_suite_tells_what_is_where_and_what_it_asks_for(libero: TrainingSuite) -> None:
    suite = cast("ShowsTruth", libero)
    suite.reset(0)
    assert suite.roles() == {
        "object": "alphabet_soup_1",
        "gripper": "gripper",
        "goal": "basket_1",
    }
    truth = suite_truth(suite)
    assert truth.phase == "reach"
    assert set(truth.masks) == set(libero.spec.roles)
    assert all(any(mask.any() for mask in masks) for masks in truth.masks.values())
    assert phases_of(suite, suite.spec.max_steps) == ["reach", "grasp", "carry", "place"]


@pytest.mark.gl
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "seed", "roles", "phases"),
    [
        ("libero_spatial", 0, ["akita_black_bowl_1", "plate_1"], ["reach", "grasp"]),
        ("libero_goal", 0, ["wooden_cabinet_1_cabinet_middle"], ["reach"]),  # no straight way
        ("libero_goal", 5, ["plate_1"], ["reach", "grasp"]),
        ("libero_10", 0, ["alphabet_soup_1", "basket_1"], ["reach", "grasp"]),
        # The hand goes to the file's first goal: the drawer, which is closed last.
        ("libero_10", 3, ["akita_black_bowl_1", "white_cabinet_1_cabinet_bottom"], ["reach"]),
        ("libero_90", 39, ["flat_stove_1_button"], ["reach", "act"]),
    ],
)
def test_the_problem_file_tells_what_any_task_is_about(
    assets: None, name: str, seed: int, roles: list[str], phases: list[str]
) -> None:
    suite = cast("ShowsTruth", make_suite(name, render_profile="lowpoly", view_size=96))
    try:
        suite.reset(seed)
        truth = suite_truth(suite)
        told = dict(zip(("object", "goal"), roles, strict=False))
        assert suite.roles() == {**told, "gripper": "gripper"}
        assert all(masks[0].any() for masks in truth.masks.values())
        assert truth.phase == "reach"
        assert phases_of(suite, 100, expert=False)[: len(phases)] == phases
    finally:
        suite.close()


@pytest.mark.gl
@pytest.mark.timeout(300)
def test_the_expert_solves_a_task(libero: TrainingSuite) -> None:
    libero.reset(0)
    results = (libero.step(libero.expert_action()) for _ in range(libero.spec.max_steps))
    assert any(result.success for result in results)


@pytest.mark.gl
@pytest.mark.timeout(300)
def test_another_instruction_asks_for_something_that_is_there(libero: TrainingSuite) -> None:
    start = libero.reset(0)
    other = libero.alternative_instruction(0)
    assert other != start.instruction
    assert other.startswith("pick up the ")
