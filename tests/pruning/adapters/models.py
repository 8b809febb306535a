"""Tiny random models of the real classes, and inputs as their processors lay them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE, VIDEO, START, END, PAD, VOCAB = 120, 121, 122, 123, 0, 128
LAYERS, WIDTH = 6, 32
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCAB,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
LARGE = {**TOWER, "image_size": 32}
SIZES = {(16, 32): 52, (32, 16): 56}
"""Tokens of an AnyRes image: a base tile of 16, and two tiles with a newline behind each row."""
TYPED = transformers.__version__ >= "5"


class Drawn(NamedTuple):
    """One sample: token numbers, what its pictures add to the inputs, tokens of each view."""

    ids: list[int]
    pictures: dict[str, torch.Tensor]
    views: list[int]


class Case(NamedTuple):
    """A family under test: how to build it, and how to draw a sample."""

    name: str
    model: Callable[[], Any]
    draw: Callable[[torch.Generator, int], Drawn]
    types: str = ""


def words(g: torch.Generator, n: int) -> list[int]:
    return torch.randint(3, 100, (n,), generator=g).tolist()


def samples(case: Case, rows: int, seed: int = 0) -> list[Drawn]:
    g = torch.Generator().manual_seed(seed)
    return [case.draw(g, at) for at in range(rows)]


def batch(case: Case, drawn: list[Drawn], side: str = "left") -> dict[str, torch.Tensor]:
    """Inputs of some samples, padded on one side."""
    longest = max(len(one.ids) for one in drawn)
    ids = torch.full((len(drawn), longest), PAD)
    mask = torch.zeros(len(drawn), longest, dtype=torch.int64)
    for at, one in enumerate(drawn):
        start = longest - len(one.ids) if side == "left" else 0
        ids[at, start : start + len(one.ids)] = torch.tensor(one.ids)
        mask[at, start : start + len(one.ids)] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if case.types == "prefix":
        inputs["token_type_ids"] = torch.zeros_like(ids)
    if case.types == "kinds" and TYPED:
        inputs["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    for name in {name for one in drawn for name in one.pictures}:
        inputs[name] = together([one.pictures[name] for one in drawn if name in one.pictures])
    return inputs


def together(parts: list[torch.Tensor]) -> torch.Tensor:
    """One behind the other; tiles `[1, n, ...]` of unequal number get empty ones."""
    if parts[0].ndim < 5:
        return torch.cat(parts)
    most = max(part.shape[1] for part in parts)
    whole = torch.zeros(len(parts), most, *parts[0].shape[2:])
    for at, part in enumerate(parts):
        whole[at, : part.shape[1]] = part[0]
    return whole


def settle(model: Any, seed: int = 0) -> Any:
    """Random weights large enough for attention to be uneven, the same in every version."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.ndim > 1:
                fan = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=g) * 1.5 / fan**0.5)
    return model.eval()


def llava() -> Any:
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IMAGE,
    )
    return settle(transformers.LlavaForConditionalGeneration(config))


def draw_llava(g: torch.Generator, at: int) -> Drawn:
    """One image, or two, between words; every other sample asks longer."""
    images = 1 + at % 2
    ids = [1, *words(g, 3)]
    for _ in range(images):
        ids += [IMAGE] * 16 + words(g, 1 + at)
    pixels = torch.randn(images, 3, 16, 16, generator=g)
    return Drawn(ids + words(g, 5 + 2 * at), {"pixel_values": pixels}, [16] * images)


def llava_next() -> Any:
    config = transformers.LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config={"model_type": "mistral", "sliding_window": None, **TEXT},
        image_token_index=IMAGE,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
    )
    return settle(transformers.LlavaNextForConditionalGeneration(config))


def draw_anyres(g: torch.Generator, at: int) -> Drawn:
    """An image wider than high, or higher than wide."""
    size = list(SIZES)[at % 2]
    ids = [1, *words(g, 2), *[IMAGE] * SIZES[size], *words(g, 6 + at)]
    pixels = torch.randn(1, 3, 3, 16, 16, generator=g)
    sizes = torch.tensor([size])
    return Drawn(ids, {"pixel_values": pixels, "image_sizes": sizes}, [SIZES[size]])


def llava_onevision() -> Any:
    config = transformers.LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **TOWER},
        text_config={"model_type": "qwen2", **TEXT},
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
    )
    return settle(transformers.LlavaOnevisionForConditionalGeneration(config))


def draw_onevision_video(g: torch.Generator, at: int) -> Drawn:
    """Three frames of four tokens, and the newline behind them."""
    ids = [1, *words(g, 2 + at), *[VIDEO] * 13, *words(g, 6)]
    pixels = torch.randn(1, 3, 3, 16, 16, generator=g)
    return Drawn(ids, {"pixel_values_videos": pixels}, [4, 4, 4])


