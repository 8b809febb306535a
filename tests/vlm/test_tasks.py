"""Every reader on a tiny copy in the published format; what is missing or broken says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.vlm import published
from vlm.errors import MissingDataError, TaskError
from vlm.tasks.registry import TASKS, all_tasks, find_task
from vlm.types import LETTER_ANSWER, SHORT_ANSWER, ReadOptions

if TYPE_CHECKING:
    from pathlib import Path

    from vlm.types import Question

OPTIONS = ReadOptions(frames=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    for write in published.WRITERS.values():
        write(folder)
    return folder


def read(root: Path, name: str, split: str = "") -> list[Question]:
    return find_task(name).read(root, ReadOptions(split, 4))


EXPECTED = {
    # name: questions, id, prompt, answers, kind, score of the right answer as a model says it
    "pope": (
        6,
        "random-1",
        f"Is there a snowboard in the image?\n{SHORT_ANSWER}",
        ("yes",),
        "random",
        "Yes.",
    ),
    "gqa": (1, "201307251", f"Is it overcast?\n{SHORT_ANSWER}", ("no",), "verify", "No."),
    "vqav2": (
        1,
        "262148000",
        f"Where is he looking?\n{SHORT_ANSWER}",
        ("down",) * 7 + ("table",) * 3,
        "other",
        "Down",
    ),
    "textvqa": (
        1,
        "34602",
        f"what is the brand?\n{SHORT_ANSWER}",
        ("dakota",) * 9 + ("clos culombu",),
        "",
        "Dakota",
    ),
    "mme": (
        4,
        "existence-000000006040-0",
        "Is there a cat? Please answer yes or no.",
        ("yes",),
        "existence",
        "Yes, it is",
    ),
    "mmbench": (
        3,
        "241",
        f"Which is red?\nA. the apple\nB. the sea\n{LETTER_ANSWER}",
        ("A",),
        "attribute",
        "A",
    ),
    "scienceqa": (
        1,
        "11",
        f"Context: Figures.\nWhich is a solid?\nA. air\nB. rock\n{LETTER_ANSWER}",
        ("B",),
        "natural science",
        "B.",
    ),
    "seedbench": (
        1,
        "101669",
        f"How many towels are there?\nA. One\nB. Two\nC. Three\nD. Four\n{LETTER_ANSWER}",
        ("A",),
        "Instances Counting",
        "(A) One",
    ),
    "chartqa": (
        2,
        "human-0",
        f"How many food items are shown?\n{SHORT_ANSWER}",
        ("14",),
        "human",
        "14.5",
    ),
    "videomme": (
        1,
        "001-1",
        f"How many?\nA. One.\nB. Two.\nC. Three.\nD. Four.\n{LETTER_ANSWER}",
        ("C",),
        "short",
        "Three",
    ),
    "mvbench": (
        3,
        "action_sequence-0",
        f"What happened after?\nA. Ate.\nB. Threw.\nC. Took.\n{LETTER_ANSWER}",
        ("C",),
        "action_sequence",
        "C. Took.",
    ),
    "egoschema": (
        1,
        "0074f737",
        "What is c doing?\nA. choice 0\nB. choice 1\nC. choice 2\nD. choice 3\nE. choice 4\n"
        + LETTER_ANSWER,
        ("D",),
        "",
        "D",
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_published_copy_is_read_and_scored(root: Path, name: str) -> None:
    count, number, prompt, answers, kind, said = EXPECTED[name]
    questions = read(root, name)
    assert len(questions) == count
    first = questions[0]
    assert (first.id, first.prompt, first.answers, first.kind) == (number, prompt, answers, kind)
    assert len({question.id for question in questions}) == count
    task = find_task(name)
    assert task.score(said, first) == pytest.approx(1.0)
    wrong = "There is no such thing" if name == "pope" else "perhaps a giraffe"
    assert task.score(wrong, first) < 0.5
    for question in questions:
        pictures = question.media.load()
        assert 1 <= len(pictures) <= question.media.count
        assert all(one.mode == "RGB" for one in pictures)


def test_every_task_of_the_table_is_a_task() -> None:
    assert [task.name for task in all_tasks()] == list(TASKS)
    assert set(EXPECTED) | {"scene_qa", "scene_clips", "needle"} == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_missing_data_set_says_what_to_put_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"is missing: .*(DATA/|leanvla scene-qa)"):
        find_task(name).read(tmp_path, OPTIONS)


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("pope", "coco_pope_random.json", '{"question": 1}\n'),
        ("pope", "coco_pope_random.json", "{broken\n"),
        ("gqa", "testdev_balanced_questions.json", '{"1": {"question": "a"}}'),
        ("gqa", "testdev_balanced_questions.json", "[1, 2]"),
        ("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", "nothing"),
        ("textvqa", "TextVQA_0.5.1_val.json", "{}"),
        ("seedbench", "SEED-Bench.json", '{"questions": [], "question_type": 3}'),
        ("scienceqa", "pid_splits.json", '{"train": []}'),
        ("egoschema", "questions.json", '[{"q_uid": "0074f737"}]'),
    ],
)
def test_another_format_is_one_sentence(name: str, file: str, text: str, tmp_path: Path) -> None:
    published.WRITERS[name](tmp_path)
    (tmp_path / name / file).write_text(text)
    with pytest.raises(TaskError, match=file):
        find_task(name).read(tmp_path, OPTIONS)


def test_a_broken_or_absent_picture_says_which(root: Path, tmp_path: Path) -> None:
    published.gqa(tmp_path)
    (question,) = read(tmp_path, "gqa")
    path = tmp_path / "gqa/images/n161313.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(TaskError, match=r"n161313\.jpg is no picture"):
        question.media.load()
    path.unlink()
    with pytest.raises(MissingDataError, match=r"n161313\.jpg is missing"):
        question.media.load()


def test_frames_are_taken_by_time(root: Path) -> None:
    by_kind = {question.kind: question for question in read(root, "mvbench")}
    # Grey levels are 20 a second: the middle of four equal shares of seconds 2 to 4.
    levels = [float(np.asarray(f).mean()) for f in by_kind["action_sequence"].media.load()]
    assert levels == pytest.approx([45, 55, 65, 75], abs=4)
    levels = [float(np.asarray(f).mean()) for f in by_kind["moving_count"].media.load()]
    assert levels == pytest.approx([5, 15, 25, 35], abs=4)
    # Three frames a second, level 10 a frame, seconds 1 to 3.
    levels = [float(np.asarray(f).mean()) for f in by_kind["episodic_reasoning"].media.load()]
    assert levels == pytest.approx([30, 50, 60, 80], abs=3)


def test_a_video_that_is_none_says_so(tmp_path: Path) -> None:
    from vlm.video import Video

    path = tmp_path / "a.mp4"
    with pytest.raises(MissingDataError, match="put the video there"):
        Video(path, 4).load()
    path.write_bytes(b"nothing to see")
    with pytest.raises(TaskError, match="is no video"):
        Video(path, 4).load()


def test_a_short_video_gives_each_frame_once(tmp_path: Path) -> None:
    from vlm.video import Video

    path = published.video(tmp_path / "short.mp4", 0.3)
    assert len(Video(path, 8).load()) == 3


def test_rotated_questions_share_a_group_and_a_picture(root: Path) -> None:
    first, rotated, _ = read(root, "mmbench")
    assert first.group == rotated.group == "241"
    assert np.array_equal(*(np.asarray(q.media.load()[0]) for q in (first, rotated)))


def test_a_part_is_chosen_by_its_own_name(root: Path) -> None:
    assert {q.kind for q in read(root, "pope", "popular")} == {"popular"}
    assert read(root, "videomme", "long") == []
    assert len(read(root, "mme", "posters")) == 2
    with pytest.raises(TaskError, match="unknown part 'nothing'"):
        read(root, "mvbench", "nothing")


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(TaskError, match="did you mean 'pope'"):
        find_task("popee")


def test_scene_qa_knows_when_it_was_changed(squares: Path, tmp_path: Path) -> None:
    import shutil

    questions = read(squares, "scene_qa")
    assert questions[0].truth.masks.load(0).shape == (224, 224)
    assert {q.kind.split()[0] for q in questions} == {"existence"}
    copy = tmp_path / "scene_qa" / "heldout"
    shutil.copytree(squares / "scene_qa" / "heldout", copy)
    picture = copy / "images" / "0-0.png"
    picture.write_bytes(picture.read_bytes() + b" ")
    with pytest.raises(TaskError, match="was changed"):
        read(tmp_path, "scene_qa")[0].media.load()
    with (copy / "questions.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(TaskError, match="was changed"):
        read(tmp_path, "scene_qa")
