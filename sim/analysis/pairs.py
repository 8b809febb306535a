"""Two sets of episodes on the same scenes, compared seed by seed, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sim.analysis.bootstrap import bootstrap_difference
from sim.analysis.runs import ResultsError
from sim.analysis.study import DENSE_CELL, outcomes_on
from sim.statistics import PairedDifference, holm, paired_difference, verdict_in_family

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sim.analysis.runs import RunFolder
    from sim.rollout.types import Cell, EpisodeRecord
    from sim.statistics import Interval


class Comparison(NamedTuple):
    """`treatment` against `reference` on the seeds that both finished.

    Attributes:
        treatment: name of what is compared.
        reference: name of what it is compared with.
        paired: difference, Newcombe's interval, and the discordant seeds.
        bootstrap: the same difference's bootstrap interval.
        verdict: `better` or `worse` when Newcombe's interval leaves zero out and `p_holm` is below
            0.05; `no difference shown` otherwise.
        unpaired: seeds that only one of the two finished.
        p_holm: McNemar's p against the whole family of comparisons.
        family: comparisons in that family.
    """

    treatment: str
    reference: str
    paired: PairedDifference
    bootstrap: Interval
    verdict: str
    unpaired: int
    p_holm: float
    family: int = 1


def compare(
    name: str,
    treatment: Mapping[int, EpisodeRecord],
    against: str,
    reference: Mapping[int, EpisodeRecord],
) -> Comparison:
    """Compare two sets of judged episodes, by seed: a family of one.

    Raises:
        ResultsError: when no seed is in both, or one of them began from another initial state.
    """
    shared = sorted(set(treatment) & set(reference))
    if not shared:
        raise ResultsError(f"{name} and {against} have no seed in common: they are not paired")
    for seed in shared:
        ours, theirs = treatment[seed].init_state_hash, reference[seed].init_state_hash
        if ours != theirs or not ours:
            raise ResultsError(
                f"{name} and {against} are not paired: seed {seed} began from "
                f"{ours[:12] or 'nothing known'} in the one and from {theirs[:12] or 'the same'} "
                "in the other; compare runs of one suite and version"
            )
    pairs = outcomes_on(treatment, shared), outcomes_on(reference, shared)
    paired = paired_difference(*pairs)
    return Comparison(
        name,
        against,
        paired,
        bootstrap_difference(*pairs),
        verdict_in_family(paired.ci95, paired.p_value),
        len(set(treatment) ^ set(reference)),
        paired.p_value,
    )


def as_family(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons, each p value and verdict against all of them."""
    adjusted = holm([one.paired.p_value for one in comparisons])
    return [
        one._replace(
            p_holm=p, verdict=verdict_in_family(one.paired.ci95, p), family=len(comparisons)
        )
        for one, p in zip(comparisons, adjusted, strict=True)
    ]


def compare_folders(
    treatment: RunFolder,
    reference: RunFolder,
    cells: tuple[Cell | None, Cell | None] = (None, None),
) -> list[Comparison]:
    """Every cell of one folder against the same cell of another, or one chosen cell against one.

    The comparisons are named by their cells alone. Folders that share no pruned cell and hold one
    each are compared by those two.

    Args:
        treatment: what is compared.
        reference: what it is compared with.
        cells: a cell of each; None takes all that both have.

    Raises:
        ResultsError: when nothing can be paired; it says why.
    """
    ours, theirs = _by_cell(treatment), _by_cell(reference)
    pairs = _matching(ours, theirs, cells, (str(treatment.path), str(reference.path)))
    found = [
        compare(f"{treatment.path}: {a}", ours[a], f"{reference.path}: {b}", theirs[b])
        for a, b in pairs
    ]
    named = zip(found, pairs, strict=True)
    return as_family([one._replace(treatment=str(a), reference=str(b)) for one, (a, b) in named])


def _matching(
    ours: Mapping[Cell, object],
    theirs: Mapping[Cell, object],
    cells: tuple[Cell | None, Cell | None],
    names: tuple[str, str],
) -> list[tuple[Cell, Cell]]:
    one, other = cells
    if one or other:
        a, b = one or other, other or one
        for cell, there, name in ((a, ours, names[0]), (b, theirs, names[1])):
            if cell not in there:
                raise ResultsError(
                    f"{name} has no judged episode of {cell}: it has {', '.join(map(str, there))}"
                )
        return [(a, b)] if a and b else []
    shared = [cell for cell in ours if cell in theirs]
    pruned = [[c for c in there if c != DENSE_CELL] for there in (ours, theirs)]
    if [c for c in shared if c != DENSE_CELL] or not (len(pruned[0]) == len(pruned[1]) == 1):
        if shared:
            return [(cell, cell) for cell in shared]
        raise ResultsError(
            f"{names[0]} and {names[1]} have no cell in common: name one of each, as in "
            "FOLDER::METHOD@KEEP"
        )
    return [(cell, cell) for cell in shared] + [(pruned[0][0], pruned[1][0])]


def _by_cell(folder: RunFolder) -> dict[Cell, dict[int, EpisodeRecord]]:
    found: dict[Cell, dict[int, EpisodeRecord]] = {}
    for record in folder.records:
        if record.outcome != "error":
            found.setdefault(record.cell, {})[record.seed] = record
    return found
