"""The OpenVLA family as a policy: an observation in, an action chunk out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from policy.openvla.adapter import PolicySession
from policy.openvla.config import load_config
from policy.openvla.contract import Contract
from policy.openvla.runtime import Query, Runtime
from policy.openvla.shared import shared_network
from policy.openvla.stopwatch import Stopwatch
from policy.openvla.tokenizer import PromptTokenizer
from policy.types import Inference, Timing
from pruning.registry import make_method
from pruning.runtime import Pruner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.model import OpenVLAModel
    from policy.openvla.runtime import Answer
    from policy.types import ActionChunk, Observation
    from pruning.base import Method
    from pruning.history import PrunerState


class OpenVLAPolicy(Contract):
    """A checkpoint of the OpenVLA family, paired with a pruning method.

    Attributes:
        observation_spec: views and proprioception that it reads.
        action_spec: what one action row means.
        execute: rows of a chunk to execute before the next query.
        pruner: the method at work, with its counters.

    Args:
        config: the checkpoint's architecture.
        model: the network, weights in place.
        tokenizer: the checkpoint's tokenizer.
        method: which visual tokens live.
        unnorm_key: data set whose statistics give actions their units; may be left out when the
            checkpoint has one.

    Raises:
        BudgetError: when the method is to keep more tokens than a view has.
        MethodError: when the method cannot run on this decoder.
        UnnormKeyError: when the key is unknown, or left out where there is a choice.
    """

    def __init__(
        self,
        config: OpenVLAConfig,
        model: OpenVLAModel,
        tokenizer: PromptTokenizer,
        method: Method,
        unnorm_key: str | None = None,
    ) -> None:
        method.budget.tokens(config.tokens_per_view)  # refused here, not in the first query
        super().__init__(config, tokenizer, unnorm_key)
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        if config.cut_layer is not None:
            method = method.at_cut(config.cut_layer)
        self.pruner = Pruner(method, config.text.num_hidden_layers, model.causal)
        self.runtime = Runtime(model, self.pruner)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        method: Method | None = None,
        unnorm_key: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> OpenVLAPolicy:
        """Load a checkpoint folder in the published layout.

        Policies from one folder, device and dtype share one read-only network.

        Raises:
            CheckpointError: when a file is missing, damaged, or does not fit the architecture.
        """
        config = load_config(folder)
        model = shared_network(folder, config, device, dtype)
        method = method or make_method("dense", keep=1.0)
        tokenizer = PromptTokenizer(folder, config)
        return cls(config, model, tokenizer, method, unnorm_key)

    @property
    def runs_on(self) -> str:
        """Runtime, device and precision, e.g. `torch cpu float32`."""
        return f"torch {self.device.type} {str(self.dtype).removeprefix('torch.')}"

    def infer(self, observation: Observation, state: PrunerState) -> Inference:
        """Run one query.

        Raises:
            ObservationError: when the observation lacks a view or proprioception, or when its
                instruction makes a longer sequence than the decoder reads.
        """
        return self.infer_batch([observation], [state])[0]

    def infer_batch(
        self, observations: Sequence[Observation], states: Sequence[PrunerState]
    ) -> list[Inference]:
        """Run the queries of several environments in one forward pass.

        Every query keeps the tokens that `infer` would keep. Times are those of the whole pass.

        Raises:
            ObservationError: as `infer`.
        """
        for observation in observations:
            observation.check_against(self.observation_spec)
        clock = Stopwatch(self.runtime.synchronize)
        queries = [self._query(observation) for observation in observations]
        clock.mark("preprocess")
        answers = self.runtime.run_batch(queries, states, clock)
        chunks = [self._chunk(answer) for answer in answers]
        clock.mark("postprocess")
        return [
            Inference(chunk, answer.state, self._timing(answer, clock, len(answers)))
            for chunk, answer in zip(chunks, answers, strict=True)
        ]

    def _timing(self, answer: Answer, clock: Stopwatch, batch: int) -> Timing:
        return Timing(
            query_ms=clock.total_ms,
            phase_ms=clock.phase_ms,
            visual_tokens=len(self.config.views) * self.config.tokens_per_view,
            kept_tokens=sum(len(kept) for kept in answer.kept),
            dense_warmup=answer.dense_warmup,
            sequence_tokens=answer.sequence_tokens,
            kept_sequence_tokens=answer.kept_sequence_tokens,
            spans=tuple(clock.spans),
            layer_sequence_tokens=answer.layer_sequence_tokens,
            batch=batch,
        )

    def pruning_session(self, method: Method) -> PolicySession:
        """What `prune(policy, method)` returns."""
        return PolicySession(self, method)

    def _query(self, observation: Observation) -> Query:
        input_ids = torch.from_numpy(self.prompt_ids(observation.instruction))
        pixels = torch.from_numpy(self.processor(observation.images))
        proprio = self.proprio(observation)
        return Query(
            pixels.to(self.device, self.dtype),
            input_ids.to(self.device),
            None if proprio is None else torch.from_numpy(proprio).to(self.device, self.dtype),
            self.history_key(observation),
            observation.stamp_s,
        )

    def _chunk(self, answer: Answer) -> ActionChunk:
        tokens, values = answer.tokens, answer.values
        return self.chunk(
            None if tokens is None else tokens.cpu().numpy(),
            None if values is None else values.float().cpu().numpy(),
            tuple(view.cpu().numpy() for view in answer.kept),
        )
