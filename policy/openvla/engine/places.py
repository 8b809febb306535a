"""Where the tokens of a padded prompt stand, for graphs whose shapes never change.

A prompt of `t` tokens is padded *on its left* to the `P` that the engine was built for:

    BOS | visual tokens | proprio | padding (P - t) | prompt (t) | placeholders | stop

so that every other part, and the last prompt row above all, has one index for every instruction.
Positions are the true ones, padding is no key of anybody and no row of any mean: results equal
those of the sequence without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from torch import Tensor

    from policy.openvla.sequence import Layout

HIDDEN = -1e9
"""Added to a logit that must not count: finite, since minus infinity in half precision gives NaN
where a row sees nothing; small enough that its probability is exactly 0 in fp32."""
HIDDEN_HALF = -6e4


class Places(NamedTuple):
    """What stands at each index of the padded sequence.

    Attributes:
        real: False at padding.
        position: true position, for rotary phases; 0 at padding.
    """

    real: Bool[Tensor, " s"]
    position: Int64[Tensor, " s"]

    def at(self, index: Int64[Tensor, " k"]) -> Places:
        """What stands at some of the indices."""
        return Places(self.real[index], self.position[index])

    def mask(self, causal: bool, dtype: torch.dtype) -> Float[Tensor, "1 1 q s"]:
        """What to add to attention logits: 0 where a row may look."""
        count = len(self.real)
        if not causal:  # one row, repeated: a square of choices costs more than a norm
            return self.row(dtype).expand(-1, -1, count, -1)
        before = torch.ones(count, count, dtype=torch.bool, device=self.real.device).tril()
        return as_bias(self.real & before, dtype)[None, None]

    def row(self, dtype: torch.dtype) -> Float[Tensor, "1 1 1 s"]:
        """The row that all rows of a mask are that is not causal."""
        return as_bias(self.real, dtype)[None, None, None]


def places(layout: Layout, prompt: Int64[Tensor, " 1"]) -> Places:
    """The places of a sequence padded to `layout.prompt` whose prompt has `prompt` tokens."""
    index = torch.arange(layout.length, device=prompt.device)
    padding = layout.prompt - prompt
    start = layout.text_start
    real = (index < start) | (index >= start + padding)
    position = torch.where(index < start, index, (index - padding).clamp_min(0))
    return Places(real, torch.where(real, position, 0))


def as_bias(seen: Bool[Tensor, ...], dtype: torch.dtype) -> Float[Tensor, ...]:
    """0 where something is seen, else a number so low that its probability vanishes."""
    low = HIDDEN_HALF if dtype == torch.float16 else HIDDEN
    return torch.where(seen, 0.0, low).to(dtype)
