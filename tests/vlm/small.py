"""A LLaVA of a few thousand random parameters, in the layout of `mini-vlm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vlm.training.mini import make_model, mini_config, save_mini

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {
    "tower": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    },
    "decoder": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
}


def write_small_model(folder: Path) -> Path:
    torch.manual_seed(0)
    config = mini_config(**SMALL)
    save_mini(folder, make_model(config).state_dict(), config, "# small\n")
    return folder
