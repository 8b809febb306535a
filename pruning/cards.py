"""What a method says about itself, for a table or for JSON."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from pruning.methods.dense import Dense
from pruning.methods.fastv import FastV
from pruning.wrappers.base import Wrapper

if TYPE_CHECKING:
    from dataclasses import Field

    from pruning.base import Method

REFERENCE_LAYERS, EXAMPLE_KEEP = 32, 0.25
ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


@dataclass(frozen=True)
class FieldCard:
    """One field.

    Attributes:
        name: what to pass to `make_method`.
        default: its default; None with `required` when there is none.
        required: True when it must be given.
        doc: one line on what it does.
    """

    name: str
    default: object
    required: bool
    doc: str


@dataclass(frozen=True)
class MethodCard:
    """One method.

    Attributes:
        name: what to pass to `make_method`.
        summary: first line of its docstring.
        paper: where it comes from.
        needs: what it reads with its default fields, sorted.
        exportable: True when its selection can become part of an engine.
        adaptive: True when it chooses itself how many tokens it keeps; see `Method`.
        cost: what its choice costs, for n tokens of width d of which k are kept, t prompt tokens.
        cut: full layers of 32 by default, for causal and for parallel decoding.
        cuts: all of its cuts of 32 layers, for causal decoding.
        wraps: True when it is put around another method.
        profiles: names of its profiles.
        fields: its fields, in order.
    """

    name: str
    summary: str
    paper: str
    needs: tuple[str, ...]
    exportable: bool
    adaptive: bool
    cost: str
    cut: dict[str, int]
    cuts: tuple[int, ...]
    wraps: bool
    profiles: tuple[str, ...]
    fields: tuple[FieldCard, ...]


def describe(kind: type[Method]) -> MethodCard:
    """The card of a method class."""
    docs = {}
    for base in reversed(kind.__mro__):
        docs.update(_attribute_docs(base.__doc__ or ""))
    wraps = issubclass(kind, Wrapper)
    inside: dict[str, Any] = {"inner": FastV(1.0)} if wraps else {}
    method = kind(keep=1.0, **inside)
    pruning = method if kind is Dense else kind(keep=EXAMPLE_KEEP, **inside)
    return MethodCard(
        name=kind.name,
        summary=cleandoc(kind.__doc__ or "").partition("\n")[0],
        paper=kind.paper,
        needs=tuple(sorted(kind.own_needs if issubclass(kind, Wrapper) else method.needs)),
        exportable=method.exportable,
        adaptive=method.adaptive,
        cost=kind.cost,
        cut={
            "causal": method.full_layers(REFERENCE_LAYERS, True),
            "parallel": method.full_layers(REFERENCE_LAYERS, False),
            "of_layers": REFERENCE_LAYERS,
        },
        cuts=tuple(stage.cut for stage in pruning.stages(REFERENCE_LAYERS, True)),
        wraps=wraps,
        profiles=tuple(kind.profiles),
        fields=tuple(_field_card(field, docs) for field in fields(kind)),
    )


def _field_card(field: Field, docs: dict[str, str]) -> FieldCard:
    required = field.default is MISSING
    default = None if required else field.default
    return FieldCard(field.name, default, required, docs.get(field.name, ""))


def _attribute_docs(docstring: str) -> dict[str, str]:
    section = cleandoc(docstring).partition("Attributes:\n")[2].partition("\n\n")[0]
    return {name: " ".join(text.split()) for name, text in ATTRIBUTE.findall(section)}
