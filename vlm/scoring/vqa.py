"""VQA accuracy: ten people answered; three who agree with the model make it right.

The normalisation is that of the VQA challenge, as its evaluation server applies it: punctuation,
number words, articles, contractions. The server compares unanimous answers without it; here it is
always applied, as those who submit do beforehand.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlm.types import Question

NUMBERS = {
    name: str(value)
    for value, name in enumerate(
        "zero one two three four five six seven eight nine ten".split()  # noqa: SIM905
    )
} | {"none": "0"}
ARTICLES = frozenset({"a", "an", "the"})
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

_APOSTROPHES = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll let's "
    "ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't ow's'at "
    "'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've "
    "something'll that'd that'd've that's there'd there'd've there're there's they'd they'd've "
    "they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've "
    "when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't "
    "would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)
CONTRACTIONS = {word.replace("'", ""): word for word in _APOSTROPHES.split()}

_COMMA_NUMBER = re.compile(r"(\d)(,)(\d)")
_FULL_STOP = re.compile(r"(?!<=\d)(\.)(?!\d)")


@lru_cache(maxsize=65536)
def normalise(answer: str) -> str:
    """An answer as it is compared."""
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    return _words(_punctuation(text))


def _punctuation(text: str) -> str:
    """A mark next to a space, or in a text with a grouped number, goes; another becomes a space."""
    result = text
    for mark in PUNCTUATION:
        loose = f"{mark} " in text or f" {mark}" in text or _COMMA_NUMBER.search(text)
        result = result.replace(mark, "" if loose else " ")
    return _FULL_STOP.sub("", result)


def _words(text: str) -> str:
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def score_vqa(answer: str, question: Question) -> float:
    """Mean over the annotators of min(1, agreeing others / 3)."""
    said = normalise(answer)
    others = [normalise(reference) for reference in question.answers]
    agree = sum(other == said for other in others)
    shares = [min(1.0, (agree - (other == said)) / 3) for other in others]
    return sum(shares) / len(shares)
