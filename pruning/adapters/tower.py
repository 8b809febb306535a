"""What a vision tower shows: its output, and attention and keys of its last block that runs.

Everything ends up as one row per visual token, in the order in which the encoder hands tokens out,
also where several patches become one token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from pruning.adapters.heads import Phases, rotate
from pruning.attention_rows import attention_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Bool, Float
    from torch import Tensor

NEEDS = frozenset({"tower_features", "tower_keys", "tower_attention", "project"})
"""What methods ask of a tower."""


@dataclass
class Tower:
    """Base: a tower with its projector, and hooks that listen.

    Attributes:
        attention: self-attention of the last block that the projector depends on.
        projector: from `tower_features` to the decoder's space.
        taken: what the hooks heard at the last encoding.
    """

    attention: Any
    projector: Any
    taken: dict[str, Any] = field(default_factory=dict, init=False)

    def listen(self, on: Callable[[Any], None]) -> None:
        """Set the hooks; `on` takes each handle."""
        on(self.projector.register_forward_pre_hook(self._input))

    def read(self, inputs: Mapping[str, Any]) -> dict[str, Float[Tensor, "n ..."]]:
        """What was heard, by need; `inputs` is what the encoder was called with."""
        raise NotImplementedError(f"{type(self).__name__} must define read(inputs)")

    def project(self, tokens: Float[Tensor, "... w"]) -> Float[Tensor, "... d"]:
        """The projector as a function of `tower_features`."""
        weight = next(self.projector.parameters())
        return self.projector(tokens.to(weight.device, weight.dtype)).float()

    def _input(self, module: Any, args: tuple[Any, ...]) -> None:
        self.taken["features"] = args[0].detach()

    def _hear(self, name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
            self.taken[name] = output.detach()

        return hook


@dataclass
class PatchTower(Tower):
    """A ViT over images of one size, `[tiles, prefix + patches, w]`.

    Attributes:
        prefix: tokens in front of the patches.
        merge: patches per side that become one token (pixel shuffle).
        pack: from `[tiles, tokens, w]` and the encoder's inputs to `[n, w]`; None for one tile
            behind the other.
    """

    prefix: int = 0
    merge: int = 1
    pack: Callable[[Tensor, Mapping[str, Any]], Tensor] | None = None

    def listen(self, on: Callable[[Any], None]) -> None:
        """Queries and keys, after a norm where there is one."""
        super().listen(on)
        attention = self.attention
        q = attention.q_norm if hasattr(attention, "q_norm") else attention.q_proj
        k = attention.k_norm if hasattr(attention, "k_norm") else attention.k_proj
        on(q.register_forward_hook(self._hear("q")))
        on(k.register_forward_hook(self._hear("k")))
        on(attention.register_forward_pre_hook(self._mask, with_kwargs=True))

    def read(self, inputs: Mapping[str, Any]) -> dict[str, Float[Tensor, "n ..."]]:
        """Patch rows are averaged; the class token's row is there where the tower has one."""
        q, k = (self._by_head(self.taken[name]) for name in ("q", "k"))
        patches = slice(self.prefix, None)
        kinds = {"tower_mean": patches}
        if self.prefix:
            kinds["tower_cls"] = slice(0, 1)
        mask = self.taken.get("mask")
        rows = attention_rows(q, k, kinds, patches, causal=False, key_mask=mask)
        found = {
            kind: self._packed(self._joined(row[..., None]), inputs)[:, 0]
            for kind, row in rows.items()
        }
        keys = k[:, :, patches].float().mean(1)
        found["tower_keys"] = self._packed(self._joined(keys), inputs)
        found["tower_features"] = self._packed(self.taken["features"].float(), inputs)
        return found

    def _by_head(self, x: Float[Tensor, "b s w"]) -> Float[Tensor, "b h s e"]:
        return x.unflatten(-1, (self.attention.num_heads, -1)).transpose(1, 2)

    def _joined(self, values: Float[Tensor, "b p w"]) -> Float[Tensor, "b n w"]:
        """The mean of the patches that become one token."""
        if self.merge == 1:
            return values
        side = round(values.shape[1] ** 0.5)
        grid = values.unflatten(1, (side // self.merge, self.merge, side // self.merge, self.merge))
        return grid.mean((2, 4)).flatten(1, 2)

    def _packed(self, values: Float[Tensor, "b n w"], inputs: Mapping[str, Any]) -> Tensor:
        return values.flatten(0, 1) if self.pack is None else self.pack(values, inputs)

    def _mask(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Padding patches of tiles that are not full, which no row sees."""
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        self.taken["mask"] = None if mask is None else _keys(mask)


@dataclass
class PackedTower(Tower):
    """A ViT with rotary phases over images of any size, laid end to end, `[patches, w]`.

    Attributes:
        merge: consecutive patches that become one token.
        window: tokens per side of a window where the tower sorts tokens by windows; 0 for none.
    """

    merge: int = 4
    window: int = 0

    def listen(self, on: Callable[[Any], None]) -> None:
        """Queries and keys come out of one projection, before rotation."""
        super().listen(on)
        on(self.attention.qkv.register_forward_hook(self._hear("qkv")))
        on(self.attention.register_forward_pre_hook(self._phases, with_kwargs=True))

    def read(self, inputs: Mapping[str, Any]) -> dict[str, Float[Tensor, "n ..."]]:
        """Patches attend within their frame."""
        grids = grid_of(inputs)
        qkv = self.taken["qkv"].unflatten(-1, (3, self.attention.num_heads, -1))
        q, k, _ = qkv.permute(1, 2, 0, 3)
        phases = self.taken["phases"]
        q, turned = rotate(q.float(), phases), rotate(k.float(), phases)
        means, start = [], 0
        for t, h, w in grids:
            for _ in range(t):
                frame = slice(start, start + h * w)
                row = attention_rows(
                    q[None, :, frame], turned[None, :, frame], ALL, slice(None), causal=False
                )
                means.append(row["tower_mean"][0])
                start += h * w
        mean = torch.cat(means).unflatten(0, (-1, self.merge)).mean(1)
        keys = k.float().mean(0).unflatten(0, (-1, self.merge)).mean(1)
        features = self.taken["features"].float().reshape(len(mean), -1)
        found = {"tower_mean": mean, "tower_keys": keys, "tower_features": features}
        if not self.window:
            return found
        order = torch.tensor(window_order(grids, self.merge, self.window), device=mean.device)
        return {name: torch.empty_like(x).index_copy_(0, order, x) for name, x in found.items()}

    def project(self, tokens: Float[Tensor, "... w"]) -> Float[Tensor, "... d"]:
        """The merger takes patches, a token's side by side."""
        weight = next(self.projector.parameters())
        patches = tokens.to(weight.device, weight.dtype).reshape(-1, tokens.shape[-1] // self.merge)
        return self.projector(patches).float().view(*tokens.shape[:-1], -1)

    def _phases(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.taken["phases"] = Phases(*(part.float() for part in kwargs["position_embeddings"]))


ALL = {"tower_mean": slice(None)}


def grid_of(inputs: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Moments, rows and columns of patches of every picture."""
    grid = next(value for name, value in inputs.items() if name.endswith("grid_thw"))
    return [(int(t), int(h), int(w)) for t, h, w in grid]


def window_order(grids: Sequence[tuple[int, int, int]], merge: int, window: int) -> list[int]:
    """Numbers of the tokens, in the order of a tower that sorts them by windows."""
    side, order, start = round(merge**0.5), [], 0
    for t, h, w in grids:
        rows, columns = h // side, w // side
        places = [(m, i, j) for m in range(t) for i in range(rows) for j in range(columns)]
        keys = [(m, i // window, j // window, i, j) for m, i, j in places]
        order += [start + at for at in sorted(range(len(keys)), key=keys.__getitem__)]
        start += len(keys)
    return order


def blocks_of(tower: Any) -> Any:
    """The blocks of a tower: its longest list of modules."""
    lists = [m for m in tower.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len)


def block_behind(config: Any, blocks: Any) -> Any:
    """The block whose output the projector gets, by the configuration's feature layer."""
    layer = getattr(config, "vision_feature_layer", -1)
    deepest = layer if isinstance(layer, int) else max(at % (len(blocks) + 1) for at in layer)
    return blocks[len(blocks) + deepest if deepest < 0 else deepest - 1]


def _keys(mask: Tensor) -> Bool[Tensor, "b t"]:
    """Keys that rows see, of a mask `[b, 1, q, t]`, boolean or additive."""
    seen = mask if mask.dtype == torch.bool else mask == 0
    return seen[:, 0].any(1)
