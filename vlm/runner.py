"""Every question to every cell, one after the other, so that all meet the same machine.

A question is prepared once. Which cell goes first changes from question to question: a machine that
slows down slows all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vlm.pruned import ask, seed_of
from vlm.retained import Retained, retained
from vlm.store import Cell, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Int64
    from numpy import ndarray

    from vlm.model import Answer, Vlm
    from vlm.pruned import Chooser, Trace
    from vlm.store import AnswerStore
    from vlm.tasks.base import Task
    from vlm.types import Question

DENSE = Cell("dense", 1.0)


class Asked(NamedTuple):
    """A task with the questions that are put."""

    task: Task
    questions: list[Question]


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        methods: the cells, dense first.
        asked: tasks with their questions.
    """

    methods: Mapping[Cell, Chooser]
    asked: tuple[Asked, ...]

    @property
    def answers(self) -> int:
        """Answers in all."""
        return len(self.methods) * sum(len(one.questions) for one in self.asked)


def run(
    plan: Plan, vlm: Vlm, store: AnswerStore, report: Callable[[Record], None] | None = None
) -> None:
    """Ask what is missing; cells are warm already, see `vlm.fit`.

    Raises:
        AdapterError: when the model cannot be pruned by a method.
        MissingDataError: when a picture is not there.
    """
    for task, questions in plan.asked:
        for number, question in enumerate(questions):
            cells = [c for c in plan.methods if (task.name, question.id, c) not in store]
            if not cells:
                continue
            pictures = question.media.load()
            inputs = vlm.prepare(question.prompt, pictures)
            turn, seed = number % len(cells), seed_of(task.name, question.id)
            for cell in cells[turn:] + cells[:turn]:
                answer, trace = ask(vlm, plan.methods[cell], inputs, task.max_new_tokens, seed)
                record = _record(task, question, cell, answer, trace, vlm, len(pictures))
                store.append(record)
                if report:
                    report(record)


def look(
    vlm: Vlm, method: Chooser, task: Task, question: Question
) -> tuple[Int64[ndarray, " k"], ...]:
    """Which tokens of every picture lived when this was asked, for pictures in a report.

    Nothing when all do.
    """
    inputs = vlm.prepare(question.prompt, question.media.load())
    return ask(vlm, method, inputs, 1, seed_of(task.name, question.id))[1].kept or ()


def take(questions: Sequence[Question], limit: int) -> list[Question]:
    """About `limit` questions spread evenly over a task; what is judged together stays together.

    0 takes all of them.
    """
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.group or question.id, []).append(question)
    if not 0 < limit < len(questions):
        return list(questions)
    count = max(1, round(limit * len(groups) / len(questions)))
    names = list(groups)
    chosen = [names[i * len(names) // count] for i in range(count)]
    return [question for name in chosen for question in groups[name]]


def _kept_tokens(answer: Answer, trace: Trace) -> int:
    if trace.kept is None:
        return round(answer.visual_tokens * trace.attended)
    return sum(map(len, trace.kept))


def _record(
    task: Task,
    question: Question,
    cell: Cell,
    answer: Answer,
    trace: Trace,
    vlm: Vlm,
    pictures: int,
) -> Record:
    dense = [answer.prompt_tokens] * vlm.decoder.layers
    where = Retained()
    if question.truth is not None and trace.kept is not None:
        where = retained(question.truth, trace.kept, answer.visual_tokens, pictures)
    return Record(
        task=task.name,
        id=question.id,
        method=cell.method,
        keep=cell.keep,
        answer=answer.text,
        score=task.score(answer.text, question),
        prefill_ms=answer.prefill_ms,
        decode_ms=list(answer.decode_ms),
        prompt_tokens=answer.prompt_tokens,
        visual_tokens=answer.visual_tokens,
        kept_tokens=_kept_tokens(answer, trace),
        layer_tokens=list(trace.layer_tokens) or dense,
        selection_ms=trace.selection_ms,
        peak_memory_mb=answer.peak_memory_mb,
        **where._asdict(),
    )
