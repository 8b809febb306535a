"""One sequence on its way through the decoder, from embeddings to actions.

Tokens keep the rotary phase of their original position, also after others have left, and an
autoregressive decode goes on from the original numbering.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from policy.openvla.decoder import KeyValue, rope_table
from pruning.attention_rows import attention_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float, Int64
    from torch import Tensor

    from policy.openvla.model import OpenVLAModel
    from policy.openvla.sequence import Layout
    from policy.openvla.stopwatch import Stopwatch

Decoded = tuple["Tensor | None", "Tensor | None"]


class Probe(NamedTuple):
    """Rotated queries and keys of a layer, for attention rows on the side."""

    q: Float[Tensor, "1 h s d"]
    k: Float[Tensor, "1 kv s d"]


class Walk:
    """The mutable part of one query; it lives as long as the query.

    Args:
        model: the network.
        layout: where things lie in the sequence.
        action_layer: layer whose action rows are remembered, None for none.
    """

    def __init__(self, model: OpenVLAModel, layout: Layout, action_layer: int | None) -> None:
        self.model, self.layout = model, layout
        self.layers = model.language_model.model.layers
        self.action_layer = action_layer
        self.kept: Int64[Tensor, "v k"] | None = None
        self.caches: list[KeyValue] = []
        self._decoded: list[Float[Tensor, "1 h 1 d"]] = []
        self._at_cut: Probe | None = None
        self._at_action: Probe | None = None
        self._kept_at_action: Int64[Tensor, "v k"] | None = None

    def enter(self, x: Float[Tensor, "1 s d"]) -> None:
        """Start with the embedded sequence."""
        self.x = x
        self.rope = rope_table(self.model.config.text, torch.arange(x.shape[1], device=x.device))

    def through(self, layers: Iterable[int], probe: int | None = None) -> None:
        """Run some layers; remember queries and keys of layer `probe` and of the action layer."""
        causal = self.model.causal
        for index in layers:
            out = self.layers[index](self.x, self.rope, causal=causal)
            self.x = out.x
            if causal:
                self.caches.append(out.cache)
            if index == probe:
                self._at_cut = Probe(out.q, out.cache.k)
            if index == self.action_layer:
                self._at_action = Probe(out.q, out.cache.k)
                self._kept_at_action = self.kept

    def attention_at_cut(self, kinds: Iterable[str], stride: int) -> dict[str, Tensor]:
        """Mean attention `[views, n]` that visual tokens get from rows of each kind.

        `action` rows are the ones whose outputs are the actions: one before each placeholder. (The
        released OFT code averages over the placeholders themselves, the same rows but one.)
        """
        layout, probe = self.layout, _probed(self._at_cut)
        spans = {
            "last": slice(layout.prompt_end - 1, layout.prompt_end),
            "prefill": slice(0, layout.prompt_end),
            "text": slice(layout.text_start, layout.prompt_end),
            "action": layout.action_rows,
        }
        rows = attention_rows(
            probe.q,
            probe.k,
            {kind: spans[kind] for kind in kinds},
            slice(1, 1 + layout.visual),
            causal=self.model.causal,
            row_stride=stride,
        )
        return {kind: row.view(layout.views, layout.tokens) for kind, row in rows.items()}

    def keep_only(self, kept: Int64[Tensor, "v k"]) -> None:
        """Let the other visual tokens leave; all tokens that are not visual stay."""
        first, offset, rest = _frame(self.layout, self.x.device)
        self.kept = kept
        index = torch.cat([first, (kept + offset).view(-1), rest])
        self.x = self.x.index_select(1, index)
        self.rope = self.rope.at(index)

    @property
    def gone(self) -> int:
        """Visual tokens that left."""
        return 0 if self.kept is None else self.layout.visual - self.kept.numel()

    def survivors(self) -> Int64[Tensor, "v k"]:
        """Indices of the visual tokens of every view that reached the last layer."""
        return self._all() if self.kept is None else self.kept

    def parallel(self, clock: Stopwatch) -> Decoded:
        """All actions from one forward: token ids `[chunk * dof]`, or values `[chunk, dof]`."""
        model, rows = self.model, self._moved(self.layout.action_rows)
        if model.action_head is not None:
            hidden = model.language_model.model.norm(self.x[:, rows])
            values = model.action_head(hidden)[0]
            clock.mark("head")
            return None, values
        tokens = model.language_model.logits(self.x[:, rows])[0].argmax(-1)
        clock.mark("head")
        return tokens, None

    def decode(self, clock: Stopwatch) -> Decoded:
        """Action tokens one by one, greedily, on the key-value cache."""
        model, language = self.model, self.model.language_model
        token = language.logits(self.x[:, -1:])[0].argmax(-1)
        tokens = [token]
        for step in range(model.config.dof - 1):
            position = torch.tensor([self.layout.prompt_end + step], device=token.device)
            token = self._next(token, position)
            tokens.append(token)
        clock.mark("decode")
        return torch.cat(tokens), None

    def action_attention(self) -> tuple[Float[Tensor, "v k"], Int64[Tensor, "v k"]]:
        """Mean attention of the action rows, and the tokens that their layer saw."""
        probe, causal = _probed(self._at_action), self.model.causal
        seen = self._all() if self._kept_at_action is None else self._kept_at_action
        q, k = probe.q, probe.k
        if causal and self.action_layer is not None:
            # The last prompt row and every decoded one: the last rows before the last key.
            q, k = torch.cat([q[:, :, -1:], *self._decoded], 2), self.caches[self.action_layer].k
        else:
            q = q[:, :, self._moved_at_action(self.layout.action_rows)]
        visual = slice(1, 1 + seen.numel())
        mean = attention_rows(q, k, {"action": slice(None)}, visual, causal=causal)
        return mean["action"].view(seen.shape), seen

    def _next(self, token: Int64[Tensor, " 1"], position: Int64[Tensor, " 1"]) -> Tensor:
        language = self.model.language_model
        x = language.model.embed_tokens(token)[None]
        rope = rope_table(self.model.config.text, position)
        for index, layer in enumerate(self.layers):
            out = layer(x, rope, causal=True, past=self.caches[index])
            x, self.caches[index] = out.x, out.cache
            if index == self.action_layer:
                self._decoded.append(out.q)
        return language.logits(x)[0].argmax(-1)

    def _all(self) -> Int64[Tensor, "v n"]:
        every = torch.arange(self.layout.tokens, device=self.x.device)
        return every.expand(self.layout.views, -1)

    def _moved(self, rows: slice) -> slice:
        return slice(rows.start - self.gone, rows.stop - self.gone)

    def _moved_at_action(self, rows: slice) -> slice:
        gone = 0 if self._kept_at_action is None else self.gone
        return slice(rows.start - gone, rows.stop - gone)


@lru_cache(maxsize=16)
def _frame(layout: Layout, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Indices that no selection changes: BOS, where each view starts, and all after the views."""
    with torch.inference_mode(False):
        every = torch.arange(layout.length, device=device)
        starts = every[1 : 1 + layout.visual : layout.tokens, None]
        return every[:1], starts, every[1 + layout.visual :]


def _probed(probe: Probe | None) -> Probe:
    if probe is None:
        raise RuntimeError("no queries and keys remembered: run `through` over the probed layer")
    return probe
