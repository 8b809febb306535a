"""Which rung of an engine a method and a budget ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engines.errors import EngineError
from policy.openvla.engine.plan import DENSE, fitted
from pruning.registry import make_method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.manifest import Listing, Rung
    from policy.openvla.config import OpenVLAConfig
    from pruning.base import Method


def find_rung(manifest: Listing, method: Method, config: OpenVLAConfig) -> Rung:
    """The rung that runs this method at its budget; a budget of everything is the dense one.

    Raises:
        EngineError: when there is none, with those that there are.
        BudgetError: when a view has fewer tokens.
    """
    tokens = method.budget.tokens(config.tokens_per_view)
    whole = tokens == config.tokens_per_view
    for rung in manifest.rungs:
        if (whole and rung.method == DENSE) or (
            rung.tokens == tokens and _same(rung, method, config)
        ):
            return rung
    raise EngineError(
        f"the engine has no rung for {_words(method)} with {tokens} tokens per view: it has "
        f"{listed(manifest)}; choose one of them, or rebuild with other --method and --keep: "
        f"`{manifest.rebuild}`"
    )


def choose_rungs(
    manifest: Listing, config: OpenVLAConfig, methods: Sequence[str], keeps: Sequence[float]
) -> list[Rung]:
    """Dense, and every method at every keep ratio, as a rollout's grid has them.

    Args:
        manifest: of the engine.
        config: the policy's architecture.
        methods: as they were exported; all when empty.
        keeps: ratios; all when empty.

    Raises:
        EngineError: when the engine lacks one, with those that there are.
        MethodError: for an unknown method or field.
        BudgetError: for a keep ratio outside (0, 1].
    """
    pruned = [rung for rung in manifest.rungs if rung.method != DENSE]
    names = methods or list(dict.fromkeys(rung.method for rung in pruned))
    ratios = keeps or list(dict.fromkeys(rung.keep for rung in pruned))
    asked = [make_method(DENSE)]
    asked += [make_method(name, keep=keep) for name in names if name != DENSE for keep in ratios]
    found = [find_rung(manifest, method, config) for method in asked]
    return [rung for number, rung in enumerate(found) if rung not in found[:number]]


def next_lower(manifest: Listing, rung: Rung) -> Rung | None:
    """The rung of the same method with the next smaller budget; None below the last."""
    lower = [r for r in manifest.rungs if r.method == rung.method and r.tokens < rung.tokens]
    return max(lower, key=lambda r: r.tokens, default=None)


def listed(manifest: Listing) -> str:
    """`dense; vla_pruner at 0.5, 0.25`."""
    by_method: dict[str, list[str]] = {}
    for rung in manifest.rungs:
        by_method.setdefault(rung.method, []).append(f"{rung.keep:g}")
    return "; ".join(
        name if name == DENSE else f"{name} at {', '.join(keeps)}"
        for name, keeps in by_method.items()
    )


def graphs_of(rung: Rung) -> list[str]:
    """Names of the graphs that a rung runs, in order."""
    return list(dict.fromkeys(rung.stages.values()))


def _same(rung: Rung, method: Method, config: OpenVLAConfig) -> bool:
    """Whether a rung's method has the same fields, whatever the budget is called."""
    own = make_method(rung.method, keep=rung.keep)
    return replace(fitted(own, config), keep=1.0) == replace(fitted(method, config), keep=1.0)


def _words(method: Method) -> str:
    plain = type(method)(keep=method.keep)
    changed = {
        key: value
        for key, value in vars(method).items()
        if key not in ("keep", "cut") and value != getattr(plain, key)
    }
    return ":".join([method.name, *(f"{key}={value}" for key, value in changed.items())])
