"""What a method says about itself, for a table or for JSON."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from inspect import cleandoc
from typing import TYPE_CHECKING

from pruning.base import default_cut

if TYPE_CHECKING:
    from dataclasses import Field

    from pruning.base import Method

REFERENCE_LAYERS = 32
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
        cut: full layers of 32 by default, for causal and for parallel decoding.
        profiles: names of its profiles.
        fields: its fields, in order.
    """

    name: str
    summary: str
    paper: str
    needs: tuple[str, ...]
    exportable: bool
    cut: dict[str, int]
    profiles: tuple[str, ...]
    fields: tuple[FieldCard, ...]


def describe(kind: type[Method]) -> MethodCard:
    """The card of a method class."""
    docs = {}
    for base in reversed(kind.__mro__):
        docs.update(_attribute_docs(base.__doc__ or ""))
    method = kind(keep=1.0)
    return MethodCard(
        name=kind.name,
        summary=cleandoc(kind.__doc__ or "").partition("\n")[0],
        paper=kind.paper,
        needs=tuple(sorted(method.needs)),
        exportable=kind.exportable,
        cut={
            "causal": default_cut(REFERENCE_LAYERS, True),
            "parallel": default_cut(REFERENCE_LAYERS, False),
            "of_layers": REFERENCE_LAYERS,
        },
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
