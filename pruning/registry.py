"""Pruning methods by name, the built-in ones and those of other packages.

A package adds its own with an entry point: group `leanvla.pruning`, name of the method, class.
"""

from __future__ import annotations

import difflib
from dataclasses import fields as dataclass_fields
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from pruning.base import NEEDS, Method, MethodError
from pruning.methods.dense import Dense
from pruning.methods.fastv import FastV
from pruning.methods.prefill_mean import PrefillMean
from pruning.methods.random import Random
from pruning.methods.uniform import Uniform
from pruning.methods.vla_pruner import VLAPruner

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

GROUP = "leanvla.pruning"

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Dense, Random, Uniform, FastV, PrefillMean, VLAPruner)
}


def make_method(name: str, *, compat: str | None = None, **fields: object) -> Method:
    """Build a method by name.

    Args:
        name: built-in name, or the name of an entry point.
        compat: one of the method's profiles, e.g. `release`; `fields` override it.
        **fields: the method's fields; `keep` is required except for `dense`.

    Raises:
        MethodError: for an unknown name, profile or field; lists valid ones and the nearest.
        BudgetError: for an impossible `keep`.
    """
    kind = find_method(name)
    if compat is not None:
        _require(compat, kind.profiles, f"profile of {name}")
        fields = {**kind.profiles[compat], **fields}
    valid = {field.name for field in dataclass_fields(kind)}
    for field in fields:
        _require(field, valid, f"field of {name}")
    if "keep" not in fields and kind is not Dense:
        raise MethodError(f"{name} needs keep: a ratio in (0, 1] or a token count")
    return kind(**fields)


def find_method(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        MethodError: for an unknown name, or when a package's entry point is not a valid method.
    """
    if name in METHODS:
        return METHODS[name]
    plugins = _plugins()
    _require(name, METHODS.keys() | plugins.keys(), "pruning method")
    return _load(plugins[name])


def all_methods() -> dict[str, type[Method]]:
    """Every built-in method, then those of other packages in order of name."""
    plugins = {name: _load(point) for name, point in sorted(_plugins().items())}
    return {**METHODS, **plugins}


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in METHODS}


def _load(point: EntryPoint) -> type[Method]:
    try:
        kind = point.load()
    except (ImportError, AttributeError) as error:
        raise MethodError(f"pruning method {point.name!r} at {point.value}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise MethodError(f"pruning method {point.name!r} at {point.value} is not a Method class")
    if isinstance(kind.needs, frozenset):
        for need in kind.needs:
            _require(need, NEEDS, f"need of {point.name}")
    return kind


def _require(name: str, valid: Iterable[str], what: str) -> None:
    names = sorted(valid)
    if name in names:
        return
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise MethodError(f"unknown {what} {name!r}: choose from {', '.join(names) or 'none'}{hint}")
