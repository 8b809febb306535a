"""Tiny random models of the real classes, and inputs as their processors lay them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

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


class Case(NamedTuple):
    """A family under test.

    `model()` builds it. `row(g)` draws the pieces of one sample: token numbers, and what its
    pictures add to the inputs.
    """

    name: str
    model: Callable[[], Any]
    row: Callable[[torch.Generator, int], tuple[list[int], dict[str, Any]]]
    join: Callable[[list[dict[str, Any]]], dict[str, Any]]


def words(g: torch.Generator, n: int) -> list[int]:
    return torch.randint(3, 100, (n,), generator=g).tolist()


def batch(case: Case, rows: int, side: str = "left", seed: int = 0, **how: Any) -> dict[str, Any]:
    """Inputs of some samples, padded on one side."""
    g = torch.Generator().manual_seed(seed)
    drawn = [case.row(g, at) for at in range(rows)]
    longest = max(len(ids) for ids, _ in drawn)
    ids = torch.full((rows, longest), PAD)
    mask = torch.zeros(rows, longest, dtype=torch.int64)
    for at, (tokens, _) in enumerate(drawn):
        start = longest - len(tokens) if side == "left" else 0
        ids[at, start : start + len(tokens)] = torch.tensor(tokens)
        mask[at, start : start + len(tokens)] = 1
    inputs = {"input_ids": ids, "attention_mask": mask, **case.join([extra for _, extra in drawn])}
    return inputs


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def settle(model: Any, seed: int = 0) -> Any:
    """Random weights large enough for attention to be uneven."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                fan = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=g) * 2.0 / fan**0.5)
    return model.eval()


def llava() -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config={"model_type": "llama", **TEXT},
        image_token_id=IMAGE,
        image_token_index=IMAGE,
    )
    return settle(LlavaForConditionalGeneration(config))


def llava_row(g: torch.Generator, at: int) -> tuple[list[int], dict[str, Any]]:
    """One image, or two, between words; every other sample asks longer."""
    images = 1 + at % 2
    ids = [1, *words(g, 3)]
    for _ in range(images):
        ids += [IMAGE] * 16 + words(g, 1 + at)
    pixels = torch.randn(images, 3, 16, 16, generator=g)
    return ids + words(g, 5 + 2 * at), {"pixel_values": pixels}


CASES = {case.name: case for case in (Case("llava", llava, llava_row, joined),)}
