"""What a method may look at, as tensors that leave a graph: `Sight` for a padded prompt.

Padding is no key of a row and no row of a mean; a method that gets rows themselves gets a mask too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from policy.openvla.decoder import rotate
from policy.openvla.engine.spans import NEXT
from pruning.attention_rows import THINNED, attention_rows, weighted_mean
from pruning.base import ROW_KINDS
from pruning.qk import mean_product, row_attention

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from jaxtyping import Float, Int64
    from torch import Tensor

    from policy.openvla.decoder import DecoderLayer, Rope
    from policy.openvla.engine.places import Places
    from policy.openvla.sequence import Layout
    from policy.openvla.vision import TowerProbe


PADDED = ("prefill", "text")
"""Row kinds among which padding is."""


class Frame(NamedTuple):
    """The sequence as it is at some layers.

    Attributes:
        layout: with the longest prompt.
        tokens: visual tokens of each view that are there.
        causal: rows see earlier keys only.
    """

    layout: Layout
    tokens: int
    causal: bool

    @property
    def gone(self) -> int:
        """Visual tokens that left."""
        return self.layout.views * (self.layout.tokens - self.tokens)

    @property
    def visual(self) -> slice:
        """Where the visual tokens are."""
        return slice(1, 1 + self.layout.views * self.tokens)

    @property
    def text(self) -> slice:
        """Where the prompt is, its padding included."""
        return self.moved(slice(self.layout.text_start, self.layout.prompt_end))

    @property
    def length(self) -> int:
        """Tokens in all."""
        return self.layout.length - self.gone

    def moved(self, rows: slice) -> slice:
        """Where rows behind the visual tokens are now."""
        return slice(rows.start - self.gone, rows.stop - self.gone)

    def by_view(self, row: Float[Tensor, "1 m"]) -> Float[Tensor, "v n"]:
        """One number per visual token, view by view."""
        return row.view(self.layout.views, self.tokens)


def row_means(
    frame: Frame,
    probe: tuple[Tensor, Tensor],
    kinds: Iterable[str],
    there: Places,
    stride: int = 1,
) -> dict[str, Float[Tensor, "v n"]]:
    """Mean attention that visual tokens get from rows of each kind."""
    rows = {kind: _rows(frame, kind, stride) for kind in kinds}
    weights = {
        kind: _weights(frame, kind, index, stride, there)
        for kind, index in rows.items()
        if kind in PADDED
    }
    means = attention_rows(
        *probe, rows, frame.visual, causal=frame.causal, key_mask=there.real[None],
        row_weights=weights,
    )  # fmt: skip
    return {kind: frame.by_view(row) for kind, row in means.items()}


def shown_means(
    frame: Frame,
    probabilities: Float[Tensor, "1 h s s"],
    kinds: Iterable[str],
    there: Places,
    stride: int = 1,
) -> dict[str, Float[Tensor, "v n"]]:
    """`row_means` of a layer that shows its attention: one product, nothing computed again."""
    at, means = torch.arange(frame.length), {}
    for kind in kinds:
        rows = _span(frame, kind)
        member = ((at >= rows.start) & (at < rows.stop)).float()
        weights = member * _weights(frame, kind, at, stride, there)
        means[kind] = frame.by_view(weighted_mean(probabilities, weights, frame.visual))
    return means


class Probe(NamedTuple):
    """What a layer leaves for its rows to be read.

    Attributes:
        q: rotated queries.
        k: rotated keys.
        shown: its attention, where it was written out.
    """

    q: Float[Tensor, "1 h s d"]
    k: Float[Tensor, "1 kv s d"]
    shown: Float[Tensor, "1 h s s"] | None


def probed(
    frame: Frame, probe: Probe, needs: Collection[str], there: Places, stride: int
) -> dict[str, Tensor]:
    """What queries and keys of the last full layer tell."""
    kinds, (q, k, shown) = sorted(ROW_KINDS & set(needs)), probe
    means: dict[str, Tensor] = {}
    if kinds and shown is not None:
        means = shown_means(frame, shown, kinds, there, stride)
    elif kinds:
        means = row_means(frame, (q, k), kinds, there, stride)
    found = {f"attention_{kind}": row for kind, row in means.items()}
    if "text_rows" in needs:
        hidden = ~there.real.expand(frame.layout.prompt, -1)
        if frame.causal:
            at = torch.arange(frame.length)
            hidden = hidden | (at > at[frame.text, None])
        found["text_rows"] = row_attention(q[:, :, frame.text], k, frame.visual, hidden)[0]
    if "heads" in needs:
        found["heads_q"] = q[0, :, frame.text].float()
        found["heads_k"] = k[0, :, frame.visual].float()
    return found


def next_layer(
    frame: Frame,
    layer: DecoderLayer,
    x: Float[Tensor, "1 s d"],
    rope: Rope,
    there: Places,
    needs: Collection[str],
) -> dict[str, Tensor]:
    """Text rows of the layer about to run, with and without rotary phases and softmax."""
    if not NEXT & set(needs):
        return {}
    q, k = layer.self_attn.heads_of(layer.input_layernorm(x))
    found = {}
    if "text_qk" in needs:
        said = there.real[frame.text].float()
        # A matrix of one row: with a vector, TensorRT's parser takes the wrong axis off.
        mean = said[None] @ q[:, :, frame.text].float() / said.sum()
        found["attention_text_qk"] = frame.by_view(mean_product(mean, k[:, :, frame.visual]))
    if "text_next" in needs:
        turned = rotate(q, rope), rotate(k, rope)
        found["attention_text_next"] = row_means(frame, turned, ["text"], there)["text"]
    return found


def tower_looks(probes: Iterable[TowerProbe]) -> dict[str, Tensor]:
    """Attention inside the towers, mean over them, and their keys side by side."""
    rows: dict[str, list[Tensor]] = {}
    keys = []
    for probe in probes:
        patch = slice(probe.prefix, None)
        kinds = {"tower_mean": patch, **({"tower_cls": slice(0, 1)} if probe.class_token else {})}
        means = attention_rows(probe.q, probe.k, kinds, patch, causal=False)
        for kind, mean in means.items():
            rows.setdefault(kind, []).append(mean)
        keys.append(probe.k[:, :, patch].float().mean(1))
    found = {f"attention_{kind}": torch.stack(means).mean(0) for kind, means in rows.items()}
    return found | {"tower_keys": torch.cat(keys, -1)}


def _rows(frame: Frame, kind: str, stride: int) -> Int64[Tensor, " r"]:
    """Indices of the rows of a kind; of those before the prompt only every `stride`-th."""
    rows, start = _span(frame, kind), frame.text.start
    if kind == "prefill":
        return torch.cat([torch.arange(0, start, stride), torch.arange(start, rows.stop)])
    return torch.arange(rows.start, rows.stop)


def _span(frame: Frame, kind: str) -> slice:
    """Where the rows of a kind are, padding included."""
    start, end = frame.text.start, frame.text.stop
    spans = {"prefill": slice(0, end), "text": slice(start, end), "last": slice(end - 1, end)}
    return spans.get(kind) or frame.moved(frame.layout.action_rows)


def _weights(
    frame: Frame, kind: str, rows: Tensor, stride: int, there: Places
) -> Float[Tensor, " r"]:
    """1 for every row that counts: no padding, and in step with the stride."""
    counts = there.real if len(rows) == frame.length else there.real[rows]
    if stride > 1 and kind in THINNED:
        # In step with the rows of an unpadded sequence as it is now.
        shift = there.real.logical_not().sum()
        at = torch.where(rows < frame.text.start, rows, rows - shift)
        counts = counts & (at % stride == 0)
    return counts.float()
