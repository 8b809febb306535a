"""How few tokens a method can live on: the budget at which it has lost 1, 5 or 10 points.

The loss against dense on the same seeds is measured at a few budgets. Between them it is read off
linearly over the logarithm of the tokens, from the full set (no loss) downwards, after the losses
have been made monotone: a smaller budget that happened to win an episode more is pooled with its
neighbour. The interval comes from drawing the seeds again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.analysis.bootstrap import DRAWS, resampled_rates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float64

DROPS = (0.01, 0.05, 0.10)


class TokenBudget(NamedTuple):
    """Tokens at which a method has lost `drop`.

    Attributes:
        drop: loss of success rate against dense.
        tokens: visual tokens over all views; None when the smallest measured budget lost less.
        low: lower end of the 95 % interval; None when it lies below the smallest measured budget.
        high: upper end; None when that does.
        seeds: scenes that dense and every budget of the method finished.
    """

    drop: float
    tokens: float | None
    low: float | None
    high: float | None
    seeds: int


def token_budgets(
    dense: Bool[np.ndarray, " seeds"],
    rungs: Bool[np.ndarray, "seeds rungs"],
    tokens: Sequence[float],
    full: int,
    *,
    drops: Sequence[float] = DROPS,
    draws: int = DRAWS,
) -> list[TokenBudget]:
    """The budgets of one method.

    Args:
        dense: success of the dense model per seed.
        rungs: success of the method on the same seeds, one column per budget.
        tokens: visual tokens kept, per column.
        full: visual tokens of the dense model.
        drops: losses to look for.
        draws: of the bootstrap.

    Raises:
        ValueError: without seeds or budgets, or for budgets that do not lie in (0, full).
    """
    if not len(tokens) or not all(0 < count < full for count in tokens):
        raise ValueError(f"budgets are {list(tokens)}: give token counts between 0 and {full}")
    order = np.argsort(tokens)[::-1]
    sizes = np.array([full, *np.asarray(tokens, float)[order]])
    outcomes = np.column_stack([dense, rungs[:, order]])
    measured = outcomes.mean(0, keepdims=True)
    drawn = resampled_rates(outcomes, draws=draws)
    return [
        TokenBudget(
            drop,
            _within(float(crossing(sizes, monotone_losses(measured), drop)[0])),
            *_interval(crossing(sizes, monotone_losses(drawn), drop)),
            len(dense),
        )
        for drop in drops
    ]


def monotone_losses(
    rates: Float64[np.ndarray, "draws rungs"],
) -> Float64[np.ndarray, "draws rungs"]:
    """Losses against the first column, never below zero and never falling from left to right.

    The least-squares fit under that order, by its min-max formula: the largest over all starts of
    the smallest mean over all ends.
    """
    losses = rates[:, :1] - rates[:, 1:]
    rungs = losses.shape[1]
    sums = np.concatenate([np.zeros((len(losses), 1)), losses.cumsum(1)], axis=1)
    fit = np.full_like(losses, -np.inf)
    for start in range(rungs):
        ends = np.arange(start + 1, rungs + 1)
        means = (sums[:, ends] - sums[:, [start]]) / (ends - start)
        # The smallest mean over all ends from here on, for every place at or behind `start`.
        smallest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        fit[:, start:] = np.maximum(fit[:, start:], smallest)
    return np.concatenate([np.zeros((len(losses), 1)), fit.clip(min=0)], axis=1)


def crossing(
    sizes: Float64[np.ndarray, " rungs"], losses: Float64[np.ndarray, "draws rungs"], drop: float
) -> Float64[np.ndarray, " draws"]:
    """Tokens at which each row first reaches `drop`; 0 where it never does.

    Args:
        sizes: tokens, falling.
        losses: monotone losses; the first column is 0.
        drop: above 0.
    """
    reached = losses >= drop - 1e-12
    found = reached.any(1)
    after = np.where(found, reached.argmax(1), 1)
    rows = np.arange(len(losses))
    before = losses[rows, after - 1]
    span = losses[rows, after] - before
    share = np.where(found, (drop - before) / np.where(span > 0, span, 1.0), 0.0)
    logs = np.log2(sizes)
    place = logs[after - 1] + share.clip(0, 1) * (logs[after] - logs[after - 1])
    return np.where(found, 2.0**place, 0.0)


def _interval(found: Float64[np.ndarray, " draws"]) -> tuple[float | None, float | None]:
    # A draw that never lost as much lies below every measured budget, wherever that is: quantiles
    # are taken among the draws themselves, so that no number is made up between the two.
    low, high = np.quantile(found, (0.025, 0.975), method="nearest")
    return _within(float(low)), _within(float(high))


def _within(tokens: float) -> float | None:
    return tokens or None
