from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim.suites.tabletop.layout import COLOURS, RECEPTACLES, TABLE_Z, sample_layout
from sim.suites.tabletop.tasks import BY_INSTRUCTION, FAMILIES, INSTRUCTIONS, TASKS, task_of_seed

if TYPE_CHECKING:
    from sim.suites.tabletop.suite import Tabletop

pytestmark = pytest.mark.gl


def seeds_of(family: str, count: int) -> list[int]:
    found = (seed for seed in range(6 * count * 2) if task_of_seed(seed).family == family)
    return [next(found) for _ in range(count)]


def run_expert(suite: Tabletop, seed: int, noise: float = 0.0) -> bool:
    suite.reset(seed)
    rng = np.random.default_rng(seed)
    for _ in range(suite.spec.max_steps):
        action = suite.expert_action()
        if rng.random() < 0.5:
            action[:3] += noise * rng.standard_normal(3)
        if suite.step(action).success:
            return True
    return False


def test_there_are_48_balanced_instructions() -> None:
    assert len(set(INSTRUCTIONS)) == len(TASKS) == 48
    assert {t.family for t in TASKS} == set(FAMILIES)
    assert all(task_of_seed(s).instruction == INSTRUCTIONS[s % 48] for s in range(100))
    assert "put the yellow cylinder on the plate" in BY_INSTRUCTION


def test_layouts_keep_objects_apart_and_contain_the_target() -> None:
    counts = set()
    for seed in range(200):
        task = task_of_seed(seed)
        layout = sample_layout(np.random.default_rng(seed), task)
        xy = np.array([m.xy for m in layout.movables.values()])
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + np.eye(len(xy))
        assert gaps.min() >= 0.09
        assert layout.movables[task.colour].shape == task.shape
        assert set(layout.receptacles) == set(RECEPTACLES)
        counts.add(len(xy))
    assert counts == {2, 3, 4}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_expert_succeeds_and_shrugs_off_noise(tabletop: Tabletop, family: str) -> None:
    seeds = seeds_of(family, 100)
    done = [run_expert(tabletop, seed, noise=0.4 * (i % 2)) for i, seed in enumerate(seeds)]
    assert sum(done) >= 95, (
        f"failed seeds: {[s for s, ok in zip(seeds, done, strict=True) if not ok]}"
    )


def test_doing_nothing_fails(tabletop: Tabletop) -> None:
    for seed in (seeds_of(family, 1)[0] for family in FAMILIES):
        tabletop.reset(seed)
        results = [tabletop.step(np.zeros(7, np.float32)) for _ in range(20)]
        assert not any(r.success or r.wrong_object for r in results)


def test_the_expert_takes_over_from_a_bad_state(tabletop: Tabletop) -> None:
    """Fingers closed and driven into a corner first, as a lost policy would."""
    done = []
    for seed in range(6):
        tabletop.reset(seed)
        for _ in range(15):
            tabletop.step(np.array([0.6, 0.6, -0.8, 0, 0, 0.2, 1], np.float32))
        steps = range(tabletop.spec.max_steps)
        done.append(any(tabletop.step(tabletop.expert_action()).success for _ in steps))
    assert sum(done) >= 5


def test_lifting_another_object_is_noticed(tabletop: Tabletop) -> None:
    for seed in range(6, 12):
        start = tabletop.reset(seed)
        other = BY_INSTRUCTION[tabletop.alternative_instruction(0)]
        if other.family != "pick":
            continue
        tabletop._task, judged = other, tabletop._task
        for _ in range(60):
            action = tabletop.expert_action()
            tabletop._task = judged
            result = tabletop.step(action)
            tabletop._task = other
            if result.wrong_object:
                break
        assert result.wrong_object, start
        assert not result.success


def test_alternatives_are_feasible_and_exclude_the_task(tabletop: Tabletop) -> None:
    for seed in range(30):
        start = tabletop.reset(seed)
        asked = BY_INSTRUCTION[start.instruction]
        for choice in range(5):
            other = BY_INSTRUCTION[tabletop.alternative_instruction(choice)]
            assert tabletop._layout.movables[other.colour].shape == other.shape
            assert other.colour != asked.colour or (
                other.family == asked.family and other.goal != asked.goal
            )


def test_set_instruction_changes_words_only(tabletop: Tabletop) -> None:
    start = tabletop.reset(3)
    tabletop.set_instruction("pick up the blue cube")
    assert tabletop.observe().instruction == "pick up the blue cube"
    assert tabletop._task.instruction == start.instruction


_FINGERPRINT = """
import hashlib, json, sys
import numpy as np
from sim.suites import make_suite
suite = make_suite("tabletop")
for seed in json.loads(sys.argv[1]):
    start = suite.reset(seed)
    for _ in range(12):
        suite.step(suite.expert_action())
    observation = suite.observe()
    digest = hashlib.sha256(b"".join(image.tobytes() for image in observation.images))
    digest.update(observation.state.tobytes())
print(json.dumps([start.init_state_hash, digest.hexdigest()]))
"""


