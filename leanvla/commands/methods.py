"""`leanvla methods`: every pruning method with its paper, needs, cut and fields."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pruning.cards import describe
from pruning.registry import all_methods

if TYPE_CHECKING:
    from pruning.cards import FieldCard, MethodCard

SCHEMA = "leanvla.methods/1"


@dataclass(frozen=True)
class Methods:
    """List the pruning methods.

    Attributes:
        json: machine-readable output instead of a table.
    """

    json: bool = False


def run(args: Methods) -> int:
    """Print the list; returns the exit code."""
    cards = [describe(kind) for kind in all_methods().values()]
    if args.json:
        print(json.dumps({"schema": SCHEMA, "methods": [asdict(card) for card in cards]}, indent=2))
        return 0
    _print_table(cards)
    return 0


def _print_table(cards: list[MethodCard]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for card in cards:
        console.print(f"[bold]{card.name}[/bold]  {card.summary}", highlight=False)
        console.print(f"  paper  {card.paper}", highlight=False)
        console.print(f"  needs  {', '.join(card.needs) or 'nothing'}", highlight=False)
        if card.profiles:
            console.print(f"  compat {', '.join(card.profiles)}", highlight=False)
        table = Table(box=None, show_header=False, padding=(0, 2))
        for field in card.fields:
            table.add_row(field.name, _default(field), field.doc)
        console.print(table)
        console.print()
    cut = cards[0].cut
    console.print(
        f"cut by default: {cut['causal']} full layers of {cut['of_layers']} (autoregressive), "
        f"{cut['parallel']} (parallel decoding), scaled to the decoder's depth",
        highlight=False,
    )


def _default(field: FieldCard) -> str:
    return "required" if field.required else "auto" if field.default is None else str(field.default)
