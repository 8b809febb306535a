"""`leanvla inspect`: what a checkpoint is, and what pruning can save on it at most."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tyro.conf import Positional

from policy.openvla.config import load_config
from policy.openvla.layout import count_parameters
from policy.openvla.macs import most_speedup, query_macs
from policy.registry import describing_files, resolve_policy
from pruning.types import Budget

if TYPE_CHECKING:
    from rich.console import Console

    from policy.openvla.config import OpenVLAConfig

SCHEMA = "leanvla.inspect/1"
RATIOS = (1.0, 0.5, 0.25, 0.125, 0.0625)


@dataclass(frozen=True)
class Inspect:
    """Describe a checkpoint without reading its weights.

    Attributes:
        policy: name of a packaged policy, or a folder: a checkpoint's or an engine's.
        cut: full decoder layers to count with; the checkpoint's or the family's when left out.
        json: machine-readable output.
    """

    policy: Positional[str] = "mini"
    cut: int | None = None
    json: bool = False


def run(config: Inspect) -> int:
    """Print the description; returns the exit code."""
    folder = resolve_policy(config.policy)
    card = describe(load_config(describing_files(folder)), config.cut)
    if config.json:
        print(json.dumps({"schema": SCHEMA, "folder": str(folder), **card}, indent=2))
    else:
        _show(str(folder), card)
    return 0


def describe(config: OpenVLAConfig, cut: int | None = None) -> dict[str, object]:
    """Everything that `inspect` prints, as plain values.

    Raises:
        ValueError: when no layer would be left below or above the cut.
    """
    layers = config.text.num_hidden_layers
    cut = _cut(config) if cut is None else cut
    if not 1 <= cut < layers:
        raise ValueError(f"cut is {cut}: a decoder of {layers} layers is cut at 1 ... {layers - 1}")
    stages = {ratio: _stage(config, cut, ratio) for ratio in RATIOS}
    dense = stages[1.0]["total"]
    return {
        "architecture": _architecture(config),
        "parameters": count_parameters(config),
        "visual_tokens_per_view": config.tokens_per_view,
        "views": list(config.views),
        "proprio": list(config.state_names),
        "actions": list(config.action_names),
        "cut_layer": cut,
        "norm_stats": list(config.norm_stats),
        "macs": [
            {"keep": ratio, **stage, "speedup_at_most": dense / stage["total"]}
            for ratio, stage in stages.items()
        ],
        "speedup_limit": most_speedup(config, cut),
    }


def _cut(config: OpenVLAConfig) -> int:
    if config.cut_layer is not None:
        return config.cut_layer
    from pruning.base import default_cut

    causal = config.decoding == "autoregressive"
    return default_cut(config.text.num_hidden_layers, causal)


def _stage(config: OpenVLAConfig, cut: int, ratio: float) -> dict[str, int]:
    """MACs of a query by phase at one keep ratio, and their sum."""
    kept = Budget(ratio).tokens(config.tokens_per_view)
    macs = query_macs(config, cut=cut, kept_per_view=kept)
    return {"kept_per_view": kept, **asdict(macs), "total": macs.total}


def _architecture(config: OpenVLAConfig) -> dict[str, object]:
    text = config.text
    towers = [
        f"{t.timm_id}: {t.depth} blocks of {t.width}, {t.image_size} px in patches of "
        f"{t.patch_size}{', FiLM' if t.film else ''}"
        for t in config.towers
    ]
    return {
        "arch": config.arch,
        "towers": towers,
        "decoder": f"{text.num_hidden_layers} Llama layers of {text.hidden_size}, "
        f"{text.num_attention_heads} heads, MLP {text.intermediate_size}, "
        f"vocabulary {text.vocab_size}",
        "decoding": config.decoding,
        "head": config.head,
        "chunk": config.chunk,
        "dof": config.dof,
        "rate_hz": config.rate_hz,
        "image_steps": _image_steps(config),
    }


def _image_steps(config: OpenVLAConfig) -> str:
    steps = ["JPEG and Lanczos-3 resize"] if config.eval_resize else [config.resize]
    return ", ".join(steps + (["centre crop 0.9"] if config.centre_crop else []))


def _show(folder: str, card: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    facts = Table(show_header=False, box=None)
    facts.add_row("folder", folder)
    for name, value in card["architecture"].items():
        facts.add_row(name, "\n".join(value) if isinstance(value, list) else str(value))
    total = sum(card["parameters"].values())
    parts = ", ".join(f"{part} {_si(count)}" for part, count in card["parameters"].items())
    facts.add_row("parameters", f"{_si(total)}: {parts}")
    facts.add_row("visual tokens", f"{card['visual_tokens_per_view']} per view")
    facts.add_row("views", ", ".join(card["views"]))
    for name in ("proprio", "actions", "norm_stats"):
        facts.add_row(name, ", ".join(card[name]) or "none")
    facts.add_row("cut", f"{card['cut_layer']} full decoder layers")
    console.print(facts)
    _show_macs(console, card)


def _show_macs(console: Console, card: dict) -> None:
    from rich.table import Table

    phases = {
        "vision": "vision",
        "prefill_below": "below cut",
        "prefill_above": "above cut",
        "decode": "decode",
        "head": "head",
        "total": "total",
    }
    table = Table(title="MACs of a query, and the most that pruning can gain")
    for column in ("keep", "tokens", *phases.values(), "gain <="):
        table.add_column(column, justify="right")
    for row in card["macs"]:
        counts = (_si(row[phase]) for phase in phases)
        gain = f"{row['speedup_at_most']:.2f}x"
        table.add_row(f"{row['keep']:g}", str(row["kept_per_view"]), *counts, gain)
    console.print(table)
    console.print(f"without any visual token above the cut: {card['speedup_limit']:.2f}x")


def _si(count: int) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
