"""What sharing a forward pass gains: processor time of a query alone and in a batch.

    python scripts/bench_batch.py --method vla_pruner --keep 0.25 --environments 8

Alone and together run in turn, on one thread, on the same observations (noise) and states. The
tokens that a query keeps must be the same both ways, or the script fails. With `--arithmetic` it
also says how many operations a second that is, and how many the same core does in single products:
what is near them already cannot gain by company.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from policy.openvla.macs import query_macs
from policy.openvla.random_weights import random_network, random_policy
from policy.registry import load_policy, resolve_policy
from policy.types import Observation
from pruning.registry import make_method

if TYPE_CHECKING:
    from policy.openvla.policy import OpenVLAPolicy

WORDS = "pick up the red cube"
SIZE = 96


def main() -> int:
    """Measure and print one line; 1 when a query kept other tokens in company."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--policy", default="mini")
    parser.add_argument("--method", default="dense")
    parser.add_argument("--keep", type=float, default=1.0)
    parser.add_argument("--environments", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--autoregressive",
        action="store_true",
        help="decode token by token: random weights in the policy's shape",
    )
    parser.add_argument("--arithmetic", action="store_true", help="count operations per second")
    given = parser.parse_args()
    torch.set_num_threads(1)
    policy = make_policy(given)
    looks = [look(policy, number) for number in range(given.environments)]
    states = [policy.infer(seen, policy.initial_state()).state for seen in looks]
    policy.infer_batch(looks, states)
    alone_s, together_s, same = [], [], True
    for _ in range(given.rounds):
        began = time.process_time()
        alone = [policy.infer(seen, state) for seen, state in zip(looks, states, strict=True)]
        between = time.process_time()
        together = policy.infer_batch(looks, states)
        alone_s.append(between - began)
        together_s.append(time.process_time() - between)
        for one, other in zip(alone, together, strict=True):
            pairs = zip(one.chunk.kept, other.chunk.kept, strict=True)
            same &= all(np.array_equal(kept, again) for kept, again in pairs)
    one, many = (statistics.median(s) / given.environments * 1e3 for s in (alone_s, together_s))
    print(
        f"{given.method} @ {given.keep:g}: alone {one:.1f} ms, {given.environments} together "
        f"{many:.1f} ms of processor time per query, {one / many:.2f} x; "
        f"{'the same' if same else 'OTHER'} tokens kept"
    )
    if given.arithmetic:
        print(arithmetic(policy, given.environments, one, many))
    return 0 if same else 1


def arithmetic(policy: OpenVLAPolicy, environments: int, one_ms: float, many_ms: float) -> str:
    """Operations per second of a query alone and in company, beside those of single products."""
    config, method = policy.config, policy.pruner.method
    cut = policy.pruner.cut if method.prunes else config.text.num_hidden_layers
    kept = method.budget.tokens(config.tokens_per_view)
    macs = query_macs(config, cut=cut, kept_per_view=kept)
    giga = 2 * macs.total / 1e9
    rows, width = len(config.views) * config.tokens_per_view, config.text.hidden_size
    shapes = [(rows, width), (rows * environments, width), (1024, 1024)]
    rates = ", ".join(
        f"{product_rate(tall, wide):.0f} at {tall} x {wide} x {2 * wide}" for tall, wide in shapes
    )
    return (
        f"{giga:.2f} GFLOP a query: alone {giga / one_ms * 1e3:.0f} GFLOP/s, together "
        f"{giga / many_ms * 1e3:.0f}; single products on this core: {rates}"
    )


def product_rate(rows: int, width: int) -> float:
    """GFLOP/s of a matrix product with `2 * width` columns, the best of a tenth of a second."""
    left, right = torch.rand(rows, width), torch.rand(width, 2 * width)
    operations = 4 * rows * width * width
    times = max(1, round(2e8 / operations))
    spent = []
    until = time.process_time() + 0.1
    while time.process_time() < until:
        began = time.process_time()
        for _ in range(times):
            left @ right
        spent.append(time.process_time() - began)
    return operations * times / min(spent) / 1e9


def make_policy(given: argparse.Namespace) -> OpenVLAPolicy:
    """The policy as it is, or an autoregressive one of its shape."""
    if not given.autoregressive:
        return load_policy(given.policy, method=given.method, keep=given.keep)
    from policy.openvla.config import load_config

    config = load_config(resolve_policy(given.policy))
    config = replace(config, decoding="autoregressive", chunk=1, head="discrete")
    return random_policy(random_network(config), config, make_method(given.method, keep=given.keep))


def look(policy: OpenVLAPolicy, number: int) -> Observation:
    """What one environment sees: noise, since only time is measured."""
    rng = np.random.default_rng(number)
    spec = policy.observation_spec
    images = tuple(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in spec.views)
    state = rng.normal(0.0, 0.1, len(spec.state_names)).astype(np.float32)
    return Observation(images, state, WORDS, 0.0, number)


if __name__ == "__main__":
    sys.exit(main())
