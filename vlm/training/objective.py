"""What is minimised: the answers, and two losses that teach where things are.

Plain answer tokens teach a small model to guess before they teach it to look. Naming what lies on
every patch makes the visual tokens readable; pointing from a question to the patches it is about
teaches the decoder to look there. Both heads are dropped when the model is saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from vlm.training.data import CLASSES
from vlm.training.mini import CLIP_MEAN, CLIP_STD, GRID, make_model, mini_config
from vlm.training.sequence import IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jaxtyping import Bool, Float, Int64, UInt8
    from torch import Tensor
    from transformers import LlavaConfig

    from vlm.training.recipe import Recipe

POINTING_LAYER = 4
"""Decoder layer after which the pointing head reads."""

_OBJECT_EMPHASIS = 8.0


class Losses(NamedTuple):
    """Parts of the objective, and the share of answers that are right token by token."""

    answer: Tensor
    patch: Tensor
    pointing: Tensor
    right: Tensor


class TrainingNet(nn.Module):
    """The model with its training-only heads.

    Args:
        pool: side of the square of visual tokens that the decoder sees as one.
        **changes: other values of the architecture.
    """

    def __init__(self, pool: int, **changes: Mapping[str, Any]) -> None:
        super().__init__()
        self.config: LlavaConfig = mini_config(**changes)
        self.model = make_model(self.config)
        width = self.config.text_config.hidden_size
        self.grid = GRID // pool
        self.layer = min(POINTING_LAYER, self.config.text_config.num_hidden_layers)
        self.namer = nn.Linear(width, CLASSES)
        self.asker = nn.Linear(width, width, bias=False)
        self.pointed = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.model.model.language_model.embed_tokens.weight, std=0.5)

    def forward(
        self,
        frames: UInt8[Tensor, "b f h w 3"],
        prefix_ids: Int64[Tensor, " s"],
        pictures: Int64[Tensor, " f"],
        ids: Int64[Tensor, "b t"],
        labels: Int64[Tensor, "b t"],
        first: Int64[Tensor, "b q"],
        positions: Int64[Tensor, "b l"],
        mask: Bool[Tensor, "b 1 l l"],
        classes: Float[Tensor, "b f n c"],
        about: Float[Tensor, "b q f n"],
    ) -> Losses:
        """The losses of one batch."""
        visual = self.see(frames)
        named = self.namer(visual).float()
        x, seen = self.sequence(pool_tokens(visual, self.grid), prefix_ids, pictures, ids)
        lowest = torch.finfo(x.dtype).min
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, lowest)
        out = self.model.model.language_model(
            inputs_embeds=x,
            attention_mask=bias,
            position_ids=positions,
            use_cache=False,
            output_hidden_states=True,
        )
        start = x.shape[1] - ids.shape[1]
        logits = self.model.lm_head(out.last_hidden_state[:, start:]).float()
        middle = out.hidden_states[self.layer]
        return Losses(
            functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED),
            naming(named, classes),
            self.pointing(middle, seen, start, first, pool_shares(about, self.grid)),
            _right(logits, labels),
        )

    def see(self, frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b f n d"]:
        """Visual tokens, as the saved model makes them; its last tower layer is not run."""
        mean, std = (
            frames.new_tensor(CLIP_MEAN, dtype=torch.float32),
            frames.new_tensor(CLIP_STD, dtype=torch.float32),
        )
        pixels = ((frames.flatten(0, 1).float() / 255 - mean) / std).permute(0, 3, 1, 2)
        tower = self.model.model.vision_tower
        tower = getattr(tower, "vision_model", tower)  # one level deeper in transformers 4
        hidden = tower.pre_layrnorm(tower.embeddings(pixels))
        for layer in tower.encoder.layers[: self.config.vision_feature_layer + 1]:
            output = layer(hidden, attention_mask=None, causal_attention_mask=None)
            hidden = output[0] if isinstance(output, tuple) else output
        visual = self.model.model.multi_modal_projector(hidden[:, 1:])
        return visual.unflatten(0, frames.shape[:2])

    def sequence(
        self,
        visual: Float[Tensor, "b f n d"],
        prefix_ids: Int64[Tensor, " s"],
        pictures: Int64[Tensor, " f"],
        ids: Int64[Tensor, "b t"],
    ) -> tuple[Float[Tensor, "b l d"], Int64[Tensor, " v"]]:
        """Decoder inputs, and where the visual tokens stand in them."""
        embed = self.model.model.language_model.embed_tokens
        batch, _, n, _ = visual.shape
        before = embed(prefix_ids).expand(batch, -1, -1)
        parts, seen, at, length = [], [], 0, 0
        for number, place in enumerate(pictures.tolist()):
            parts += [before[:, at:place], visual[:, number].to(before.dtype)]
            length += place - at
            seen.append(length + torch.arange(n, device=visual.device))
            at, length = place + 1, length + n
        x = torch.cat([*parts, before[:, at:], embed(ids)], 1)
        return x, torch.cat(seen)

    def pointing(
        self,
        hidden: Float[Tensor, "b l d"],
        seen: Int64[Tensor, " v"],
        start: int,
        first: Int64[Tensor, "b q"],
        about: Float[Tensor, "b q f n"],
    ) -> Tensor:
        """Cross-entropy between where a question looks and where its objects are."""
        asks = (first >= 0) & (about.sum((2, 3)) > 0)
        rows = (first.clamp_min(0) + start)[..., None].expand(-1, -1, hidden.shape[-1])
        query = self.asker(hidden.gather(1, rows))
        key = self.pointed(hidden[:, seen])
        looks = (query @ key.transpose(1, 2)).float() * query.shape[-1] ** -0.5
        target = about.flatten(2)
        target = target / target.sum(-1, keepdim=True).clamp_min(1e-6)
        loss = -(target * looks.log_softmax(-1)).sum(-1)
        return (loss * asks).sum() / asks.sum().clamp_min(1)

    def total(self, losses: Losses, recipe: Recipe) -> Tensor:
        """The weighted sum that is minimised."""
        return (
            losses.answer
            + recipe.patch_weight * losses.patch
            + recipe.pointing_weight * losses.pointing
        )


def naming(logits: Float[Tensor, "b f n c"], shares: Float[Tensor, "b f n c"]) -> Tensor:
    """Cross-entropy against what covers a patch; patches with objects weigh more."""
    entropy = -(shares * logits.log_softmax(-1)).sum(-1)
    weight = 1 + _OBJECT_EMPHASIS * (1 - shares[..., 0])
    return (entropy * weight).sum() / weight.sum()


def pool_tokens(visual: Float[Tensor, "b f n d"], grid: int) -> Float[Tensor, "b f m d"]:
    """Means over squares of neighbouring tokens."""
    return pool_shares(visual.transpose(2, 3), grid).transpose(2, 3)


def pool_shares(shares: Float[Tensor, "b x f n"], grid: int) -> Float[Tensor, "b x f m"]:
    """What patches carry on a coarser grid: means over squares of fine ones."""
    if grid == GRID:
        return shares
    step = GRID // grid
    square = shares.unflatten(-1, (grid, step, grid, step))
    return square.mean((-3, -1)).flatten(-2)


def _right(logits: Float[Tensor, "b t v"], labels: Int64[Tensor, "b t"]) -> Tensor:
    learnt = labels != IGNORED
    return ((logits.argmax(-1) == labels) & learnt).sum() / learnt.sum().clamp_min(1)
