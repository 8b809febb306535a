"""`mini-vlm`: a LLaVA of four million parameters, as published checkpoints are laid out.

CLIP tower (second-to-last layer, class token dropped), two-layer projector, Llama decoder; 224 px
pictures in patches of 14 make 256 visual tokens, as many as OpenVLA has.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from vlm.training.words import CHAT_TEMPLATE, SPECIALS, VOCAB, write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import LlavaConfig, LlavaForConditionalGeneration

IMAGE_SIZE = 224
PATCH = 14
GRID = IMAGE_SIZE // PATCH
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MOST_TOKENS = 16384
_TOWER = re.compile(r"^(model\.)?vision_tower\.(?!vision_model\.)")

TOWER = {
    "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 5, "projection_dim": 128,
    "num_attention_heads": 2, "image_size": IMAGE_SIZE, "patch_size": PATCH,
}  # fmt: skip
DECODER = {
    "vocab_size": VOCAB, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6,
    "num_attention_heads": 3, "num_key_value_heads": 3, "max_position_embeddings": MOST_TOKENS,
    "bos_token_id": SPECIALS.index("<s>"), "eos_token_id": SPECIALS.index("</s>"),
    "pad_token_id": SPECIALS.index("<pad>"), "initializer_range": 0.05,
}  # fmt: skip


def mini_config(**changes: Mapping[str, Any]) -> LlavaConfig:
    """The architecture, with other values for `tower` or `decoder` in tests."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    return LlavaConfig(
        vision_config=CLIPVisionConfig(**{**TOWER, **changes.get("tower", {})}),
        text_config=LlamaConfig(**{**DECODER, **changes.get("decoder", {})}),
        image_token_index=SPECIALS.index("<image>"),
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        pad_token_id=SPECIALS.index("<pad>"),
        bos_token_id=SPECIALS.index("<s>"),
        eos_token_id=SPECIALS.index("</s>"),
    )


def make_model(config: LlavaConfig) -> LlavaForConditionalGeneration:
    """A network of random weights; attention is written out, which trains faster on a CPU."""
    from transformers import LlavaForConditionalGeneration

    return LlavaForConditionalGeneration._from_config(config, attn_implementation="eager")


def write_processor(folder: Path) -> None:
    """Tokenizer, image processor and chat template, as `AutoProcessor` reads them."""
    write_tokenizer(folder)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    picture = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True, "size": {"shortest_edge": IMAGE_SIZE}, "resample": 3,
        "do_center_crop": True, "crop_size": size, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
        "do_convert_rgb": True,
    }  # fmt: skip
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": PATCH,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    }
    _write(folder / "preprocessor_config.json", picture | {"processor_class": "LlavaProcessor"})
    _write(folder / "processor_config.json", processor)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def save_mini(
    folder: Path,
    weights: dict[str, Tensor],
    config: LlavaConfig,
    card: str,
    *,
    half: bool = False,
) -> None:
    """Write the checkpoint folder with `SHA256` sums; it appears whole or not at all.

    Args:
        folder: where to write.
        weights: all tensors of the model by name.
        config: its architecture.
        card: text of `README.md`.
        half: store 16-bit floats, half the size; it computes in 32 bits when loaded so.

    Raises:
        ValueError: when the weights are not of this architecture.
    """
    model = make_model(config)
    fit = model.load_state_dict(weights, strict=False)
    if fit.missing_keys or fit.unexpected_keys:
        odd = [*fit.missing_keys, *fit.unexpected_keys]
        raise ValueError(f"weights do not fit the architecture: {odd[0]} and {len(odd) - 1} more")
    model = model.half() if half else model
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        partial = Path(name) / folder.name
        model.generation_config.do_sample = False
        model.save_pretrained(partial, safe_serialization=True)
        write_processor(partial)
        (partial / "README.md").write_text(card, encoding="utf-8")
        for path in partial.glob("*.safetensors"):
            _publish_names(path)
            # Written for this user alone; the card has the rights that a new file has.
            shutil.copymode(partial / "README.md", path)
        files = sorted([*partial.glob("*.safetensors"), *partial.glob("*.json")])
        lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
        (partial / "SHA256").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)


def _publish_names(path: Path) -> None:
    """Name the tower's tensors as published LLaVA checkpoints do.

    transformers 5 writes them a level higher, where transformers 4 does not look for them.
    """
    tensors = load_file(path)
    save_file(
        {_TOWER.sub("vision_tower.vision_model.", name): value for name, value in tensors.items()},
        path,
        metadata={"format": "pt"},
    )


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
