"""Multiple choice: which option does an answer name? By its letter, else by its text."""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlm.types import Judged, Question

# "(B)", "B.", "B)", "B:" or a bare "B" at the start; "answer is B", "option (B)" anywhere.
_LEADING = re.compile(r"^\W*([A-Z])(?=$|[\s.):,])")
_NAMED = re.compile(r"(?:answer|option|choice)(?:\s+is)?\s*:?\s*\(?([A-Z])\)?(?![A-Za-z])", re.I)


def ask_options(question: str, options: Sequence[str]) -> str:
    """The question with its options, a letter each, one a line."""
    lines = [f"{ascii_uppercase[i]}. {option}" for i, option in enumerate(options)]
    return "\n".join([question, *lines])


def chosen_letter(answer: str, options: Sequence[str]) -> str | None:
    """The letter that an answer names; None when it names none or two.

    A leading letter counts first, then `answer is X`, then an option's text: the whole answer, or
    the only option that stands in it.
    """
    letters = ascii_uppercase[: len(options)]
    for found in (_LEADING.search(answer), _NAMED.search(answer)):
        if found and found.group(1).upper() in letters and not _is_article(answer, found):
            return found.group(1).upper()
    said = _plain(answer)
    texts = [_plain(option) for option in options]
    if said in texts:
        return letters[texts.index(said)]
    inside = [
        i for i, text in enumerate(texts) if text and re.search(rf"\b{re.escape(text)}\b", said)
    ]
    return letters[inside[0]] if len(inside) == 1 else None


def _is_article(answer: str, found: re.Match[str]) -> bool:
    """`A man is ...` begins with a word, not with an option."""
    rest = answer[found.end() :]
    return found.re is _LEADING and found.group(1) == "A" and bool(re.match(r"\s+[a-z]", rest))


def _plain(text: str) -> str:
    return " ".join(text.strip().strip(".").lower().split())


def score_option(answer: str, question: Question) -> float:
    """1 when the right letter is named; an answer that names none is wrong."""
    return float(chosen_letter(answer, question.options) == question.answers[0])


def summarise_circular(judged: Sequence[Judged]) -> dict[str, float]:
    """MMBench: a question is right when it is right under every rotation of its options."""
    groups: dict[str, list[float]] = {}
    for one in judged:
        groups.setdefault(one.question.group, []).append(one.score)
    if not groups:
        return {}
    return {"circular_accuracy": sum(min(scores) for scores in groups.values()) / len(groups)}
