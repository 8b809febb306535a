"""A stretch of time in which a model is pruned, and the proof that it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pruning.base import MethodError

if TYPE_CHECKING:
    from types import TracebackType

    from jaxtyping import Int64
    from torch import Tensor
    from typing_extensions import Self

    from pruning.base import Method


@dataclass
class Counts:
    """What happened since the session was entered.

    Attributes:
        calls: selections made, one per cut and group of equal views.
        prefills: forward passes in which visual tokens left.
        dense_warmups: prefills that ran dense to fill a history.
        passes_without_vision: prefills that had no visual token.
        decode_steps: forward passes on a cache that a prefill had pruned.
        selection_ms: time of scores, selections and gathers, milliseconds; on an accelerator
            complete after leaving.
        tokens_in: real tokens before each decoder layer's door, summed over `prefills`.
        tokens_out: real tokens that each layer computed.
    """

    calls: int = 0
    prefills: int = 0
    dense_warmups: int = 0
    passes_without_vision: int = 0
    decode_steps: int = 0
    selection_ms: float = 0.0
    tokens_in: list[int] = field(default_factory=list)
    tokens_out: list[int] = field(default_factory=list)


class Session:
    """Base of all sessions: counters, and what leaving means.

    Attributes:
        method: what chooses.
        counts: what happened so far.
        kept: survivors at the last layer of the last prefill: per sample, per view, the indices
            into the view, sorted; empty before one, and where the method keeps everything.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self.counts = Counts()
        self.kept: list[list[Int64[Tensor, " k"]]] = []

    def __enter__(self) -> Self:
        """Start pruning; counters start at zero."""
        self.counts, self.kept = Counts(), []
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop pruning.

        Raises:
            MethodError: when a method that prunes never chose anything.
        """
        self.stop()
        if kind is None and self.method.prunes and not self.counts.calls:
            raise MethodError(
                f"{self.method.name} at keep {self.method.keep} never selected a token "
                f"({self.counts.passes_without_vision} passes without visual tokens, "
                f"{self.counts.dense_warmups} dense ones to fill a history): the result is not a "
                "pruned one"
            )

    def start(self) -> None:
        """Make the model prune."""
        raise NotImplementedError(f"{type(self).__name__} must define start() and stop()")

    def stop(self) -> None:
        """Leave the model as it was; must not fail half-way."""
        raise NotImplementedError(f"{type(self).__name__} must define start() and stop()")
