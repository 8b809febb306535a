"""`with prune(policy, VLAPruner(keep=0.25)) as session`: another method for a policy, for a while.

It stands here and not beside the other adapters, since this floor knows those models; `prune` finds
it by `pruning_session`.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from policy.openvla.runtime import Runtime
from pruning.adapters.errors import AdapterError
from pruning.adapters.session import Session
from pruning.runtime import Pruner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policy.openvla.policy import OpenVLAPolicy
    from policy.openvla.runtime import Answer, Query
    from policy.openvla.stopwatch import Stopwatch
    from pruning.base import Method
    from pruning.history import PrunerState


class PolicySession(Session):
    """A policy with another method in place of its own.

    Begin with `policy.initial_state()` inside: a state belongs to the method that made it.

    Raises:
        BudgetError: when the method is to keep more tokens than a view has.
        MethodError: when the method cannot run on this decoder.
    """

    def __init__(self, policy: OpenVLAPolicy, method: Method) -> None:
        config = policy.config
        method.budget.tokens(config.tokens_per_view)
        if config.cut_layer is not None:
            method = method.at_cut(config.cut_layer)
        super().__init__(method)
        self.policy = policy
        self.pruner = Pruner(method, config.text.num_hidden_layers, policy.runtime.model.causal)
        self._own: tuple[Pruner, Runtime] | None = None
        self._prefill: list[int] = []
        self._steps = 0
        self._stack = ExitStack()

    def start(self) -> None:
        """Exchange the runtime."""
        policy = self.policy
        if isinstance(policy.runtime, _Counted):
            raise AdapterError("the policy is being pruned already: leave that session first")
        self._own = policy.pruner, policy.runtime
        self.pruner.calls = 0
        layers = policy.runtime.model.language_model.model.layers
        self.counts.tokens_in = [0] * len(layers)
        self.counts.tokens_out = [0] * len(layers)
        for index, layer in enumerate(layers):
            hook = layer.register_forward_pre_hook(partial(self._pass, index))
            self._stack.callback(hook.remove)
        policy.pruner = self.pruner
        policy.runtime = _Counted(policy.runtime.model, self.pruner, self)

    def stop(self) -> None:
        """Give the policy its own runtime back."""
        self._stack.close()
        if self._own is not None:
            self.policy.pruner, self.policy.runtime = self._own
            self._own = None

    def begin(self) -> None:
        """Queries start."""
        self._prefill, self._steps = [0] * len(self.counts.tokens_in), 0

    def end(self, answers: list[Answer], clock: Stopwatch) -> None:
        """Queries are over: count them."""
        counts, prefill = self.counts, self._prefill
        counts.decode_steps += self._steps
        counts.calls = self.pruner.calls
        counts.dense_warmups = self.pruner.dense_warmup_calls
        counts.selection_ms += clock.phase_ms.get("selection", 0.0)
        counts.prefills += sum(one.kept_sequence_tokens < one.sequence_tokens for one in answers)
        doors = [sum(one.sequence_tokens for one in answers), *prefill[:-1]]
        counts.tokens_in = [a + b for a, b in zip(counts.tokens_in, doors, strict=True)]
        counts.tokens_out = [a + b for a, b in zip(counts.tokens_out, prefill, strict=True)]
        self.kept = [[view.cpu() for view in answer.kept] for answer in answers]

    def _pass(self, index: int, layer: Any, args: tuple[Any, ...]) -> None:
        samples, tokens = args[0].shape[:2]
        if tokens > 1:
            self._prefill[index] += samples * tokens
        elif not index:
            self._steps += samples


class _Counted(Runtime):
    """A runtime that tells its session what happened."""

    def __init__(self, model: Any, pruner: Pruner, session: PolicySession) -> None:
        super().__init__(model, pruner)
        self.session = session

    def run_batch(
        self, queries: Sequence[Query], states: Sequence[PrunerState], clock: Stopwatch
    ) -> list[Answer]:
        """Some queries, counted."""
        self.session.begin()
        answers = super().run_batch(queries, states, clock)
        self.session.end(answers, clock)
        return answers
