"""Pruning methods by name, the built-in ones and those of other packages.

A package adds its own with an entry point: group `leanvla.pruning`, name of the method, class.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from importlib.metadata import entry_points
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from pruning.base import NEEDS, Method, MethodError
from pruning.methods.adp import ADP
from pruning.methods.cdpruner import CDPruner
from pruning.methods.dart import DART
from pruning.methods.dense import Dense
from pruning.methods.divprune import DivPrune
from pruning.methods.fastv import FastV
from pruning.methods.lightvla import LightVLA
from pruning.methods.mmtok import MMTok
from pruning.methods.oracle import Oracle
from pruning.methods.pact import PACT
from pruning.methods.prefill_mean import PrefillMean
from pruning.methods.prumerge import PruMerge
from pruning.methods.random import Random
from pruning.methods.sparsevlm import SparseVLM
from pruning.methods.todre import ToDRE
from pruning.methods.tokenselect import TokenSelect
from pruning.methods.transprune import TransPrune
from pruning.methods.uniform import Uniform
from pruning.methods.visionzip import VisionZip
from pruning.methods.vla_cache import VLACache
from pruning.methods.vla_pruner import VLAPruner
from pruning.methods.zoo_prune import ZOOPrune
from pruning.spelling import did_you_mean
from pruning.wrappers.base import Wrapper
from pruning.wrappers.ladder import Ladder
from pruning.wrappers.quota import Quota
from pruning.wrappers.reuse import Reuse
from pruning.wrappers.schedule import Schedule
from pruning.wrappers.smooth import Smooth

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

GROUP = "leanvla.pruning"

_KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a word"),
}

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Dense, Random, Uniform, FastV, PrefillMean, SparseVLM, DART, TokenSelect, TransPrune, PACT,
        VLACache, DivPrune, CDPruner, MMTok, ToDRE, ADP, LightVLA, VisionZip, PruMerge, ZOOPrune,
        Oracle, VLAPruner,
    )
}  # fmt: skip

WRAPPERS: dict[str, type[Wrapper]] = {
    wrapper.name: wrapper for wrapper in (Quota, Schedule, Smooth, Reuse, Ladder)
}


def make_method(name: str, /, *, compat: str | None = None, **fields: Any) -> Method:
    """Build a method by name.

    Args:
        name: built-in name, or the name of an entry point. Options may follow after colons, so that
            one word names a variant: `vla_pruner:release`, `vla_pruner:hold=zero:window=1`.
            Wrappers stand before it with a plus each, outermost first: `quota:power=1+divprune`.
            Several numbers are joined by dashes: `schedule:cuts=2-6-15:keeps=0.5-0.3-0.2+fastv`.
        compat: one of the method's profiles, e.g. `release`; `fields` override it.
        **fields: the method's fields, which options override, all but `keep`, which is given once
            (and may be left out for `dense` alone). Those of a wrapper are options only.

    Raises:
        MethodError: for an unknown name, profile or field (lists valid ones and the nearest), for a
            value of a wrong type, or for two values of `keep`.
        BudgetError: for an impossible `keep`.
    """
    outer, plus, inside = name.partition("+")
    if plus:
        inner = make_method(inside, compat=compat, **fields)
        return _build(outer, None, {"keep": inner.keep, "inner": inner})
    return _build(name, compat, fields)


def _build(spec: str, compat: str | None, fields: dict[str, Any]) -> Method:
    """One method or wrapper from its name with options."""
    name, *options = spec.split(":")
    kind = find_method(name)
    if "inner" in fields and not issubclass(kind, Wrapper):
        raise MethodError(f"{name} wraps no other method: choose from {', '.join(WRAPPERS)}")
    known = {field.name: field.default for field in dataclass_fields(kind)}
    for option in options:
        key, given, text = option.partition("=")
        if given:
            _require(key, known, f"field of {name}")
            if key == "keep" and "keep" in fields:
                raise MethodError(f"keep is {fields[key]} and {text} for {name}: give it once")
            fields[key] = _value(key, text, known[key])
        else:
            compat = key
    if compat is not None:
        _require(str(compat), kind.profiles, f"profile of {name}")
        fields = {**kind.profiles[compat], **fields}
    for key, value in fields.items():
        _require(key, known, f"field of {name}")
        _check_type(key, value, known[key])
    if known["keep"] is MISSING and "keep" not in fields:
        raise MethodError(f"{name} needs keep: a ratio in (0, 1] or a token count")
    return kind(**fields)


def find_method(name: str) -> type[Method]:
    """The class of a method or wrapper.

    Raises:
        MethodError: for an unknown name, or when a package's entry point is not a valid method.
    """
    own = METHODS | WRAPPERS
    if name in own:
        return own[name]
    plugins = _plugins()
    _require(name, own.keys() | plugins.keys(), "pruning method")
    return _load(plugins[name])


def all_methods() -> dict[str, type[Method]]:
    """Every built-in method, then those of other packages in order of name."""
    plugins = {name: _load(point) for name, point in sorted(_plugins().items())}
    return {**METHODS, **plugins}


def _plugins() -> dict[str, EntryPoint]:
    own = METHODS.keys() | WRAPPERS.keys()
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in own}


def _load(point: EntryPoint) -> type[Method]:
    try:
        kind = point.load()
    except Exception as error:  # another package's code may raise anything
        what = f"{type(error).__name__}: {error}"
        raise MethodError(
            f"pruning method {point.name!r} at {point.value} does not load ({what}): mend or "
            "uninstall its package"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise MethodError(f"pruning method {point.name!r} at {point.value} is not a Method class")
    if isinstance(kind.needs, frozenset):
        for need in kind.needs:
            _require(need, NEEDS, f"need of {point.name}")
    return kind


def _value(key: str, text: str, default: object) -> object:
    """An option's text as the type of the field's default; a number where there is none."""
    if isinstance(default, str):
        return text
    if isinstance(default, tuple):
        return tuple(
            _value(key, number, None if key == "cuts" else 0.0) for number in text.split("-")
        )
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise MethodError(f"{key} is {text!r}: give true or false")
    for convert in (int,) if default is None or isinstance(default, int) else (int, float):
        with suppress(ValueError):
            return convert(text)
    raise MethodError(f"{key} is {text!r}: give a number")


def _check_type(key: str, value: object, default: object) -> None:
    """Refuse a value of another type than its field's default, which `key` has."""
    kind = type(default)
    if key == "keep" or kind not in _KINDS:  # a budget, and what is optional, check themselves
        return
    accepted, words = _KINDS[kind]
    if not isinstance(value, accepted) or isinstance(value, bool) is not (kind is bool):
        raise MethodError(f"{key} is {value!r}: give {words}, e.g. {default}")


def _require(name: str, valid: Iterable[str], what: str) -> None:
    names = sorted(valid)
    if name in names:
        return
    hint = did_you_mean(name, names)
    raise MethodError(f"unknown {what} {name!r}: choose from {', '.join(names) or 'none'}{hint}")
