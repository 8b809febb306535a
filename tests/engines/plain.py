"""A small engine of no family: two stages that share a linear layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from engines.export import Blueprint, write_engine
from engines.manifest import Manifest, Rung
from engines.session import TensorSpec
from engines.stage import StageModule

WIDTH = 64


class Double(StageModule):
    """Twice a linear layer and its norm, with a residual."""

    def __init__(self, tokens: int = 4, layers: int = 1, width: int = WIDTH) -> None:
        super().__init__({"x": TensorSpec((1, tokens, width), "float32")})
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))

    def compute(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        x = inputs["x"]
        for layer in self.layers:
            x = x + layer(x)
        return {"y": x, "norm": x.pow(2).sum(-1)}


def weights(layers: int = 1, width: int = WIDTH) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"layers.{i}.weight": torch.randn(width, width, generator=generator) / width**0.5
        for i in range(layers)
    }


def reference(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for weight in tensors.values():
        x = x + x @ weight.T
    return x


def write_plain(folder: Path, precision: str = "fp32") -> Manifest:
    rungs = [
        Rung("dense", 1.0, 4, 0, {"stage": "large"}),
        Rung("uniform", 0.5, 2, 0, {"stage": "small"}),
    ]
    blueprint = Blueprint(
        family="plain",
        policy="nobody",
        policy_sha256="0" * 64,
        precision=precision,
        prompt_tokens=1,
        rebuild="leanvla export --policy nobody",
        stages={"large": lambda: Double(4), "small": lambda: Double(2)},
        rungs=rungs,
        assets={},
    )
    return write_engine(folder, blueprint, weights().__getitem__)
