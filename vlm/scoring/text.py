"""Exact answers, and ChartQA's numbers that may be five percent off."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlm.types import Question

TOLERANCE = 0.05


def score_exact(answer: str, question: Question) -> float:
    """GQA: the same words, whatever their case, spaces around them or a full stop behind."""
    return float(_plain(answer) in map(_plain, question.answers))


def _plain(text: str) -> str:
    return " ".join(text.strip().rstrip(".").lower().split())


def score_relaxed(answer: str, question: Question) -> float:
    """ChartQA: numbers within 5 % of the right one; anything else word for word."""
    return float(any(relaxed_match(answer, reference) for reference in question.answers))


def relaxed_match(answer: str, reference: str) -> bool:
    """Whether one answer counts; a right value of zero is compared as text, as the authors do."""
    answer, reference = answer.strip().rstrip("."), reference.strip()
    said, right = _number(answer), _number(reference)
    if said is not None and right:
        return abs(said - right) / abs(right) <= TOLERANCE
    return answer.lower() == reference.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
