"""The last moment from which an episode can still be won, found by halving.

At every moment asked about, a few continuations vote. Halving rests on one assumption, which the
result carries along for the reader to judge: what cannot be won from one moment cannot be won from
a later one of the same episode either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sim.statistics import Interval, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.attribution.lab import Trial


class Vote(NamedTuple):
    """Continuations from one moment.

    Attributes:
        moment: number of the query that comes then.
        wins: continuations that succeeded.
        trials: continuations that were run; a clear majority ends a vote early.
        undisturbed: whether the one without noise succeeded.
        in_time: successes within the steps that the episode had left.
    """

    moment: int
    wins: int
    trials: int
    undisturbed: bool
    in_time: int

    @property
    def won(self) -> bool:
        """Whether most continuations succeeded."""
        return 2 * self.wins > self.trials

    @property
    def ci95(self) -> Interval:
        """Wilson's interval of the chance to win from here."""
        return wilson_interval(self.wins, self.trials)


class Turning(NamedTuple):
    """Where the answer changes.

    Attributes:
        last: the last moment that answers as the first does; None when nothing turned.
        votes: all votes, by moment; the first and the last moment are among them.
    """

    last: int | None
    votes: list[Vote]


def vote(
    moment: int, run: Callable[[int], Trial], trials: int, left: int, *, whole: bool = False
) -> Vote:
    """Run continuations until one side has the majority, or all of them.

    Args:
        moment: number of the query that comes then.
        run: the continuation of a number.
        trials: how many at most; odd, so that there is a majority.
        left: control steps that the episode has left.
        whole: run all of them, for an estimate that early stopping would bias.
    """
    done: list[Trial] = []
    for number in range(trials):
        done.append(run(number))
        wins = sum(one.success for one in done)
        if not whole and 2 * max(wins, len(done) - wins) > trials:
            break
    return Vote(
        moment,
        sum(one.success for one in done),
        len(done),
        done[0].success,
        sum(one.success and one.steps <= left for one in done),
    )


def turning_point(
    count: int, ask: Callable[[int, bool], Vote], *, starts_won: bool = True
) -> Turning:
    """Halve until two neighbouring moments answer differently.

    Args:
        count: moments, the first being 0.
        ask: the vote at a moment; the flag asks for all of its trials.
        starts_won: what the first moment should answer.

    Returns:
        The turning point, whose two moments have had all of their trials. Nothing turned when the
        first moment does not answer as it should, or the last one answers like it.
    """
    votes: dict[int, Vote] = {}

    def as_first(index: int) -> bool:
        votes[index] = ask(index, False)
        return votes[index].won == starts_won

    low, high = 0, count - 1
    if not as_first(low) or high == low or as_first(high):
        return Turning(None, [votes[index] for index in sorted(votes)])
    while high - low > 1:
        middle = (low + high) // 2
        if as_first(middle):
            low = middle
        else:
            high = middle
    for index in {low, high}:
        votes[index] = ask(index, True)
    return Turning(low, [votes[index] for index in sorted(votes)])
