"""The roofline against this processor: four random networks, predicted and measured.

`python -m tests.policy.roofline FIGURE.svg` draws what it finds. Processor time of one thread.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from engines.profile.calibrate import best_s, measure_processor
from engines.profile.roofline import bounds, query_ms
from policy.openvla.random_weights import random_network, random_policy
from policy.openvla.shapes import shape
from policy.openvla.traffic import Cut, query_stages
from policy.profiling import PolicyCell, synthetic_scenes
from pruning.registry import make_method


class Row(NamedTuple):
    """A network, its least time and its time, ms."""

    name: str
    predicted_ms: float
    measured_ms: float

    @property
    def factor(self) -> float:
        return self.measured_ms / self.predicted_ms


def networks():
    """OpenVLA-OFT's and OpenVLA's sequences at two widths that a test can afford."""
    small = replace(shape("oft-small"), empty_token_id=None)
    for width, mlp, tower in ((256, 704, 128), (512, 1408, 192)):
        heads = width // 64
        text = replace(
            small.text,
            vocab_size=4096,
            hidden_size=width,
            intermediate_size=mlp,
            num_hidden_layers=6,
            num_attention_heads=heads,
            num_key_value_heads=heads,
        )
        towers = tuple(
            replace(t, width=tower, depth=4, heads=tower // 64, mlp_width=4 * tower)
            for t in small.towers
        )
        parallel = replace(small, text=text, towers=towers)
        yield f"parallel chunks, width {width}", parallel
        one_by_one = replace(parallel, decoding="autoregressive", head="discrete", chunk=1)
        yield f"token by token, width {width}", one_by_one


def validate(tries: int = 3) -> list[Row]:
    """Predict and measure every network."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        peak = measure_processor(torch.float32)
        return [Row(name, *_compare(config, peak, tries)) for name, config in networks()]
    finally:
        torch.set_num_threads(threads)


def _compare(config, peak, tries):
    policy = random_policy(random_network(config), config, make_method("dense", keep=1.0))
    cell = PolicyCell(policy, synthetic_scenes(policy, 224, count=1), "pick up the red cube")
    rounds = iter(range(tries + 1))
    measured_ms = best_s(lambda: cell(next(rounds)), tries) * 1e3
    timing = cell.timings[-1]
    prompt = policy.runtime.model.layout(torch.ones(1, 1, dtype=torch.long)).length
    cut = Cut(policy.pruner.cut, config.tokens_per_view, 1 + timing.sequence_tokens - prompt)
    stages = query_stages(config, cut, weight_type="float32", data_type="float32")
    return query_ms(bounds(stages, peak)), measured_ms


def draw(rows: list[Row]) -> str:
    """Bars: what is predicted at least, and what was measured."""
    longest = max(row.measured_ms for row in rows)
    height, parts = 30 + 56 * len(rows), []
    for i, row in enumerate(rows):
        y = 24 + 56 * i
        parts.append(f'<text x="10" y="{y + 22}">{row.name}</text>')
        for shift, ms, colour, word in (
            (0, row.predicted_ms, "#9aa0a8", "at least"),
            (19, row.measured_ms, "#2f6fb2", "measured"),
        ):
            width = 430 * ms / longest
            label = f"{word} {ms:.0f} ms" + (f" ({row.factor:.2f}×)" if shift else "")
            parts.append(
                f'<rect x="220" y="{y + shift}" width="{width:.1f}" height="16" fill="{colour}"/>'
                f'<text x="{226 + width:.1f}" y="{y + shift + 13}" fill="#626973">{label}</text>'
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 {height}" width="820" '
        f'font-family="sans-serif" font-size="12"><rect width="820" height="{height}" '
        f'fill="#fff"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    found = validate()
    for each in found:
        sys.stdout.write(
            f"{each.name}: {each.predicted_ms:.1f} {each.measured_ms:.1f} {each.factor:.2f}\n"
        )
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(draw(found), encoding="utf-8")
