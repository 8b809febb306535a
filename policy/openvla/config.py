"""The architecture of an OpenVLA-family checkpoint, resolved from its `config.json`.

Follows the published layout (openvla/openvla, moojink/openvla-oft); `config_file` reads and writes
it. `auto_map` is ignored: nothing that a checkpoint names is ever executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class TowerConfig:
    """One ViT tower, in the terms of its timm id.

    Attributes:
        timm_id: e.g. `vit_large_patch14_reg4_dinov2.lvd142m`.
        image_size: square input, pixels.
        patch_size: square patch, pixels.
        width: embedding width.
        depth: blocks in the checkpoint; the output is taken after block `depth - 2`, so the last
            one never runs.
        heads: attention heads.
        mlp_width: hidden width of a block's MLP.
        class_token: a class token precedes the patches.
        registers: register tokens between class token and patches.
        layer_scale: blocks carry `ls1.scale_factor` and `ls2.scale_factor`.
        attn_pool: SigLIP's attention pool is in the checkpoint (loaded, never run).
        film: language modulates every block (OpenVLA-OFT FiLM).
        mean: per-channel mean of the pixel normalisation.
        std: per-channel standard deviation of the pixel normalisation.
    """

    timm_id: str
    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    class_token: bool = False
    registers: int = 0
    layer_scale: bool = False
    attn_pool: bool = False
    film: bool = False
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Visual tokens of one view."""
        return self.grid * self.grid


@dataclass(frozen=True)
class TextConfig:
    """The Llama decoder (`text_config` of `config.json`, Hugging Face field names)."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class OpenVLAConfig:
    """Everything needed to build and run one checkpoint.

    Attributes:
        towers: one tower, or two when fused (alpha, beta).
        text: the decoder.
        pad_to_multiple_of: padding of the vocabulary; action bins sit just below it.
        n_action_bins: edges of the action grid (256 edges, 255 centres).
        resize: `resize-naive`, `letterbox` or `resize-crop`.
        decoding: `autoregressive` (OpenVLA) or `parallel` (OpenVLA-OFT).
        head: `discrete` action tokens or the `l1` regression head (parallel only).
        chunk: action rows per query.
        dof: degrees of freedom of one row.
        views: cameras, main first.
        proprio_dim: width of the proprioceptive vector; 0 when not used.
        norm_stats: `{dataset: {action: {...}, proprio: {...}}}`.
        arch: `arch_specifier` of the checkpoint.
        centre_crop: crop to 90 % area at evaluation (policies trained with image augmentation).
        rate_hz: control rate the policy was trained at.
        cut_layer: full decoder layers before pruned ones, None for the family's rule.
        bounds: statistics that span [-1, 1]: `q99` (q01 ... q99) or `minmax`.
        eval_resize: frames of another size first go through JPEG and a Lanczos-3 resize, as in the
            published evaluation pipelines.
        prompt: `openvla`, or `v01` (Vicuna style, the first release).
        empty_token_id: id that must end the prompt (29871 for Llama-2), None for none.
        state_names: one name per proprioceptive value, with its unit.
        action_names: one name per degree of freedom, with its unit.
        rotation: rotation kind of an action's orientation part, see `ActionSpec`.
        gripper: polarity of an action's last dimension.
        execute: rows of a chunk to execute before the next query, None for all.
    """

    towers: tuple[TowerConfig, ...]
    text: TextConfig
    pad_to_multiple_of: int = 64
    n_action_bins: int = 256
    resize: Literal["resize-naive", "letterbox", "resize-crop"] = "resize-naive"
    decoding: Literal["autoregressive", "parallel"] = "autoregressive"
    head: Literal["discrete", "l1"] = "discrete"
    chunk: int = 1
    dof: int = 7
    views: tuple[str, ...] = ("primary",)
    proprio_dim: int = 0
    norm_stats: Mapping[str, Mapping[str, Mapping[str, object]]] = field(default_factory=dict)
    arch: str = ""
    centre_crop: bool = False
    rate_hz: float = 5.0
    cut_layer: int | None = None
    bounds: Literal["q99", "minmax"] = "q99"
    eval_resize: bool = False
    prompt: Literal["openvla", "v01"] = "openvla"
    empty_token_id: int | None = None
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    rotation: str = "axis_angle_delta"
    gripper: str = "-1 open, +1 close"
    execute: int | None = None

    @property
    def fused(self) -> bool:
        """Two towers, concatenated on the channel axis."""
        return len(self.towers) == 2

    @property
    def tokens_per_view(self) -> int:
        """Visual tokens of one camera."""
        return self.towers[0].tokens

    @property
    def vision_width(self) -> int:
        """Width of a visual token before the projector."""
        return sum(tower.width for tower in self.towers)

    @property
    def action_vocab(self) -> int:
        """Vocabulary without padding: action token of bin d is `action_vocab - 1 - d`."""
        return self.text.vocab_size - self.pad_to_multiple_of

    @property
    def film(self) -> bool:
        """Language modulates the vision towers."""
        return any(tower.film for tower in self.towers)


def load_config(folder: str | Path) -> OpenVLAConfig:
    """Read a checkpoint folder's `config.json`; see `config_file.read_config`.

    Raises:
        CheckpointError: on a missing or malformed file, naming file and key.
    """
    from policy.openvla.config_file import read_config

    return read_config(folder)


def write_config(config: OpenVLAConfig, folder: str | Path) -> Path:
    """Write `config.json` so that `load_config` gives `config` back; returns its path."""
    from policy.openvla.config_file import write_config_file

    return write_config_file(config, folder)
