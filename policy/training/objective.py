"""What is minimised: softened action tokens, and two auxiliary losses that teach grounding.

Plain behaviour cloning learns to move before it learns which object is meant. Pointing at the
object and the goal in the image, and regressing where they are, fixes that; both heads are dropped
when the policy is saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from policy.openvla.decoder import rope_table
from policy.openvla.model import OpenVLAModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int64, UInt8
    from torch import Tensor

    from policy.openvla.config import OpenVLAConfig
    from policy.training.recipe import Recipe


class Losses(NamedTuple):
    """Parts of the objective, each a mean over the batch."""

    action: Tensor
    grounding: Tensor
    position: Tensor


class TrainingNet(nn.Module):
    """The policy network with its training-only heads, for one stage's shapes.

    Args:
        config: the policy at this stage's patch size.
        grid: visual tokens along one side of the final policy's views.
        weights: weight of each action dimension; equal when empty.
    """

    weights: Float[Tensor, " dof"]

    def __init__(self, config: OpenVLAConfig, grid: int, weights: Sequence[float] = ()) -> None:
        super().__init__()
        width = config.text.hidden_size
        per_dof = torch.tensor(weights or [1.0] * config.dof)
        self.register_buffer("weights", per_dof, persistent=False)
        self.config = config
        self.full_grid = grid
        self.model = OpenVLAModel(config)
        self.pointer = nn.Linear(width, 2)
        self.locator = nn.Linear(width, 6)

    def forward(
        self,
        frames: UInt8[Tensor, "b v h w 3"],
        input_ids: Int64[Tensor, "b t"],
        proprio: Float[Tensor, "b p"],
        actions: Float[Tensor, "b chunk dof"],
        points: Float[Tensor, "b v 2 2"],
        visible: Bool[Tensor, "b v 2"],
        positions: Float[Tensor, "b 6"],
        has_goal: Bool[Tensor, " b"],
        pool: int,
        sigma: float,
    ) -> Losses:
        """The losses of one batch."""
        model = self.model
        text = model.text(input_ids)
        visual = model.see(self.pixels(frames), text)
        pointed = self.pointer(visual).float()
        hidden = self.decode(pool_tokens(visual, pool), text, proprio, actions)
        logits = functional.linear(hidden, model.language_model.lm_head.weight).float()
        located = self.locator(hidden.mean(1)).float()
        return Losses(
            soft_bins(logits, actions.flatten(1), self.config.action_vocab, sigma, self.weights),
            pointing(pointed, points, visible),
            locating(located, positions, has_goal),
        )

    def pixels(self, frames: UInt8[Tensor, "b v h w 3"]) -> Float[Tensor, "b c h w"]:
        """Frames normalised for the tower, channels of the views side by side."""
        tower = self.config.towers[0]
        mean = frames.new_tensor(tower.mean, dtype=torch.float32)
        std = frames.new_tensor(tower.std, dtype=torch.float32)
        pixels = (frames.float() / 255 - mean) / std
        return pixels.permute(0, 1, 4, 2, 3).flatten(1, 2)

    def decode(
        self,
        visual: Float[Tensor, "b v n d"],
        text: Float[Tensor, "b t d"],
        proprio: Float[Tensor, "b p"],
        actions: Float[Tensor, "b chunk dof"],
    ) -> Float[Tensor, "b a d"]:
        """Normalised final states of all action positions."""
        model, config = self.model, self.config
        x = model.sequence(visual, text, proprio)
        position = self.positions(visual, text.shape[1], x.device)
        count = config.chunk * config.dof
        first = x.shape[1] - 1 if model.causal else x.shape[1] - 2 - count
        if model.causal:
            x = torch.cat([x, self.teacher(actions)], 1)
            follow = position[-1] + 1 + torch.arange(count - 1, device=x.device)
            position = torch.cat([position, follow])
        rope = rope_table(config.text, position)
        for layer in model.language_model.model.layers:
            x = layer(x, rope, causal=model.causal).x
        return model.language_model.model.norm(x[:, first : first + count])

    def teacher(self, actions: Float[Tensor, "b chunk dof"]) -> Float[Tensor, "b f d"]:
        """Embeddings of the true action tokens, all but the last (teacher forcing)."""
        bins = self.config.n_action_bins - 1
        index = ((actions.flatten(1)[:, :-1] + 1) / 2 * bins).floor().clamp(0, bins - 1).long()
        tokens = self.config.action_vocab - 1 - index
        return self.model.language_model.model.embed_tokens(tokens)

    def positions(self, visual: Tensor, text: int, device: torch.device) -> Int64[Tensor, " s"]:
        """Rotary positions as in the final layout, also while the visual grid is coarser."""
        grid, coarse = self.full_grid, round(visual.shape[2] ** 0.5)
        step = grid // coarse
        line = torch.arange(0, grid, step, device=device)
        tokens = (line[:, None] * grid + line).flatten()
        per_view = [1 + view * grid * grid + tokens for view in range(visual.shape[1])]
        start = 1 + visual.shape[1] * grid * grid
        config = self.config
        tail = (1 if config.proprio_dim else 0) + text - 1
        tail += 0 if self.model.causal else config.chunk * config.dof
        rest = start + torch.arange(tail, device=device)
        return torch.cat([torch.zeros(1, dtype=torch.long, device=device), *per_view, rest])

    def total(self, losses: Losses, recipe: Recipe) -> Tensor:
        """The weighted sum that is minimised."""
        return (
            losses.action
            + recipe.grounding_weight * losses.grounding
            + recipe.position_weight * losses.position
        )


def pool_tokens(visual: Float[Tensor, "b v n d"], pool: int) -> Float[Tensor, "b v m d"]:
    """Average squares of `pool` x `pool` neighbouring tokens."""
    if pool == 1:
        return visual
    b, v, n, d = visual.shape
    side = round(n**0.5) // pool
    return visual.view(b, v, side, pool, side, pool, d).mean((3, 5)).flatten(2, 3)


def soft_bins(
    logits: Float[Tensor, "b a vocab"],
    target: Float[Tensor, "b a"],
    action_vocab: int,
    sigma_bins: float,
    weights: Float[Tensor, " dof"],
) -> Tensor:
    """Cross-entropy over the whole vocabulary against a Gaussian around the true value's bin."""
    bins = 255
    centre = (torch.arange(bins, device=logits.device) + 0.5) * (2 / bins) - 1
    away = (centre - target.clamp(-1, 1)[..., None]) * (bins / 2 / sigma_bins)
    label = torch.softmax(-0.5 * away**2, -1)
    chosen = logits.log_softmax(-1)[..., action_vocab - bins : action_vocab].flip(-1)
    entropy = -(label * chosen).sum(-1).unflatten(1, (-1, len(weights)))
    return (entropy * weights).mean() / weights.mean()


def pointing(
    logits: Float[Tensor, "b v n 2"],
    points: Float[Tensor, "b v 2 2"],
    visible: Bool[Tensor, "b v 2"],
) -> Tensor:
    """Cross-entropy of the patch that holds each visible point."""
    side = round(logits.shape[2] ** 0.5)
    cell = (points * side).floor().clamp(0, side - 1).long()
    patch = cell[..., 1] * side + cell[..., 0]
    chosen = logits.transpose(2, 3).log_softmax(-1).gather(-1, patch[..., None])[..., 0]
    return -(chosen * visible).sum() / visible.sum().clamp(min=1)


def locating(
    guess: Float[Tensor, "b 6"], truth: Float[Tensor, "b 6"], has_goal: Bool[Tensor, " b"]
) -> Tensor:
    """Squared error of both positions in units of 10 cm; a missing goal does not count."""
    error = ((guess - truth / 0.1) ** 2).view(-1, 2, 3).mean(-1)
    mask = torch.stack([torch.ones_like(has_goal), has_goal], 1)
    return (error * mask).sum() / mask.sum()
