"""Questions are true of the pictures, the same for the same seed, and apart for training."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from leanvla.cli import main
from sim.demos import EVAL_SEED_LIMIT
from sim.scene_qa import dataset
from sim.scene_qa.dataset import draw_clip, draw_needles, draw_scene, split_of, write_dataset
from sim.scene_qa.kinds import NAMES, draw_content, habits
from sim.scene_qa.needles import VARIANTS
from sim.scene_qa.questions import STRATEGIES, ask
from sim.scene_qa.stage import Seen, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from sim.scene_qa.questions import Question
    from sim.scene_qa.stage import Shot
    from sim.suites.tabletop.suite import Tabletop

pytestmark = pytest.mark.gl
SEEDS = range(12)


@pytest.fixture(scope="module")
def stage(tabletop: Tabletop) -> Stage:
    return Stage(tabletop)


@pytest.fixture(scope="module")
def drawn(stage: Stage) -> list[tuple[Shot, list[Question]]]:
    return [(shots[0], asked) for shots, asked in (draw_scene(stage, seed) for seed in SEEDS)]


def test_the_same_seed_gives_the_same_pixels_and_questions(stage, drawn) -> None:
    for seed in (3, 0):
        (shot,), asked = draw_scene(stage, seed)
        assert np.array_equal(shot.image, drawn[seed][0].image)
        assert np.array_equal(shot.mask, drawn[seed][0].mask)
        assert asked == drawn[seed][1]


def test_answers_hold_in_the_mask(drawn) -> None:
    for shot, asked in drawn:
        names = [shot.instances[one.instance] for one in shot.seen]
        for question in asked:
            words = question.text.rstrip("?")
            if question.kind == "existence":
                name = words.removeprefix("Is there a ").removesuffix(" in the picture")
                assert question.answer == ("yes" if name in names else "no")
            if question.kind == "count":
                things = words.removeprefix("How many ").removesuffix(" are there")
                word = things.removesuffix(" objects").removesuffix("s")
                assert int(question.answer) == sum(word in name.split() for name in names)
            if question.kind == "colour":
                (instance,) = question.about[0]
                assert shot.instances[instance].startswith(question.answer)
            if question.kind == "relation":
                _check_relation(shot, question)


def _check_relation(shot: Shot, question: Question) -> None:
    side = question.variant
    one, other = question.about[0]
    axis = 1 if side in ("left of", "right of") else 0
    a, b = (np.nonzero(shot.mask == i)[axis].mean() for i in (one, other))
    holds = a < b if side in ("left of", "above") else a > b
    assert question.answer == ("yes" if holds else "no")
    assert question.text.startswith(f"Is the {shot.instances[one]} {side} the")


def test_yes_and_no_are_balanced_as_in_pope(drawn) -> None:
    asked = [q for _, questions in drawn for q in questions if q.kind == "existence"]
    for strategy in STRATEGIES:
        assert sum(q.variant == strategy for q in asked) == len(SEEDS)
    yes = sum(q.answer == "yes" for q in asked)
    assert 0.35 < yes / len(asked) <= 0.5


def test_adversarial_negatives_come_with_what_is_there() -> None:
    world, rng = habits(), np.random.default_rng(1)
    assert world.together.shape == (len(NAMES), len(NAMES))
    assert np.allclose(np.diag(world.together), world.frequency)
    seen = [Seen("green cylinder", 1, 0.2, 0.2, "red"), Seen("plate", 2, 0.8, 0.8, "plate")]
    gain = {name: [] for name in STRATEGIES}
    for _ in range(60):
        for q in ask(seen, rng):
            if q.variant in gain:
                name = q.text.removeprefix("Is there a ").removesuffix(" in the picture?")
                gain[q.variant].append(world.together[[3, 11], NAMES.index(name)].sum())
    assert np.mean(gain["adversarial"]) > np.mean(gain["random"])
    assert np.mean(gain["popular"]) > np.mean(gain["random"])


def test_near_objects_are_on_no_side() -> None:
    seen = [Seen("red cube", 1, 0.50, 0.5, "red"), Seen("blue cube", 2, 0.52, 0.52, "blue")]
    kinds = {q.kind for q in ask(seen, np.random.default_rng(0))}
    assert "relation" not in kinds
    assert not any("on the" in q.text for q in ask(seen, np.random.default_rng(0)))


def test_content_repeats_only_where_it_may() -> None:
    rng = np.random.default_rng(0)
    assert any(
        len(set(c.movables)) < len(c.movables) for c in (draw_content(rng) for _ in "x" * 99)
    )
    for _ in range(50):
        content = draw_content(rng, distinct=True, least=2)
        assert len(set(content.movables)) == len(content.movables) >= 2


def test_a_clip_moves_what_it_says(stage: Stage) -> None:
    kinds = set()
    for seed in range(6):
        shots, asked = draw_clip(stage, seed)
        assert len(shots) == 4
        for question in asked:
            kinds.add(question.kind)
            for name in question.answer.split(" then "):
                centres = [{s.name: (s.u, s.v) for s in shot.seen}[name] for shot in shots]
                assert np.ptp(np.array(centres), axis=0).max() > 0.05
    assert kinds == {"moved", "order"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_needle_is_in_one_frame_and_the_question_needs_it(stage: Stage, variant: str) -> None:
    for seed in range(3):
        shots, questions = draw_needles(stage, seed, 5, variant)
        assert len(questions) == (1 if variant == "single" else 2)
        question = questions[seed % len(questions)]
        (frame,) = [i for i, about in enumerate(question.about) if about]
        names = [{one.name for one in shot.seen} for shot in shots]
        assert [i for i, there in enumerate(names) if question.answer in there] == [frame]
        needles = [i for i, there in enumerate(names) if any(" " in name for name in there)]
        if variant == "single":
            assert needles == [frame]
        if variant == "conditional":
            other = next(i for i in needles if i != frame)
            asked = question.text.removeprefix("Which object was seen with the ").rstrip("?")
            assert asked in names[frame]
            assert asked not in names[other]
        if variant == "threaded":
            before = question.text.removeprefix("Which object was seen after the ").rstrip("?")
            assert before in names[needles[needles.index(frame) - 1]]


@pytest.fixture
def small(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_STAGES", {"tabletop": stage})
    monkeypatch.setattr(dataset, "PART", 2)


def test_a_folder_is_whole_hashed_and_goes_on(small, tmp_path: Path, monkeypatch) -> None:
    split = split_of("heldout", 3, 1, 1)
    facts = write_dataset(tmp_path / "a", split)
    again = write_dataset(tmp_path / "b", split)
    assert facts == again
    text = (tmp_path / "a" / "questions.jsonl").read_text()
    assert hashlib.sha256(text.encode()).hexdigest() == facts["questions_sha256"]
    frames = [json.loads(x) for x in (tmp_path / "a" / "frames.jsonl").read_text().splitlines()]
    for row in frames:
        content = (tmp_path / "a" / row["mask"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["mask_sha256"]
        mask = np.asarray(Image.open(tmp_path / "a" / row["mask"]))
        assert {int(i) for i in row["instances"]} == set(np.unique(mask)) - {0}
    lost = next((tmp_path / "a" / "parts").glob("0000002-*.json"))
    lost.unlink()
    calls: list[int] = []
    draw = dataset.draw_scene
    monkeypatch.setattr(
        dataset, "draw_scene", lambda s, seed: (calls.append(seed), draw(s, seed))[1]
    )
    assert write_dataset(tmp_path / "a", split) == facts
    assert calls == [2]


def test_another_split_does_not_land_in_the_same_folder(small, tmp_path: Path) -> None:
    write_dataset(tmp_path, split_of("heldout", 1, 0))
    with pytest.raises(ValueError, match="choose another folder"):
        write_dataset(tmp_path, split_of("train", 1, 0))


def test_training_and_evaluation_share_no_seed() -> None:
    assert split_of("heldout", 1000, 1000, 1000).seeds[-1] < EVAL_SEED_LIMIT
    assert split_of("train", 10**6, 10**6, 9).seeds[0] >= 10 * EVAL_SEED_LIMIT
    with pytest.raises(ValueError, match="held-out evaluation owns"):
        split_of("heldout", EVAL_SEED_LIMIT, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--scenes", "-1"), "--scenes is -1"),
        (("--scenes", "0", "--clips", "0", "--needles", "0"), "at least one"),
    ],
)
def test_bad_numbers_are_refused(arguments, says, capsys) -> None:
    assert main(["scene-qa", *arguments]) == 2
    assert says in capsys.readouterr().err
