"""`leanvla bench-methods`: what the choice of tokens itself costs, beside a dense query."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leanvla.commands.arguments import split_list
from leanvla.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pruning.bench import Row

SCHEMA = "leanvla.bench_methods/1"


@dataclass(frozen=True)
class BenchMethods:
    """Time `select` of every pruning method on one CPU thread, in processor time.

    One view of tokens of width 4096 is drawn by chance, a quarter lives, and the methods take
    turns. The share is that of the dense prefill of a decoder of 7 B parameters on as many visual
    tokens, its multiply-accumulates at the rate of one matrix product on this thread; attention
    rows, towers and projectors are not part of a choice. Without --method the greedy loops are
    timed alone, too, on products that were made before.

    Attributes:
        tokens: visual tokens, separated by commas.
        method: methods, separated by commas; all of them when empty.
        rounds: choices timed per method.
        json: machine-readable output, which `scripts/methods_page.py` reads.
    """

    tokens: str = "256,576,1024,2880"
    method: str = ""
    rounds: int = 5
    json: bool = False


def run(config: BenchMethods) -> int:
    """Measure and print; returns the exit code.

    Raises:
        UsageError: on numbers that ask for something impossible.
        MethodError: for an unknown method.
    """
    if config.rounds < 1:
        raise UsageError(f"--rounds is {config.rounds}: give 1 or more")
    counts = [_count(text) for text in split_list(config.tokens, "--tokens")]
    methods = split_list(config.method, "--method") if config.method else None
    rows = [row for count in counts for row in _measure(count, methods, config.rounds)]
    loops = [] if methods else [row for count in counts for row in _loops(count, config.rounds)]
    if config.json:
        from leanvla.run_folder import environment

        facts = {"schema": SCHEMA, "rounds": config.rounds, "env": environment()}
        print(json.dumps(facts | {"rows": rows, "loops": loops}, indent=2))
        return 0
    _print_table("method", rows, counts)
    if loops:
        print()
        _print_table("loop alone", loops, counts)
    return 0


def _count(text: str) -> int:
    # A quarter of fewer would leave nothing to choose from.
    if not text.isdigit() or int(text) < 8:
        raise UsageError(f"--tokens has {text!r}: give whole numbers from 8 on")
    return int(text)


def _measure(tokens: int, methods: Sequence[str] | None, rounds: int) -> list[dict[str, Any]]:
    from pruning.bench import WIDTH, dense_query_us, measure

    print(f"{tokens} tokens", file=sys.stderr, flush=True)
    return _facts(tokens, measure((1, tokens, WIDTH), methods, rounds), dense_query_us(tokens))


def _loops(tokens: int, rounds: int) -> list[dict[str, Any]]:
    from pruning.bench import dense_query_us, measure_loops

    return _facts(tokens, measure_loops(tokens, rounds), dense_query_us(tokens))


def _facts(tokens: int, rows: Sequence[Row], dense_us: float) -> list[dict[str, Any]]:
    return [
        {
            "method": row.method,
            "tokens": tokens,
            "p50_us": round(row.p50_us, 1),
            "best_us": round(row.best_us, 1),
            "share_of_dense_query": row.p50_us / dense_us,
        }
        for row in rows
    ]


def _print_table(head: str, rows: Sequence[dict[str, Any]], counts: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(head, no_wrap=True)
    for count in counts:
        table.add_column(f"{count} ms", justify="right")
        table.add_column("of query", justify="right")
    cells = {(row["method"], row["tokens"]): row for row in rows}
    for method in dict.fromkeys(row["method"] for row in rows):
        found = (cells[method, count] for count in counts)
        shown = ((f"{c['p50_us'] / 1e3:.2f}", f"{c['share_of_dense_query']:.2%}") for c in found)
        table.add_row(method, *(text for pair in shown for text in pair))
    Console(width=max(80, 26 + 20 * len(counts)), highlight=False).print(table)
