"""Which methods fit a model and this way of asking, found out before anything is written.

Every question is asked in a session of its own, so nothing is remembered from one to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruning.adapters.errors import AdapterError
from pruning.base import Method, MethodError
from pruning.methods.vla_pruner import VLAPruner
from pruning.types import BudgetError
from pruning.wrappers.base import chain
from vlm.pruned import ask, seed_of

if TYPE_CHECKING:
    from vlm.model import Vlm
    from vlm.pruned import Chooser
    from vlm.runner import Plan
    from vlm.types import Question

REFUSALS = (AdapterError, MethodError, BudgetError)
"""What a method says when it cannot run on a model or a prompt."""

REMEMBER = ("smooth", "reuse")
"""Wrappers that change nothing without an earlier call."""

SAME_ROWS = {"prefill": "prefill_mean", "last": "fastv"}
"""What `vla_pruner` is while its semantic pool stands alone, by the rows of that pool."""


def try_cells(plan: Plan, vlm: Vlm) -> list[str]:
    """Let every cell answer the shortest question of every task; what runs is warm afterwards.

    Returns:
        A sentence per method that does not fit, empty when all do.

    Raises:
        MissingDataError: when a picture is not there.
    """
    found: dict[str, str] = {}
    for task, questions in plan.asked:
        question = min(questions, key=_length)
        inputs = vlm.prepare(question.prompt, question.media.load())
        for cell, method in plan.methods.items():
            if str(cell) in found:
                continue
            try:
                refuse_dense_warmup(cell.method, method)
                ask(vlm, method, inputs, task.max_new_tokens, seed_of(task.name, question.id))
            except REFUSALS as error:
                own = str(error).startswith(cell.method.partition(":")[0])
                found[str(cell)] = str(error) if own else f"{cell.method}: {error}"
    return list(dict.fromkeys(found.values()))


def refuse_dense_warmup(spec: str, method: Chooser) -> None:
    """Refuse what would run dense from the first question to the last.

    Raises:
        MethodError: for a method that prunes nothing until its history is filled.
    """
    rule = method.history if isinstance(method, Method) and method.prunes else None
    if rule is not None and rule.dense_warmup:
        raise MethodError(
            f"it runs dense until it remembers {rule.window} answers to the same question, and "
            f"every question is asked once: take {spec}:warmup=semantic, or leave it out"
        )


def without_history(spec: str, method: Chooser | None) -> str | None:
    """What to say of a method that remembers, where there is nothing to remember; None of others.

    Args:
        spec: the method as it is named in a run.
        method: what it names.
    """
    if not isinstance(method, Method) or not method.prunes:
        return None
    kinds = list(chain(method))
    wraps = any(kind.name in REMEMBER for kind in kinds)
    if "history" not in method.needs and not wraps:
        return None
    parts = [part for part in spec.split("+") if part.partition(":")[0] not in REMEMBER]
    if "history" in method.needs:
        inner = _first_query(parts[-1], kinds[-1])
        if inner is None:
            return "without a history"
        parts[-1] = inner
    return f"without a history: equals {'+'.join(parts)}"


def _first_query(spec: str, method: Method) -> str | None:
    """The method that this one equals at its first query, where there is one."""
    if not isinstance(method, VLAPruner) or method.semantic_rows not in SAME_ROWS:
        return None
    name = SAME_ROWS[method.semantic_rows]
    stays = ("cut=", "row_stride=") if name == "prefill_mean" else ("cut=",)
    return ":".join([name, *(o for o in spec.split(":")[1:] if o.startswith(stays))])


def _length(question: Question) -> tuple[int, int]:
    return question.media.count, len(question.prompt)
