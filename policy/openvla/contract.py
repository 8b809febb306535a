"""What a checkpoint of the family reads and says, whatever runs its network. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy.openvla.actions import Normalizer, tokens_to_values
from policy.openvla.processing import ImageProcessor
from policy.openvla.sequence import layout_of
from policy.types import ActionChunk, ActionSpec, ObservationError, ObservationSpec
from pruning.history import HistoryKey, PrunerState, fresh

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from jaxtyping import Float32, Int64

    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.tokenizer import PromptTokenizer
    from policy.types import Observation


class Contract:
    """From an observation to what the network reads, and from its actions to a chunk with units.

    Attributes:
        observation_spec: views and proprioception that it reads.
        action_spec: what one action row means.
        execute: rows of a chunk to execute before the next query.

    Args:
        config: the checkpoint's architecture.
        tokenizer: the checkpoint's tokenizer.
        unnorm_key: data set whose statistics give actions their units; may be left out when the
            checkpoint has one.

    Raises:
        UnnormKeyError: when the key is unknown, or left out where there is a choice.
    """

    def __init__(
        self, config: OpenVLAConfig, tokenizer: PromptTokenizer, unnorm_key: str | None = None
    ) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.normalizer = Normalizer(config, unnorm_key)
        self.processor = ImageProcessor(config)
        self.observation_spec = ObservationSpec(config.views, config.state_names)
        self.action_spec = ActionSpec(
            config.action_names, config.chunk, config.rate_hz, config.rotation, config.gripper
        )
        self.execute = config.execute or config.chunk

    def initial_state(self) -> PrunerState:
        """Nothing remembered."""
        return fresh()

    def history_key(self, observation: Observation) -> HistoryKey:
        """What the pruner's memory of this observation belongs to."""
        grid = self.config.towers[0].grid
        return HistoryKey(
            observation.episode, observation.instruction, (grid, grid), self.config.views
        )

    def prompt_ids(self, instruction: str) -> Int64[np.ndarray, "1 t"]:
        """Prompt of an instruction, BOS first.

        Raises:
            ObservationError: when it makes a longer sequence than the decoder reads.
        """
        ids = self.tokenizer(instruction)
        layout, most = layout_of(self.config, ids.shape[1] - 1), self._most_positions
        decoded = 0 if layout.actions else self.config.dof - 1
        if layout.length + decoded > most:
            raise ObservationError(
                f"instruction is too long: with its {layout.prompt} prompt tokens the sequence has "
                f"{layout.length + decoded}, the decoder reads {most}; say it in fewer words"
            )
        return ids

    def proprio(self, observation: Observation) -> Float32[np.ndarray, "1 p"] | None:
        """Normalised proprioception; None when the checkpoint reads none."""
        if not self.config.proprio_dim or observation.state is None:
            return None
        return self.normalizer.normalize_state(observation.state)[None]

    def chunk(
        self,
        tokens: Int64[np.ndarray, " a"] | None,
        values: Float32[np.ndarray, "chunk dof"] | None,
        kept: Iterable[Int64[np.ndarray, " k"]],
    ) -> ActionChunk:
        """Action tokens, or values, in units; `kept` has a row per view."""
        shape = (self.config.chunk, self.config.dof)
        if values is None and tokens is not None:
            tokens = tokens.reshape(shape)
            values = tokens_to_values(tokens, self.config)
        if values is None:
            raise ValueError("neither action tokens nor values: give one of them")
        return ActionChunk(self.normalizer.unnormalize(values), values, tokens, tuple(kept))

    @property
    def _most_positions(self) -> int:
        return self.config.text.max_position_embeddings
