"""A tiny `scene_qa` folder, written by hand in its published format: no simulator is needed."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 40), "blue": (30, 60, 230)}


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def draw(rng: np.random.Generator, colours: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Squares of these colours on a grey ground, and their mask (ids from 1)."""
    image = np.full((224, 224, 3), 120, np.uint8)
    mask = np.zeros((224, 224), np.uint8)
    for number, colour in enumerate(colours, 1):
        x, y = 10 + 70 * (number - 1) + rng.integers(0, 30), rng.integers(10, 170)
        image[y : y + 34, x : x + 34] = COLOURS[colour]
        mask[y : y + 34, x : x + 34] = number
    return image, mask


def write_scene_set(folder: Path, scenes: int, clips: int = 0, seed: int = 0) -> Path:
    """A data set of squares: is a colour there, how many are there."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    frames: list[dict] = []
    questions: list[dict] = []
    for number in range(scenes + clips):
        count = 1 if number < scenes else 4
        names = []
        for frame in range(count):
            there = [str(c) for c in rng.permutation(list(COLOURS))[: rng.integers(1, 4)]]
            image, mask = draw(rng, there)
            row = {"file": f"images/{number}-{frame}.png", "mask": f"masks/{number}-{frame}.png"}
            for key, content in (("file", png(image)), ("mask", png(mask))):
                (folder / row[key]).write_bytes(content)
                row[f"{key}_sha256"] = hashlib.sha256(content).hexdigest()
            row["instances"] = {str(i): f"{c} cube" for i, c in enumerate(there, 1)}
            frames.append(row)
            names.append(row["file"])
        task = "image" if count == 1 else "clip"
        common = {"task": task, "seed": number, "frames": names, "seconds": None}
        for which, colour in enumerate(COLOURS):
            is_there = colour in there
            about = [[]] * (count - 1) + [[there.index(colour) + 1] if is_there else []]
            questions.append(
                common
                | {
                    "id": f"{number}-{which}",
                    "kind": "existence" if task == "image" else "moved",
                    "variant": "present" if is_there else "random",
                    "question": f"Is there a {colour} cube in the picture?",
                    "answer": "yes" if is_there else "no",
                    "about": about,
                }
            )
    facts = {"schema": "leanvla.scene_qa/1", "split": "test"}
    for name, rows in (("questions", questions), ("frames", frames)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
        facts[f"{name}_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose `scene_qa/heldout` is a small set of squares, clips too."""
    root = tmp_path_factory.mktemp("data")
    write_scene_set(root / "scene_qa" / "heldout", 12, clips=3)
    return root


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of random weights."""
    from tests.vlm.small import write_small_model

    return write_small_model(tmp_path_factory.mktemp("model") / "small")
