"""What a rollout's report says of its engine beside torch, which did not run."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.page import paragraph, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Run = Mapping[str, Any]

HEADS = (
    *("", "engine p50 ms", "GMAC", "least ms", "engine's share of the rate"),
    *("torch must need ms", "torch's share"),
)


def torch_section(runs: Sequence[tuple[str, Run]]) -> tuple[str, ...]:
    """A sentence, a table and the commands that measure; nothing when no engine was bounded.

    Args:
        runs: names and entries of `metrics.json`.
    """
    told = [(name, run) for name, run in runs if run.get("torch_bound")]
    if not told:
        return ()
    bound = told[0][1]["torch_bound"]
    rate, wanted = f"{bound['flop_per_s'] / 1e9:.0f} GFLOP/s", f"{bound['wanted']:g}×"
    text = (
        "torch was not run here, so its ratio to the engine was not measured. Both must compute "
        f"the same products. Least is their time at {rate}, which numpy reached on large float32 "
        "matrices on this processor: no float32 runtime can save more than what lies above it. "
        f"The engine is {wanted} as fast as torch only where torch needs more than the time in "
        "the last column but one, and so reaches no more than the last column's share of that "
        f"rate; a torch that reaches more is why it is not {wanted}. Engine times are wall time, "
        "beside everything else that ran. What measures the ratio:"
    )
    commands = "".join(f"<li><code>{escape(each)}</code></li>" for each in _commands(told))
    rows = [_row(name, run) for name, run in told]
    return paragraph(text), f"<ul>{commands}</ul>", table(HEADS, rows)


def _row(name: str, run: Run) -> list[str]:
    bound = run["torch_bound"]
    return [
        escape(name),
        f"{run['query_latency_ms']['p50']:.2f}",
        f"{bound['macs'] / 1e9:.3f}",
        f"{bound['least_ms']:.2f}",
        f"{bound['least_ms'] / run['query_latency_ms']['p50']:.0%}",
        f"{bound['wanted_torch_ms']:.2f}",
        f"{bound['wanted_torch_rate']:.0%}",
    ]


def _commands(told: Iterable[tuple[str, Run]]) -> list[str]:
    return list(dict.fromkeys(run["torch_bound"]["command"] for _, run in told))
