"""The OpenVLA family as a policy: an observation in, an action chunk out."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from policy.openvla.actions import Normalizer, tokens_to_values
from policy.openvla.config import load_config
from policy.openvla.processing import ImageProcessor
from policy.openvla.runtime import Query, Runtime
from policy.openvla.shared import shared_network
from policy.openvla.stopwatch import Stopwatch
from policy.openvla.tokenizer import PromptTokenizer
from policy.types import (
    ActionChunk,
    ActionSpec,
    Inference,
    Observation,
    ObservationError,
    ObservationSpec,
    Timing,
)
from pruning.history import HistoryKey, PrunerState, fresh
from pruning.registry import make_method
from pruning.runtime import Pruner

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.model import OpenVLAModel
    from policy.openvla.runtime import Answer
    from pruning.base import Method


class OpenVLAPolicy:
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
        self.config, self.tokenizer = config, tokenizer
        self.normalizer = Normalizer(config, unnorm_key)
        self.processor = ImageProcessor(config)
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        if config.cut_layer is not None:
            method = method.at_cut(config.cut_layer)
        self.pruner = Pruner(method, config.text.num_hidden_layers, model.causal)
        self.runtime = Runtime(model, self.pruner)
        self.observation_spec = ObservationSpec(config.views, config.state_names)
        self.action_spec = ActionSpec(
            config.action_names, config.chunk, config.rate_hz, config.rotation, config.gripper
        )
        self.execute = config.execute or config.chunk

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

    def initial_state(self) -> PrunerState:
        """Nothing remembered."""
        return fresh()

    def infer(self, observation: Observation, state: PrunerState) -> Inference:
        """Run one query.

        Raises:
            ObservationError: when the observation lacks a view or proprioception, or when its
                instruction makes a longer sequence than the decoder reads.
        """
        observation.check_against(self.observation_spec)
        clock = Stopwatch(self.runtime.synchronize)
        query = self._query(observation)
        clock.mark("preprocess")
        answer = self.runtime.run(query, state, clock)
        chunk = self._chunk(answer)
        clock.mark("postprocess")
        timing = Timing(
            query_ms=clock.total_ms,
            phase_ms=clock.phase_ms,
            visual_tokens=len(self.config.views) * self.config.tokens_per_view,
            kept_tokens=sum(len(kept) for kept in answer.kept),
            dense_warmup=answer.dense_warmup,
            sequence_tokens=answer.sequence_tokens,
            kept_sequence_tokens=answer.kept_sequence_tokens,
            layer_sequence_tokens=answer.layer_sequence_tokens,
        )
        return Inference(chunk, answer.state, timing)

    def _query(self, observation: Observation) -> Query:
        input_ids = torch.from_numpy(self.tokenizer(observation.instruction))
        self._check_length(input_ids)
        pixels = torch.from_numpy(self.processor(observation.images))
        proprio = None
        if self.config.proprio_dim and observation.state is not None:
            proprio = torch.from_numpy(self.normalizer.normalize_state(observation.state)[None])
            proprio = proprio.to(self.device, self.dtype)
        grid = self.config.towers[0].grid
        key = HistoryKey(
            observation.episode, observation.instruction, (grid, grid), self.config.views
        )
        return Query(
            pixels.to(self.device, self.dtype),
            input_ids.to(self.device),
            proprio,
            key,
            observation.stamp_s,
        )

    def _check_length(self, input_ids: Tensor) -> None:
        layout, most = (
            self.runtime.model.layout(input_ids),
            self.config.text.max_position_embeddings,
        )
        length = layout.length + (
            0 if layout.actions else self.config.dof - 1
        )  # decoded one by one
        if length > most:
            raise ObservationError(
                f"instruction is too long: with its {layout.prompt} prompt tokens the sequence has "
                f"{length}, the decoder reads {most}; say it in fewer words"
            )

    def _chunk(self, answer: Answer) -> ActionChunk:
        shape = (self.config.chunk, self.config.dof)
        tokens = None
        if answer.values is not None:
            values = answer.values.float().cpu().numpy()
        else:
            tokens = cast("Tensor", answer.tokens).cpu().numpy().reshape(shape)
            values = tokens_to_values(tokens, self.config)
        kept = tuple(view.cpu().numpy() for view in answer.kept)
        return ActionChunk(self.normalizer.unnormalize(values), values, tokens, kept)