def test_two_processes_agree_bit_for_bit() -> None:
    """The second process has played another episode before: nothing leaks through a reset."""
    answers = []
    for seeds in ([7], [20, 7]):
        command = [sys.executable, "-c", _FINGERPRINT, json.dumps(seeds)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        answers.append(json.loads(run.stdout))
    assert answers[0] == answers[1]


def test_hashes_differ_between_seeds(tabletop: Tabletop) -> None:
    hashes = {tabletop.reset(seed).init_state_hash for seed in (0, 48, 96)}
    assert len(hashes) == 3
    assert tabletop.reset(48).init_state_hash in hashes


def test_saved_state_replays_bit_for_bit(tabletop: Tabletop) -> None:
    tabletop.reset(5)
    for _ in range(20):
        tabletop.step(tabletop.expert_action())
    saved = tabletop.save_state()
    ends = []
    for _ in range(2):
        tabletop.load_state(saved)
        for _ in range(15):
            tabletop.step(tabletop.expert_action())
        ends.append(tabletop.save_state())
    assert np.array_equal(ends[0], ends[1])


def test_observation_matches_its_spec(tabletop: Tabletop) -> None:
    tabletop.reset(1)
    observation = tabletop.observe()
    observation.check_against(tabletop.spec.observation)
    assert [image.shape for image in observation.images] == [(96, 96, 3)] * 2
    x, _, z = observation.state[:3]
    assert -0.2 < x < 0.0
    assert TABLE_Z + 0.1 < z < TABLE_Z + 0.3
    tabletop.step(np.zeros(7, np.float32))
    assert tabletop.observe().stamp_s == pytest.approx(0.05)


def test_actions_move_the_hand_as_the_spec_says(tabletop: Tabletop) -> None:
    for axis in range(3):
        tabletop.reset(2)
        before = tabletop.proprioception()[:3]
        action = np.zeros(7, np.float32)
        action[axis] = 1.0
        for _ in range(5):
            tabletop.step(action)
        moved = tabletop.proprioception()[:3] - before
        assert moved[axis] > 0.03
        assert np.abs(np.delete(moved, axis)).max() < 0.01


def test_torques_equal_those_of_robosuite(tabletop: Tabletop) -> None:
    tabletop.reset(4)
    controller = tabletop._controller
    for _ in range(10):
        tabletop.step(tabletop.expert_action())
        controller.refresh()
        reference = controller._osc.run_controller()
        np.testing.assert_allclose(controller.torques(), reference, atol=1e-10)


def test_projection_hits_the_mask_of_the_target(tabletop: Tabletop) -> None:
    for seed in range(8):
        start = tabletop.reset(seed)
        task = BY_INSTRUCTION[start.instruction]
        mask, names = tabletop.segmentation("agentview")
        target = tabletop.grounding()["target"]
        uv, inside = tabletop.project(target[None], "agentview")
        column, row = (uv[0] * 96).astype(int)
        assert inside[0]
        assert names[mask[row, column]] == f"{task.colour}_{task.shape}"


def test_segmentation_names_what_is_visible(tabletop: Tabletop) -> None:
    tabletop.reset(24)
    seen = set()
    for view in tabletop.spec.observation.views:
        mask, names = tabletop.segmentation(view)
        assert mask.shape == (96, 96)
        assert mask.dtype == np.int32
        seen |= {names[i] for i in np.unique(mask) if i}
    movables = {f"{c}_{m.shape}" for c, m in tabletop._layout.movables.items()}
    assert movables | {*RECEPTACLES, "gripper", "table"} <= seen <= {*names.values()}


def test_colours_of_the_picture_are_those_of_the_words(tabletop: Tabletop) -> None:
    strongest = {"red": 0, "green": 1, "blue": 2}
    for seed in range(24, 30):
        tabletop.reset(seed)
        frame = tabletop.observe().images[0].astype(int)
        mask, names = tabletop.segmentation("agentview")
        for index, name in names.items():
            colour = name.split("_")[0]
            if colour in strongest and (mask == index).sum() > 8:
                assert frame[mask == index].mean(0).argmax() == strongest[colour]


def test_grounding_has_a_goal_unless_picking(tabletop: Tabletop) -> None:
    for seed in range(6):
        start = tabletop.reset(seed)
        assert ("goal" in tabletop.grounding()) == (start.task != "pick")


def test_absent_objects_stay_away(tabletop: Tabletop) -> None:
    for seed in range(6):
        tabletop.reset(seed)
        for _ in range(10):
            tabletop.step(np.zeros(7, np.float32))
        absent = set(COLOURS) - tabletop._layout.movables.keys()
        for colour in absent:
            assert tabletop._data.body(colour).xpos[2] == pytest.approx(-2.0, abs=1e-3)


def test_orientation_never_jumps_across_half_a_turn(tabletop: Tabletop) -> None:
    tabletop.reset(0)
    vectors = []
    for step in range(30):
        turn = np.array([0, 0, 0, 0.6, 0.6, 0, -1] if step < 15 else [0, 0, 0, -0.6, -0.6, 0, -1])
        tabletop.step(turn.astype(np.float32))
        vectors.append(tabletop.proprioception()[3:6])
    norms = np.linalg.norm(vectors, axis=1)
    assert norms.min() < np.pi < norms.max()
    assert np.abs(np.diff(vectors, axis=0)).max() < 0.3
