"""Tiny data sets in the published file formats, written by hand."""

from __future__ import annotations

import base64
import csv
import io
import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def picture(path: Path, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), shade, np.uint8)).save(path)
    return path


def video(path: Path, seconds: float, rate_hz: int = 10) -> Path:
    """A video whose frame at time t is grey of level 20 t."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate_hz)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.gop_size = 10
        for number in range(round(seconds * rate_hz)):
            grey = np.full((48, 64, 3), 20 * number / rate_hz, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def lines(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pope(root: Path) -> None:
    name = "COCO_val2014_000000310196.jpg"
    picture(root / "pope/val2014" / name)
    for strategy in ("random", "popular", "adversarial"):
        rows = [
            {
                "question_id": 1,
                "image": name,
                "text": "Is there a snowboard in the image?",
                "label": "yes",
            },
            {
                "question_id": 2,
                "image": name,
                "text": "Is there a car in the image?",
                "label": "no",
            },
        ]
        lines(root / f"pope/coco_pope_{strategy}.json", rows)


def gqa(root: Path) -> None:
    picture(root / "gqa/images/n161313.jpg")
    row = {
        "question": "Is it overcast?",
        "answer": "no",
        "imageId": "n161313",
        "isBalanced": True,
        "types": {"structural": "verify"},
    }
    dump(root / "gqa/testdev_balanced_questions.json", {"201307251": row})


def vqav2(root: Path) -> None:
    picture(root / "vqav2/val2014/COCO_val2014_000000262148.jpg")
    asked = {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000}
    answers = [{"answer": "down", "answer_id": i} for i in range(1, 8)]
    answers += [{"answer": "table", "answer_id": i} for i in range(8, 11)]
    note = {
        "question_id": 262148000,
        "image_id": 262148,
        "answer_type": "other",
        "multiple_choice_answer": "down",
        "answers": answers,
    }
    dump(root / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", {"questions": [asked]})
    dump(root / "vqav2/v2_mscoco_val2014_annotations.json", {"annotations": [note]})


def textvqa(root: Path) -> None:
    picture(root / "textvqa/train_images/003a8ae2ef43b901.jpg")
    row = {
        "question": "what is the brand?",
        "image_id": "003a8ae2ef43b901",
        "question_id": 34602,
        "answers": ["dakota"] * 9 + ["clos culombu"],
    }
    dump(root / "textvqa/TextVQA_0.5.1_val.json", {"data": [row]})


def mme(root: Path) -> None:
    picture(root / "mme/existence/000000006040.jpg")
    say = "Please answer yes or no."
    text = f"Is there a cat? {say}\tYes\nIs there a dog? {say}\tNo\n"
    (root / "mme/existence/000000006040.txt").write_text(text)
    picture(root / "mme/posters/images/tt0048028.png")
    folder = root / "mme/posters/questions_answers_YN"
    folder.mkdir()
    (folder / "tt0048028.txt").write_text(text)


def mmbench(root: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), (200, 10, 10)).save(buffer, "PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    head = [
        "index",
        "question",
        "hint",
        "A",
        "B",
        "C",
        "D",
        "answer",
        "category",
        "image",
        "l2-category",
        "split",
    ]
    rows = [
        [
            "241",
            "Which is red?",
            "nan",
            "the apple",
            "the sea",
            "",
            "",
            "A",
            "attribute",
            image,
            "x",
            "dev",
        ],
        [
            "1000241",
            "Which is red?",
            "nan",
            "the sea",
            "the apple",
            "",
            "",
            "B",
            "attribute",
            "241",
            "x",
            "dev",
        ],
        [
            "252",
            "What follows?",
            "Look at the arrow.",
            "one",
            "two",
            "three",
            "four",
            "C",
            "logic",
            image,
            "x",
            "dev",
        ],
    ]
    path = root / "mmbench/mmbench_dev_20230712.tsv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([head, *rows])


def scienceqa(root: Path) -> None:
    picture(root / "scienceqa/images/test/11/image.png")
    common = {"hint": "Figures.", "subject": "natural science", "split": "test"}
    problems = {
        "11": {
            "question": "Which is a solid?",
            "choices": ["air", "rock"],
            "answer": 1,
            "image": "image.png",
            **common,
        },
        "12": {
            "question": "Which is warm?",
            "choices": ["ice", "fire"],
            "answer": 1,
            "image": None,
            **common,
        },
    }
    dump(root / "scienceqa/problems.json", problems)
    dump(root / "scienceqa/pid_splits.json", {"test": ["11", "12"], "train": []})


def seedbench(root: Path) -> None:
    picture(root / "seedbench/SEED-Bench-image/1454426_2591111986.jpg")
    common = {
        f"choice_{c}": w for c, w in zip("abcd", ("One", "Two", "Three", "Four"), strict=True)
    }
    common |= {"question": "How many towels are there?", "answer": "A", "question_type_id": 5}
    questions = [
        {
            **common,
            "data_id": "1454426_2591111986.jpg",
            "data_type": "image",
            "question_id": "101669",
        },
        {**common, "data_id": "clip.mp4", "data_type": "video", "question_id": "1"},
    ]
    dump(
        root / "seedbench/SEED-Bench.json",
        {"questions": questions, "question_type": {"Instances Counting": 5}},
    )


def chartqa(root: Path) -> None:
    picture(root / "chartqa/test/png/41699051005347.png")
    row = {
        "imgname": "41699051005347.png",
        "query": "How many food items are shown?",
        "label": "14",
    }
    for part in ("human", "augmented"):
        dump(root / f"chartqa/test/test_{part}.json", [row])


def videomme(root: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    video(root / "videomme/data/fFjv93ACGo8.mp4", 3)
    row = {
        "video_id": "001",
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Humanity",
        "url": "u",
        "videoID": "fFjv93ACGo8",
        "question_id": "001-1",
        "task_type": "Counting",
        "question": "How many?",
        "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
        "answer": "C",
    }
    parquet.write_table(pa.Table.from_pylist([row]), root / "videomme/test-00000-of-00001.parquet")


def mvbench(root: Path) -> None:
    video(root / "mvbench/video/star/Charades_v1_480/ZS9XR.mp4", 6)
    video(root / "mvbench/video/clevrer/video_validation/video_10000.mp4", 2)
    for number in range(12):
        picture(
            root / f"mvbench/video/tvqa/frames_fps3_hq/castle/{number + 1:05d}.jpg", 10 * number
        )
    bounded = {
        "video": "ZS9XR.mp4",
        "question": "What happened after?",
        "start": 2.0,
        "end": 4.0,
        "candidates": ["Ate.", "Threw.", "Took."],
        "answer": "Took.",
    }
    whole = {
        "video": "video_10000.mp4",
        "question": "How many move?",
        "candidates": ["0", "3"],
        "answer": "3",
    }
    frames = {
        "video": "castle",
        "question": "Who?",
        "start": 1.0,
        "end": 3.0,
        "candidates": ["Beckett", "Castle"],
        "answer": "Castle",
    }
    dump(root / "mvbench/json/action_sequence.json", [bounded])
    dump(root / "mvbench/json/moving_count.json", [whole])
    dump(root / "mvbench/json/episodic_reasoning.json", [frames])


def egoschema(root: Path) -> None:
    video(root / "egoschema/videos/0074f737.mp4", 2)
    rows = [
        {
            "q_uid": uid,
            "google_drive_id": "x",
            "question": "What is c doing?",
            **{f"option {i}": f"choice {i}" for i in range(5)},
        }
        for uid in ("0074f737", "hidden")
    ]
    dump(root / "egoschema/questions.json", rows)
    dump(root / "egoschema/subset_answers.json", {"0074f737": 3})


WRITERS = {
    f.__name__: f
    for f in (
        pope,
        gqa,
        vqav2,
        textvqa,
        mme,
        mmbench,
        scienceqa,
        seedbench,
        chartqa,
        videomme,
        mvbench,
        egoschema,
    )
}
