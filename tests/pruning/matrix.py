"""What the matrix tests walk: every method, with its profiles, inside every wrapper, by name."""

from __future__ import annotations

import torch

from pruning.example import example_context
from pruning.registry import METHODS
from pruning.types import PruneContext

N, LAYERS = 30, 12
PLAIN = [name for name in METHODS if name != "dense"]
VARIANTS = [
    *PLAIN,
    *(f"{name}:{profile}" for name, kind in METHODS.items() for profile in kind.profiles),
    "vla_pruner:semantic_rows=text:warmup=current",
    "vla_pruner:action_source=current",
    "sparsevlm:recycled=0.5:clusters=0.3",
    "tokenselect:scaled=true:pool=3",
    "todre:tau=0",
    "divprune:sketch=8",
    "mmtok:sketch=8",
    "smooth+fastv",
    "smooth+sparsevlm",
    "reuse+vla_pruner",
    "reuse+smooth+adp",
    "schedule+prefill_mean",
    "schedule+divprune",
    "quota+random",
    "quota+vla_pruner",
    "quota+visionzip",
    "quota+smooth+fastv",
    "ladder+fastv",
    "ladder+smooth+lightvla",
]
"""As on a command line."""


def context(
    keep: float | int, groups: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0
) -> PruneContext:
    return example_context((groups, N, 16), keep, seed=seed, dtype=dtype)
