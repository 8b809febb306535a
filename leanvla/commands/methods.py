"""`leanvla methods`: every pruning method and wrapper: paper, needs, cut, cost and fields."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from inspect import cleandoc
from typing import TYPE_CHECKING

import tyro

from leanvla.errors import UsageError
from pruning.cards import describe
from pruning.kv_select import ABOUT, EXAMPLE, NAME, KVSelect
from pruning.registry import WRAPPERS, all_methods, find_method

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pruning.base import Method
    from pruning.cards import FieldCard, MethodCard

SCHEMA = "leanvla.methods/2"

CUTS = (
    "cut: full layers of a 32-layer autoregressive decoder, scaled to other depths; one more where "
    "decoding is parallel and the paper names no layer\n"
    "exportable: static shapes, so it can become part of an engine; adaptive: chooses a rung of "
    "the ladder itself, up to keep, or from keep up where the other tokens are reused"
)


ELSEWHERE = f"{NAME}: in `leanvla vlm` alone, as {EXAMPLE}: {ABOUT}"


@dataclass(frozen=True)
class Methods:
    """List the pruning methods, or say all there is to say of some.

    Attributes:
        names: methods or wrappers, e.g. `fastv quota`; all of them in short when left out.
        json: machine-readable output instead of a table.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    json: bool = False


def run(args: Methods) -> int:
    """Print the list; returns the exit code.

    Raises:
        MethodError: for an unknown name; says the nearest.
        UsageError: for the card of what is no method.
    """
    names = [name.partition(":")[0] for name in args.names]
    if args.json and NAME in names:
        raise UsageError(f"{ELSEWHERE}. It has no card: leave --json out")
    kinds = [find_method(name) for name in names if name != NAME]
    if not names:
        kinds = [*all_methods().values(), *WRAPPERS.values()]
    if args.json:
        cards = [asdict(describe(kind)) for kind in kinds]
        print(json.dumps({"schema": SCHEMA, "methods": cards}, indent=2))
        return 0
    if NAME in names:
        print(f"{ELSEWHERE}\n\n{cleandoc(KVSelect.__doc__ or '')}\n")
    _print_table(kinds, whole=bool(names))
    if not names:
        print(ELSEWHERE)
    return 0


def _print_table(kinds: Iterable[type[Method]], *, whole: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for kind in kinds:
        card = describe(kind)
        name = f"{card.name}+…" if card.wraps else card.name
        console.print(f"[bold]{name}[/bold]  {card.summary}", highlight=False)
        if whole:
            console.print(_more(kind), highlight=False, markup=False)
        for key, value in _facts(card).items():
            console.print(f"  {key:<6} {value}", highlight=False)
        table = Table(box=None, show_header=False, padding=(0, 2))
        for field in card.fields:
            table.add_row(field.name, _default(field), field.doc)
        console.print(table)
        console.print()
    console.print(CUTS, highlight=False)


def _more(kind: type[Method]) -> str:
    """What a docstring says behind its first line and before its fields."""
    text = cleandoc(kind.__doc__ or "").partition("Attributes:")[0].partition("\n")[2].strip()
    return f"\n{text}\n" if text else ""


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
