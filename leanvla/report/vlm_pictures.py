"""Questions with their pictures: which tokens each method kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leanvla.report.pictures import png
from leanvla.report.rollout import Picture
from sim.video import draw_kept
from vlm.runner import DENSE, look

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vlm.model import Vlm
    from vlm.runner import Plan
    from vlm.tasks.base import Task
    from vlm.types import Question

MOST_FRAMES = 4
SIDE_PX = 224


def overlays(vlm: Vlm, plan: Plan, count: int) -> list[Picture]:
    """A strip for a few questions of every task, one picture per method and frame.

    Pictures are drawn as the processors of square patches see them: squeezed to a square.
    """
    strips = []
    for task, questions in plan.asked:
        for question in _choose(questions, count):
            wanted = question.prompt.partition("\n")[0]
            caption = f"{task.name}: “{wanted}” {question.answers[0]}"
            strips.append(Picture(caption, tuple(_strip(vlm, plan, task, question))))
    return strips


def _choose(questions: Sequence[Question], count: int) -> list[Question]:
    """Spread over the task; where it is known what a question is about, such as show it."""
    telling = [q for q in questions if q.truth is None or any(q.truth.about)] or list(questions)
    number = min(count, len(telling))
    return [telling[i * len(telling) // number] for i in range(number)]


def _strip(vlm: Vlm, plan: Plan, task: Task, question: Question) -> Iterator[tuple[str, bytes]]:
    pictures = question.media.load()[:MOST_FRAMES]
    frames = [np.asarray(picture.resize((SIDE_PX, SIDE_PX))) for picture in pictures]
    inputs = vlm.prepare(question.prompt, question.media.load())
    tokens = vlm.count_visual(inputs) // max(question.media.count, 1)
    for cell, method in plan.methods.items():
        if cell == DENSE:
            yield "dense", png(np.hstack(frames))
            continue
        kept = look(vlm, method, task, question)
        drawn = [draw_kept(f, k, tokens) for f, k in zip(frames, kept, strict=False)]
        if drawn:
            yield str(cell), png(np.hstack(drawn))
