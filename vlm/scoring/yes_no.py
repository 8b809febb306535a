"""Yes or no: POPE's reading of a sentence, its precision and recall; MME's stricter reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlm.types import Judged, Question


def pope_reading(answer: str) -> str:
    """POPE: the first sentence says no when it holds `No`, `no` or `not`, else yes."""
    words = answer.partition(".")[0].replace(",", "").split()
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def score_pope(answer: str, question: Question) -> float:
    """1 when the reading is the label."""
    return float(pope_reading(answer) == question.answers[0])


def summarise_pope(judged: Sequence[Judged]) -> dict[str, float]:
    """POPE's figures with yes as the positive class; 0 where nothing is defined."""
    said = [pope_reading(one.answer) == "yes" for one in judged]
    true = [one.question.answers[0] == "yes" for one in judged]
    hits = sum(s and t for s, t in zip(said, true, strict=True))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(true) if any(true) else 0.0
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "yes_share": sum(said) / len(said) if said else 0.0,
    }


def mme_reading(answer: str) -> str:
    """MME: `yes` or `no` among the first four letters, otherwise `other`."""
    start = answer.strip().lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def score_mme(answer: str, question: Question) -> float:
    """1 when the reading is the label."""
    return float(mme_reading(answer) == question.answers[0])


PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark",
    "artwork", "OCR",
)  # fmt: skip
COGNITION = (
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip


def summarise_mme(judged: Sequence[Judged]) -> dict[str, float]:
    """Accuracy plus accuracy+ of every part in points, 0 to 200; their sums over the two groups.

    Accuracy+ counts pictures both of whose questions are right. A part none of whose questions were
    asked adds nothing to its sum.
    """
    points = {kind: _points(judged, kind) for kind in {one.question.kind for one in judged}}
    totals = {
        "perception": sum(points.get(kind, 0.0) for kind in PERCEPTION),
        "cognition": sum(points.get(kind, 0.0) for kind in COGNITION),
    }
    return totals | {f"points_{kind}": points[kind] for kind in sorted(points)}


def _points(judged: Sequence[Judged], kind: str) -> float:
    mine = [one for one in judged if one.question.kind == kind]
    pictures: dict[str, list[float]] = {}
    for one in mine:
        pictures.setdefault(one.question.group, []).append(one.score)
    both = sum(min(scores) for scores in pictures.values())
    return 100 * (sum(one.score for one in mine) / len(mine) + both / len(pictures))
