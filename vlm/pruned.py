"""The one place where this room meets the adapters: a model that prunes, and what it did."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pruning.adapters import prune
from pruning.kv_select import KVSelect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Int64
    from numpy import ndarray

    from pruning.adapters.kv import KVSession
    from pruning.adapters.session import Session
    from pruning.base import Method
    from vlm.model import Answer, Vlm

    Chooser = Method | KVSelect


@dataclass(frozen=True)
class Trace:
    """What pruning did to one question.

    Attributes:
        kept: survivors of every picture at the last layer, as indices into it; None when dense.
        layer_tokens: tokens that each decoder layer computed in the prefill; empty when dense.
        selection_ms: time of scores and selections.
        attended: share of the slots that a query attended to, where slots are elected.
    """

    kept: tuple[Int64[ndarray, " k"], ...] | None = None
    layer_tokens: tuple[int, ...] = ()
    selection_ms: float = 0.0
    attended: float = 1.0


class Watch:
    """Gives the trace of what has run since pruning began."""

    def __init__(self, session: Session | None) -> None:
        self._session = session

    def trace(self) -> Trace:
        """The trace of one question, batch 1."""
        session = self._session
        if session is None:
            return Trace()
        views = session.kept[0] if session.kept else []
        kept = tuple(view.cpu().numpy() for view in views)
        return Trace(kept, tuple(session.counts.tokens_out), session.counts.selection_ms)


class SlotWatch:
    """The same of elected slots; no token leaves."""

    def __init__(self, session: KVSession) -> None:
        self._session = session

    def trace(self) -> Trace:
        """The trace of one question, batch 1."""
        counts = self._session.counts
        return Trace(selection_ms=counts.election_ms, attended=counts.attended_share)


@contextmanager
def pruned(model: Any, method: Chooser, seed: int = 0) -> Iterator[Watch | SlotWatch]:
    """The model with this method inside, for as long as the context lasts.

    Args:
        model: a vision-language model.
        method: what chooses.
        seed: for methods that draw; see `seed_of`.

    Raises:
        AdapterError: when there is no adapter for the model, or the method needs what it lacks.
        MethodError: on leaving, when a method that prunes chose nothing.
    """
    if isinstance(method, KVSelect):
        from pruning.adapters.kv import select_kv

        with select_kv(model, method) as slots:
            yield SlotWatch(slots)
        return
    if not method.prunes:
        yield Watch(None)
        return
    with prune(model, method, seed=seed) as session:
        yield Watch(session)


def seed_of(task: str, question: str) -> int:
    """The seed of a question: another one for another question, the same in every run.

    Every question has a session of its own; with one seed, `random` would be one fixed set.
    """
    return int.from_bytes(sha256(f"{task}\n{question}".encode()).digest()[:4], "big")


def ask(
    vlm: Vlm, method: Chooser, inputs: dict[str, Any], max_new_tokens: int, seed: int
) -> tuple[Answer, Trace]:
    """One answer with a method at work, and what it did; nothing is remembered from before.

    Raises:
        AdapterError: as `pruned`.
        MethodError: as `pruned`.
    """
    with pruned(vlm.model, method, seed) as watch:
        answer = vlm.answer(inputs, max_new_tokens)
        return answer, watch.trace()
