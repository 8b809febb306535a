"""Meta-World: its spec everywhere; itself where it is installed, else skipped with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from sim.suites import METAWORLD, make_suite, suite_spec
from sim.suites.environment import SuiteEnvironmentError, environments
from sim.suites.metaworld.spec import MT10, WORDS, make_example, task_of, tasks_of
from sim.truth import suite_truth
from tests.sim.phases import phases_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim.suites.base import ShowsTruth, TrainingSuite


@pytest.mark.parametrize("suite", METAWORLD)
def test_the_example_fits_the_spec_and_seeds_walk_through_all_tasks(suite: str) -> None:
    spec, (observation, action) = suite_spec(suite), make_example()
    observation.check_against(spec.observation)
    assert action.shape == (spec.action.dof,)
    assert spec.action.rotation == "none"
    count = len(tasks_of(suite))
    assert [task_of(suite, seed) for seed in range(count, 2 * count)] == list(tasks_of(suite))


def test_every_task_has_words_of_its_own() -> None:
    assert len(WORDS) == len(set(WORDS.values())) == 50
    assert set(MT10) < set(WORDS)


def test_the_lock_is_pinned_to_the_last_line() -> None:
    lines = environments()["metaworld"].lock.read_text().splitlines()
    assert all("==" in line for line in lines)
    assert {"metaworld==3.1.1", "mujoco==3.3.0"} <= set(lines)


def test_a_suite_that_is_not_installed_names_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path))
    with pytest.raises(SuiteEnvironmentError, match="run `leanvla suites install metaworld`"):
        make_suite("metaworld_mt10")


@pytest.fixture(scope="module")
def metaworld() -> Iterator[TrainingSuite]:
    if not environments()["metaworld"].installed:
        pytest.skip("Meta-World's environment is missing: leanvla suites install metaworld")
    suite = make_suite("metaworld_mt10", perturb="camera:0.02")
    yield suite
    suite.close()


def test_its_interpreter_tells_the_packages_that_are_pinned() -> None:
    environment = environments()["metaworld"]
    if not environment.installed:
        pytest.skip("Meta-World's environment is missing: leanvla suites install metaworld")
    pinned = environment.lock.read_text().splitlines()
    found = environment.packages()
    assert set(found) == set(environment.telling)
    assert {f"{name}=={version}" for name, version in found.items()} <= set(pinned)


@pytest.mark.gl
@pytest.mark.timeout(300)
def test_a_seed_is_the_same_episode_every_time(metaworld: TrainingSuite) -> None:
    first, seen = metaworld.reset(1), metaworld.observe()
    for _ in range(3):
        metaworld.step(np.array([1, 0, 0, 1], np.float32))
    moved, other = metaworld.observe(), metaworld.reset(2)
    again, back = metaworld.reset(1), metaworld.observe()
    assert first == again
    assert (first.task, other.task) == ("push", "pick-place")
    assert len(first.perturbed["camera"]) % 6 == 0
    assert np.array_equal(seen.state, back.state)
    assert all(map(np.array_equal, seen.images, back.images))
    assert not np.array_equal(seen.state, moved.state)


@pytest.mark.gl
@pytest.mark.timeout(300)
def test_the_expert_solves_a_task_and_a_point_is_seen_where_it_is(metaworld: TrainingSuite) -> None:
    metaworld.reset(1)
    mask, names = metaworld.segmentation("corner4")
    place = {name: number for number, name in names.items()}
    (uv,), (inside,) = metaworld.project(metaworld.grounding()["target"][None], "corner4")
    rows, columns = np.nonzero(mask == place["obj"])
    assert inside
    assert np.abs(uv * 96 - (columns.mean(), rows.mean())).max() < 6
    results = (metaworld.step(metaworld.expert_action()) for _ in range(metaworld.spec.max_steps))
    assert any(result.success for result in results)


@pytest.mark.gl
@pytest.mark.timeout(300)
def test_every_task_of_mt10_shows_what_it_is_about(metaworld: TrainingSuite) -> None:
    suite = cast("ShowsTruth", metaworld)
    for seed, task in enumerate(MT10):
        suite.reset(seed)
        truth = suite_truth(suite)
        unseen = {role for role, masks in truth.masks.items() if not masks[0].any()}
        assert "gripper" in truth.masks
        assert (task, "object" in truth.masks) == (task, task != "reach")
        assert (task, unseen - {"goal"}) == (task, set())
        first = "act" if task == "drawer-close" else "reach"  # it begins at the drawer
        assert (task, truth.phase) == (task, first)
        if task in ("reach", "push", "pick-place", "peg-insert-side"):
            assert (task, unseen) == (task, set())


@pytest.mark.gl
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("task", "phases"),
    [
        ("reach", ["reach"]),
        ("push", ["reach", "act"]),
        ("pick-place", ["reach", "grasp", "carry", "place"]),
        ("drawer-open", ["reach", "act"]),
        ("button-press-topdown", ["reach", "act"]),
        ("window-close", ["reach", "act"]),
    ],
)
def test_the_expert_walks_through_the_phases(
    metaworld: TrainingSuite, task: str, phases: list[str]
) -> None:
    metaworld.reset(MT10.index(task))
    assert phases_of(cast("ShowsTruth", metaworld), 200) == phases
