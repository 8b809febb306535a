"""`leanvla methods`: every pruning method and wrapper: paper, needs, cut, cost and fields."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pruning.cards import describe
from pruning.registry import WRAPPERS, all_methods

if TYPE_CHECKING:
    from pruning.cards import FieldCard, MethodCard

SCHEMA = "leanvla.methods/2"

CUTS = (
    "cut: full layers of a 32-layer autoregressive decoder, scaled to other depths; one more where "
    "decoding is parallel and the paper names no layer\n"
    "exportable: static shapes, so it can become part of an engine; adaptive: chooses a rung of "
    "the ladder itself, up to keep, or from keep up where the other tokens are reused"
)


@dataclass(frozen=True)
class Methods:
    """List the pruning methods.

    Attributes:
        json: machine-readable output instead of a table.
    """

    json: bool = False


def run(args: Methods) -> int:
    """Print the list; returns the exit code."""
    cards = [describe(kind) for kind in (*all_methods().values(), *WRAPPERS.values())]
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
        name = f"{card.name}+…" if card.wraps else card.name
        console.print(f"[bold]{name}[/bold]  {card.summary}", highlight=False)
        for key, value in _facts(card).items():
            console.print(f"  {key:<6} {value}", highlight=False)
        table = Table(box=None, show_header=False, padding=(0, 2))
        for field in card.fields:
            table.add_row(field.name, _default(field), field.doc)
        console.print(table)
        console.print()
    console.print(CUTS, highlight=False)


def _facts(card: MethodCard) -> dict[str, str]:
    """What there is to say, by a short word."""
    cuts = ", ".join(map(str, card.cuts))
    whose = "as inside, e.g. " if card.wraps else ""
    kind = [
        word
        for word, true in (("exportable", card.exportable), ("adaptive", card.adaptive))
        if true
    ]
    facts = {
        "paper": card.paper,
        "needs": ", ".join(card.needs) or "nothing",
        "cut": f"{whose}{cuts} of {card.cut['of_layers']}"
        if card.cuts != (0,)
        else "before layer 0",
        "cost": card.cost,
        "is": ", ".join(kind),
        "compat": ", ".join(card.profiles),
    }
    return {key: value for key, value in facts.items() if value}


def _default(field: FieldCard) -> str:
    return (
        "required"
        if field.required
        else "auto"
        if field.default in (None, ())
        else str(field.default)
    )
