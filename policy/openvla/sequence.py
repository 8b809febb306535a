"""Where the parts of a sequence lie. No torch here: engines lay sequences out by it, too.

A sequence (OpenVLA-OFT with all parts; the others leave parts out):

    BOS | visual tokens of view 0, view 1, ... | proprio | prompt after BOS | placeholders | stop
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policy.openvla.config import OpenVLAConfig

STOP_ID = 2


@dataclass(frozen=True)
class Layout:
    """Where things lie in a sequence.

    Attributes:
        views: cameras.
        tokens: visual tokens of each.
        proprio: 1 when a proprio token follows the visual ones.
        prompt: prompt tokens without BOS.
        actions: action placeholders (0 when decoding token by token).
    """

    views: int
    tokens: int
    proprio: int
    prompt: int
    actions: int

    @property
    def visual(self) -> int:
        """Visual tokens over all views; they start at position 1."""
        return self.views * self.tokens

    @property
    def text_start(self) -> int:
        """Position of the first prompt token after BOS."""
        return 1 + self.visual + self.proprio

    @property
    def prompt_end(self) -> int:
        """Position after the last prompt token: the first placeholder, when there are any."""
        return self.text_start + self.prompt

    @property
    def length(self) -> int:
        """Tokens in the whole sequence; a stop token closes one that has placeholders."""
        return self.prompt_end + self.actions + (1 if self.actions else 0)

    @property
    def action_rows(self) -> slice:
        """Positions whose outputs are the actions: one *before* each placeholder."""
        return slice(self.prompt_end - 1, self.prompt_end - 1 + max(1, self.actions))


def layout_of(config: OpenVLAConfig, prompt: int) -> Layout:
    """The layout of a query with `prompt` tokens after BOS."""
    parallel = config.decoding == "parallel"
    return Layout(
        views=len(config.views),
        tokens=config.tokens_per_view,
        proprio=1 if config.proprio_dim else 0,
        prompt=prompt,
        actions=config.chunk * config.dof if parallel else 0,
    )
