"""Answers on disk: one JSON line each, appended, flushed and synced.

The file is the run's memory. A power cut can tear only its last line, and a torn last line is a
question that was never asked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from vlm.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Self


class Cell(NamedTuple):
    """A method at a budget."""

    method: str
    keep: float

    def __str__(self) -> str:
        """`dense`, or `fastv @ 0.25`."""
        return self.method if self.method == "dense" else f"{self.method} @ {self.keep:g}"


class Record(msgspec.Struct, frozen=True):
    """One answer.

    Attributes:
        task: name of the task.
        id: of the question.
        method: pruning method.
        keep: its budget.
        answer: what was said.
        score: 0 to 1.
        prefill_ms: until the first token.
        decode_ms: every further token.
        prompt_tokens: tokens of the prompt, visual ones included.
        visual_tokens: visual ones.
        kept_tokens: visual ones that live at the last layer.
        layer_tokens: tokens that each decoder layer computed in the prefill.
        selection_ms: time of scores and selections, part of `prefill_ms`.
        peak_memory_mb: of the GPU for this answer; None on a CPU.
        recall: of the patches of what was asked about; mean over the pictures that show it.
        iou: likewise.
        precision_omega: share of the kept patches on what was asked about or the gripper.
        omega_share: what chance would give for it.
    """

    task: str
    id: str
    method: str
    keep: float
    answer: str
    score: float
    prefill_ms: float
    decode_ms: list[float]
    prompt_tokens: int
    visual_tokens: int
    kept_tokens: int
    layer_tokens: list[int]
    selection_ms: float
    peak_memory_mb: float | None
    recall: float | None = None
    iou: float | None = None
    precision_omega: float | None = None
    omega_share: float | None = None

    @property
    def cell(self) -> Cell:
        """Method and budget."""
        return Cell(self.method, self.keep)

    @property
    def query_ms(self) -> float:
        """The whole answer."""
        return self.prefill_ms + sum(self.decode_ms)


_DECODER = msgspec.json.Decoder(Record)


class AnswerStore:
    """The answers of one run. A context manager; membership by (task, question, cell).

    Args:
        path: `answers.jsonl`; read when it exists, created when not.

    Raises:
        RunError: when a line other than the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._records: dict[tuple[str, str, Cell], Record] = {}
        self.notice: str | None = None
        good = self._load(path) if path.exists() else 0
        self._file = path.open("ab")
        self._file.truncate(good)

    def __enter__(self) -> Self:
        """The file is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """Answers."""
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """Answers in the order in which they were given."""
        return iter(self._records.values())

    def __contains__(self, key: tuple[str, str, Cell]) -> bool:
        """Whether this cell answered this question."""
        return key in self._records

    def of(self, task: str, cell: Cell) -> dict[str, Record]:
        """Answers of a cell by question."""
        return {r.id: r for r in self if r.task == task and r.cell == cell}

    def append(self, record: Record) -> None:
        """Write one answer; when this returns it survives a power cut.

        Raises:
            RunError: when this cell has answered this question already.
        """
        key = (record.task, record.id, record.cell)
        if key in self._records:
            raise RunError(f"{record.cell} has answered {record.task} {record.id} already")
        self._file.write(msgspec.json.encode(record) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._records[key] = record

    def _load(self, path: Path) -> int:
        """Read all whole lines and return how many bytes of the file are good."""
        good = 0
        lines = path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            record = _decode(line)
            if record is None:
                if number < len(lines):
                    raise RunError(
                        f"{path} line {number} is damaged: remove the line, or choose another --out"
                    )
                self.notice = f"{path.name}: dropped a torn last line; it is asked again"
                break
            self._records[record.task, record.id, record.cell] = record
            good += len(line)
        return good


def _decode(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
