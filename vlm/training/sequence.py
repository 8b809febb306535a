"""One sequence per picture: its visual tokens once, then many questions that do not see each other.

The mask and the positions make every question exactly what it is alone: it attends to the pictures
and to itself, and begins where the pictures end. So a dozen questions cost little more than one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vlm.training.mini import GRID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Int64

IGNORED = -100
PADDING = -1


class Asked(NamedTuple):
    """One question as token ids behind the last picture: the question, then the answer."""

    question: tuple[int, ...]
    answer: tuple[int, ...]


class Prefix(NamedTuple):
    """What stands before the questions.

    Attributes:
        ids: tokens, one per picture where its visual tokens go.
        pictures: places of the pictures in `ids`.
    """

    ids: tuple[int, ...]
    pictures: tuple[int, ...]


class Packed(NamedTuple):
    """Questions of one picture, laid end to end and padded.

    Attributes:
        ids: tokens.
        labels: the token that should follow; `IGNORED` where nothing is learnt.
        segment: number of the question, `PADDING` at padding.
        offset: place in its question.
        first: place that predicts the first token of every question's answer, -1 if absent.
    """

    ids: Int64[np.ndarray, " t"]
    labels: Int64[np.ndarray, " t"]
    segment: Int64[np.ndarray, " t"]
    offset: Int64[np.ndarray, " t"]
    first: Int64[np.ndarray, " q"]


def pack(asked: Sequence[Asked], length: int, most: int, pad: int) -> Packed:
    """As many questions as fit into `length` tokens, at most `most`.

    Raises:
        ValueError: when not even the first one fits.
    """
    ids, labels, segment = np.full(length, pad), np.full(length, IGNORED), np.full(length, PADDING)
    offset, first, at = np.zeros(length, np.int64), np.full(most, -1), 0
    for number, one in enumerate(asked[:most]):
        tokens = (*one.question, *one.answer)
        if at + len(tokens) > length:
            break
        end, answer = at + len(tokens), at + len(one.question)
        ids[at:end], segment[at:end], offset[at:end] = tokens, number, np.arange(len(tokens))
        labels[answer - 1 : end - 1] = one.answer
        first[number] = answer - 1
        at = end
    if at == 0:
        raise ValueError(f"a question does not fit into {length} tokens: raise the recipe's")
    return Packed(ids, labels, segment, offset, first)


def prefix_positions(prefix: Prefix, grid: int) -> Int64[np.ndarray, " s"]:
    """Rotary positions of the prefix as in the final layout, also while the grid is coarser."""
    step = GRID // grid
    line = np.arange(0, GRID, step)
    inside = (line[:, None] * GRID + line).ravel()
    positions, at = [], 0
    for place in range(len(prefix.ids)):
        if place in prefix.pictures:
            positions.append(at + inside)
            at += GRID * GRID
        else:
            positions.append(np.array([at]))
            at += 1
    return np.concatenate(positions)


def end_position(prefix: Prefix) -> int:
    """Where a question begins."""
    return len(prefix.ids) + len(prefix.pictures) * (GRID * GRID - 1)


def attention_mask(segment: Int64[np.ndarray, "b t"], prefix: int) -> Bool[np.ndarray, "b 1 s s"]:
    """True where a row may look: back, at the prefix and at its own question; padding at itself."""
    batch, text = segment.shape
    whole = np.concatenate([np.full((batch, prefix), PADDING - 1), segment], 1)
    same = whole[:, :, None] == whole[:, None, :]
    before = np.tril(np.ones((prefix + text, prefix + text), bool))
    said = whole[:, :, None] != PADDING
    allowed = before & (same | ((np.arange(prefix + text) < prefix) & said))
    return (allowed | np.eye(prefix + text, dtype=bool))[:, None]
