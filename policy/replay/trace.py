"""What a replay leaves behind: answers without pictures, so that hours fit into memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from policy.replay.run import Moment
    from policy.replay.types import Decision
    from policy.types import ActionChunk, Inference, Timing


class Answer(NamedTuple):
    """One answer: the row it was asked at, the chunk, and where time went."""

    row: int
    number: int
    chunk: ActionChunk
    timing: Timing


@dataclass
class Parity:
    """How many recorded decisions were repeated bit for bit.

    Attributes:
        own: decisions that this very cell had made.
    """

    decisions: int = 0
    own: int = 0
    same_actions: int = 0
    same_kept: int = 0

    def add(self, decision: Decision, chunk: ActionChunk, cell: str) -> None:
        """Compare one answer of `cell` with the recorded one."""
        self.decisions += 1
        self.own += decision.cell == cell
        self.same_actions += _equal(decision.chunk, chunk.actions)
        recorded = [np.asarray(kept, np.int64) for kept in decision.kept]
        same = len(recorded) == len(chunk.kept)
        self.same_kept += same and all(map(np.array_equal, recorded, chunk.kept))


class Digest:
    """A fingerprint of decisions: actions and kept sets, bit for bit, in order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, chunk: ActionChunk) -> None:
        """Take one answer in."""
        self._take(np.ascontiguousarray(chunk.actions, "<f4"))
        for kept in chunk.kept:
            self._take(np.ascontiguousarray(kept, "<i8"))

    def _take(self, array: np.ndarray) -> None:
        self._hash.update(f"{array.dtype.str}{array.shape}".encode())
        self._hash.update(array.tobytes())

    def __str__(self) -> str:
        """Hexadecimal."""
        return self._hash.hexdigest()


@dataclass
class Trace:
    """One cell's answers, in order."""

    name: str
    answers: list[Answer] = field(default_factory=list)
    digest: Digest = field(default_factory=Digest)
    parity: Parity = field(default_factory=Parity)

    def add(self, moment: Moment, inference: Inference) -> None:
        """Take one answer in."""
        chunk = inference.chunk
        self.answers.append(Answer(moment.row, moment.number, chunk, inference.timing))
        self.digest.add(chunk)
        if moment.step.decision is not None:
            self.parity.add(moment.step.decision, chunk, self.name)

    def executed(self, rows: int, execute: int) -> Float32[np.ndarray, "rows dof"]:
        """What would have been executed, row by row; NaN where nobody was asked in time.

        Args:
            rows: recorded rows.
            execute: rows of a chunk that are executed before the next query.
        """
        if not self.answers:
            return np.zeros((rows, 0), np.float32)
        dof = self.answers[0].chunk.actions.shape[1]
        out = np.full((rows, dof), np.nan, np.float32)
        ends = [answer.row for answer in self.answers[1:]] + [rows]
        for answer, end in zip(self.answers, ends, strict=True):
            last = answer is self.answers[-1]
            most = min(end, answer.row + execute) if last else end
            chunk = answer.chunk.actions[: max(0, most - answer.row)]
            out[answer.row : answer.row + len(chunk)] = chunk
        return out

    def kept(self, query: int) -> tuple[Int64[np.ndarray, " k"], ...]:
        """Kept tokens per view of one query."""
        return self.answers[query].chunk.kept


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Bit for bit, NaN included."""
    return one.shape == other.shape and one.tobytes() == other.astype(one.dtype).tobytes()