def qwen(kind: str, **vision: Any) -> Any:
    names = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
    config = getattr(transformers, f"{names[kind]}Config")(
        vision_config={
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "in_channels": 3,
            **vision,
        },
        text_config={**TEXT, "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    return settle(getattr(transformers, f"{names[kind]}ForConditionalGeneration")(config))


def qwen2_vl() -> Any:
    return qwen("qwen2_vl", depth=2, embed_dim=16, hidden_size=WIDTH, mlp_ratio=2)


def qwen2_5_vl() -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": WIDTH}
    return qwen("qwen2_5_vl", depth=3, window_size=16, fullatt_block_indexes=[1, 2], **sizes)


def qwen3_vl() -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": WIDTH}
    deep = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]}
    return qwen("qwen3_vl", depth=4, **sizes, **deep)


def draw_qwen(g: torch.Generator, at: int) -> Drawn:
    """Images of different size."""
    grids = [(1, 8, 6), (1, 4, 8), (1, 8, 6)][: 1 + at % 3]
    ids, tokens = words(g, 3), []
    for t, h, w in grids:
        tokens.append(t * h * w // 4)
        ids += [START, *[IMAGE] * tokens[-1], END]
    patches = sum(t * h * w for t, h, w in grids)
    pixels = torch.randn(patches, 3 * 2 * 4 * 4, generator=g)
    pictures = {"pixel_values": pixels, "image_grid_thw": torch.tensor(grids)}
    return Drawn(ids + words(g, 5 + 2 * at), pictures, tokens)


def draw_qwen_video(g: torch.Generator, at: int) -> Drawn:
    """Three frame pairs of eight tokens."""
    ids = [*words(g, 2 + at), START, *[VIDEO] * 24, END, *words(g, 6)]
    pixels = torch.randn(96, 3 * 2 * 4 * 4, generator=g)
    grid = torch.tensor([(3, 4, 8)])
    pictures = {"pixel_values_videos": pixels, "video_grid_thw": grid}
    return Drawn(ids, pictures, [8, 8, 8])


def paligemma() -> Any:
    config = transformers.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **TOWER, "projection_dim": WIDTH},
        text_config={"model_type": "gemma", **TEXT},
        image_token_index=IMAGE,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    return settle(transformers.PaliGemmaForConditionalGeneration(config))


def draw_paligemma(g: torch.Generator, at: int) -> Drawn:
    ids = [IMAGE] * 16 + [1, *words(g, 4 + 3 * at)]
    return Drawn(ids, {"pixel_values": torch.randn(1, 3, 16, 16, generator=g)}, [16])


def tiled(name: str) -> Any:
    config = getattr(transformers, f"{name}Config")(
        vision_config=LARGE,
        text_config={"model_type": "llama", **TEXT},
        image_token_id=IMAGE,
        pad_token_id=PAD,
        scale_factor=2,
    )
    return settle(getattr(transformers, f"{name}ForConditionalGeneration")(config))


def idefics3() -> Any:
    return tiled("Idefics3")


def smolvlm() -> Any:
    return tiled("SmolVLM")


def draw_tiles(g: torch.Generator, at: int) -> Drawn:
    """Two tiles or three, marked by words."""
    tiles = 2 + at % 2
    ids = [1, *words(g, 2)]
    for _ in range(tiles):
        ids += [START, *[IMAGE] * 16]
    pixels = torch.randn(1, tiles, 3, 32, 32, generator=g)
    return Drawn([*ids, END, *words(g, 5 + at)], {"pixel_values": pixels}, [16] * tiles)


def internvl() -> Any:
    config = transformers.InternVLConfig(
        vision_config={**LARGE, "image_size": [32, 32], "patch_size": [4, 4]},
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=IMAGE,
        image_seq_length=16,
    )
    return settle(transformers.InternVLForConditionalGeneration(config))


def draw_internvl(g: torch.Generator, at: int) -> Drawn:
    """Tiles side by side."""
    tiles = 2 + at % 2
    ids = [*words(g, 2), START, *[IMAGE] * 16 * tiles, END, *words(g, 5 + at)]
    pixels = torch.randn(tiles, 3, 32, 32, generator=g)
    return Drawn(ids, {"pixel_values": pixels}, [16] * tiles)


CASES = {
    case.name: case
    for case in (
        Case("llava", llava, draw_llava),
        Case("llava_next", llava_next, draw_anyres),
        Case("llava_onevision", llava_onevision, draw_anyres),
        Case("qwen2_vl", qwen2_vl, draw_qwen, "kinds"),
        Case("qwen2_5_vl", qwen2_5_vl, draw_qwen, "kinds"),
        Case("qwen3_vl", qwen3_vl, draw_qwen, "kinds"),
        Case("paligemma", paligemma, draw_paligemma, "prefix"),
        Case("idefics3", idefics3, draw_tiles),
        Case("smolvlm", smolvlm, draw_tiles),
        Case("internvl", internvl, draw_internvl),
    )
}
