from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim.rollout.episode import ExpertAgent, run_episode
from sim.rollout.simulator import Simulator
from sim.rollout.types import Cell, Deadlines, Job, Source
from sim.suites import SUITES, make_suite
from sim.suites.perturb.kinds import KINDS, PerturbError, check_supported, parse_perturb
from sim.suites.perturb.words import FRAMES, paraphrase
from sim.suites.tabletop.tasks import INSTRUCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.suites.perturb.suite import Perturbed
    from sim.suites.tabletop.suite import Tabletop


def test_perturbations_are_read_in_one_order() -> None:
    sizes = parse_perturb("pose:0.1, camera:0.05")
    assert list(sizes.items()) == [("camera", 0.05), ("pose", 0.1)]
    assert parse_perturb("") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("camra:1", "did you mean 'camera'"),
        ("camera", "needs a number above 0, up to 1: fixed cameras"),
        ("camera:-1", "needs a number"),
        ("camera:nan", "needs a number"),
        ("lighting:1", "up to 0.95"),
        ("paraphrase:0.5", "needs a whole number"),
        ("camera:0.1,camera:0.2", "named twice"),
    ],
)
def test_what_is_no_perturbation_is_refused(text: str, says: str) -> None:
    with pytest.raises(PerturbError, match=says):
        parse_perturb(text)


def test_a_suite_says_what_it_can_show() -> None:
    with pytest.raises(PerturbError, match="libero_goal cannot show distractors: it can show cam"):
        make_suite("libero_goal", perturb="distractors:2")
    with pytest.raises(PerturbError, match="it can show none"):
        check_supported("x", {"camera": 0.1}, ())
    assert all(entry.traits.perturb <= set(KINDS) for entry in SUITES.values())


def test_a_paraphrase_keeps_what_it_is_about() -> None:
    rng = np.random.default_rng(0)
    for instruction in INSTRUCTIONS:
        said = paraphrase(instruction, 1, rng)
        thing = " ".join(instruction.partition(" the ")[2].split()[:2])
        assert said != instruction
        assert f"the {thing}" in said
    assert paraphrase("juggle the cube", 1, rng) in {f.format("juggle the cube") for f in FRAMES}
    framed = paraphrase("open the door", 2, rng)
    assert "pull open the door" in framed
    assert framed != "pull open the door"


@pytest.fixture
def perturbed(tabletop: Tabletop) -> Iterator[object]:
    """Wrap the session's suite, and leave it as it was."""
    from sim.suites.perturb.suite import Perturbed

    made: list[Perturbed] = []

    def make(text: str) -> Perturbed:
        made.append(Perturbed(tabletop, parse_perturb(text)))
        return made[-1]

    yield make
    for suite in made:
        if suite._original is not None:
            suite._original.restore()
    tabletop.add_distractors(0)


@pytest.mark.gl
def test_cameras_move_and_come_back(tabletop: Tabletop, perturbed) -> None:
    plain, before = tabletop.reset(5), tabletop.observe()
    suite = perturbed("camera:0.05")
    start, seen = suite.reset(5), suite.observe()
    assert not np.array_equal(before.images[0], seen.images[0])
    assert np.array_equal(before.images[1], seen.images[1])  # the wrist camera hangs on the hand
    assert len(start.perturbed["camera"]) == 6
    assert max(map(abs, start.perturbed["camera"])) <= 0.05
    assert start.init_state_hash != plain.init_state_hash
    other = suite.reset(6)
    again = suite.reset(5)
    assert again == start != other
    assert all(map(np.array_equal, seen.images, suite.observe().images))
    (uv,), _ = suite.project(suite.grounding()["target"][None], "agentview")
    mask, names = suite.segmentation("agentview")
    target = next(n for n, name in names.items() if name.startswith(tabletop._task.colour))
    rows, columns = np.nonzero(mask == target)
    assert np.abs(uv * 96 - (columns.mean(), rows.mean())).max() < 8
    suite._original.restore()
    tabletop.reset(5)
    assert np.array_equal(before.images[0], tabletop.observe().images[0])


@pytest.mark.gl
def test_light_changes_what_is_seen_and_nothing_else(tabletop: Tabletop, perturbed) -> None:
    tabletop.reset(5)
    before = tabletop.observe()
    suite = perturbed("lighting:0.6")
    suite.reset(5)
    seen = suite.observe()
    assert np.array_equal(before.state, seen.state)
    assert np.abs(before.images[0].astype(int) - seen.images[0]).mean() > 2


@pytest.mark.gl
def test_the_arm_begins_elsewhere_and_the_expert_copes(tabletop: Tabletop, perturbed) -> None:
    tabletop.reset(0)
    before = tabletop.proprioception()
    suite = perturbed("pose:0.15")
    start = suite.reset(0)
    assert 0.005 < np.linalg.norm(suite.proprioception()[:3] - before[:3]) < 0.4
    assert len(start.perturbed["pose"]) == 7
    steps = range(suite.spec.max_steps)
    assert any(suite.step(suite.expert_action()).success for _ in steps)


@pytest.mark.gl
def test_distractors_are_added_up_to_all_colours(tabletop: Tabletop, perturbed) -> None:
    suite = perturbed("distractors:3")
    for seed in range(6):
        assert suite.reset(seed).perturbed == {"distractors": [3.0]}
        assert len(tabletop._layout.movables) == 4


@pytest.mark.gl
def test_words_change_and_the_judge_does_not(tabletop: Tabletop, perturbed) -> None:
    plain = tabletop.reset(7)
    suite = perturbed("paraphrase:2")
    start = suite.reset(7)
    assert start.instruction == plain.instruction != suite.observe().instruction
    suite.set_instruction("push the red cube to the left")
    assert "red cube to the left" in suite.observe().instruction
    assert suite.observe().instruction != "push the red cube to the left"


@pytest.mark.gl
def test_a_kind_draws_the_same_alone_or_with_others(perturbed) -> None:
    alone = perturbed("lighting:0.3").reset(3).perturbed
    both = perturbed("camera:0.1,lighting:0.3").reset(3).perturbed
    assert alone["lighting"] == both["lighting"]
    assert set(both) == {"camera", "lighting"}


@pytest.mark.gl
def test_what_was_drawn_stands_in_the_record() -> None:
    source = Source("tabletop", {"perturb": "camera:0.05,paraphrase:1"})
    simulator = Simulator(source, Deadlines(), None)
    try:
        job = Job(Cell("dense", 1.0), 0)
        record, _ = run_episode(job, ExpertAgent(), simulator, lambda beat: None)
    finally:
        simulator.close()
    assert len(record.perturbations["camera"]) == 6
    assert record.perturbations["paraphrase"] == [1.0]
    assert record.spoken not in (None, record.instruction)
    assert record.outcome == "success"
