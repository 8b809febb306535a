"""Small decoders of the OpenVLA family as ONNX files, with pruning inside the graph."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from policy.openvla.config import OpenVLAConfig, TextConfig, TowerConfig
from policy.openvla.decoder import rope_table
from policy.openvla.random_weights import random_network
from pruning.attention_rows import attention_rows
from pruning.types import Budget

TEXT = TextConfig(512, 64, 128, 4, 4, 4)
CONFIG = OpenVLAConfig(
    (TowerConfig("tiny", 32, 8, 32, 3, 2, 64),),
    TEXT,
    pad_to_multiple_of=64,
    decoding="parallel",
    chunk=2,
    views=("main", "wrist"),
)
TOKENS, CUT = 16, 2
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class PrunedPrefill(nn.Module):
    """Embedded sequence in, hidden states of the survivors and their indices out."""

    def __init__(self, dtype: torch.dtype, keep: float) -> None:
        super().__init__()
        self.network = random_network(CONFIG, dtype=dtype)
        self.layers = self.network.language_model.model.layers
        self.keep = Budget(keep).tokens(TOKENS)
        self.layout = self.network.layout(torch.ones(1, 8, dtype=torch.long))
        self.length = self.layout.length
        self.register_buffer("positions", torch.arange(self.length))

    def example(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, self.length, TEXT.hidden_size, generator=generator)
        return x.to(self.network.projector.fc1.weight.dtype)

    def forward(self, x):
        rope = rope_table(TEXT, self.positions)
        for layer in self.layers[:CUT]:
            out = layer(x, rope, causal=False)
            x = out.x
        kept = self.scores(x, out).topk(self.keep, dim=-1).indices.sort(dim=-1).values
        index = self.index(kept)
        x, rope = x.index_select(1, index), rope.at(index)
        for layer in self.layers[CUT:]:
            x = layer(x, rope, causal=False).x
        return x, kept

    def scores(self, x, out):
        """Attention that every visual token receives, `[views, n]`."""
        columns = slice(1, 1 + self.layout.visual)
        rows = {"prefill": slice(0, self.layout.prompt_end)}
        found = attention_rows(out.q, out.cache.k, rows, columns, causal=False)
        return found["prefill"].view(2, TOKENS)

    def index(self, kept):
        starts = torch.tensor([[1], [1 + TOKENS]])
        rest = self.positions[1 + self.layout.visual :]
        return torch.cat([self.positions[:1], (kept + starts).reshape(-1), rest])


class AdjustablePrefill(PrunedPrefill):
    """The same with the number of survivors as an input, `k` of them per view."""

    def forward(self, x, k):
        count = k.item()
        torch._check(count >= 1)
        torch._check(count <= TOKENS)
        rope = rope_table(TEXT, self.positions)
        for layer in self.layers[:CUT]:
            out = layer(x, rope, causal=False)
            x = out.x
        ranked = self.scores(x, out).topk(TOKENS, dim=-1).indices
        kept = ranked[:, :count].sort(dim=-1).values
        index = self.index(kept)
        x, rope = x.index_select(1, index), rope.at(index)
        for layer in self.layers[CUT:]:
            x = layer(x, rope, causal=False).x
        return x, kept


def export(path: Path, dtype: str = "float32", keep: float = 0.25, opset: int = 20) -> Path:
    """Write the static graph of one rung."""
    module = PrunedPrefill(DTYPES[dtype], keep).eval()
    _export(module, (module.example(),), path, ["x"], opset)
    return path


def export_adjustable(path: Path, dtype: str = "float16") -> Path:
    """Write the graph that takes `k` at run time."""
    module = AdjustablePrefill(DTYPES[dtype], 0.25).eval()
    _export(module, (module.example(), torch.tensor(4)), path, ["x", "k"], 20)
    return path


def _export(module: nn.Module, example: tuple, path: Path, names: list[str], opset: int) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=opset,
                input_names=names,
                output_names=["hidden", "kept"],
                verbose=False,
            )
    program.save(str(path))
