"""What papers claim and what others measured, as data, to stand beside our numbers where it may.

A row matches one of our cells when suite, family of the policy, method and budget are the same.
Even then the set-ups differ; `sim.analysis.context` lists how, and lays out the rows that do not
match.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policy.openvla.config import OpenVLAConfig

FILE = Path(__file__).with_name("reference.json")
SAME_KEEP = 0.005
AVERAGE, LATENCY = "libero_average", "latency"


class PublishedSetup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of the policies that published rows are about.

    Attributes:
        name: of the family.
        views: cameras.
        tokens_per_view: visual tokens of each.
        layers: of the decoder.
        cuts: by method, full decoder layers before its cut.
    """

    name: str
    views: int | None = None
    tokens_per_view: int | None = None
    layers: int | None = None
    cuts: dict[str, int] = {}


class ReferenceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published number.

    Attributes:
        kind: `claim` of a method's authors, `reproduction` by others, or `audit` of cost or code.
        source: who says it.
        read_in: where it was read, when that is not the source itself.
        policy: family of the policy.
        suite: as ours are called; `libero_average` for the four suites together, `latency` for a
            row that is about time alone.
        method: as ours are called, where we have it.
        keep: share of the visual tokens; None when the source does not tell.
        success: rate; None when it was not told.
        success_range: least and most, where a range was told.
        relative: success over dense, where that alone is told.
        relative_average: success over dense, average of the four suites.
        cut: full decoder layers before the cut, where that was varied.
        trials: episodes behind `success`; None when the source does not tell.
        macs_t: tera-MACs of a query.
        speedup: over dense.
        latency_ms: of a query.
        dense_latency_ms: of the dense query beside it.
        prefill_ms: of that.
        decode_ms: of that.
        filter_ms: least and most time of the selection alone.
        hardware: what it ran on.
        configuration: of the method or the measurement.
        note: anything else that a reader must know.
    """

    kind: Literal["claim", "reproduction", "audit"]
    source: str
    read_in: str
    policy: str
    suite: str
    method: str
    keep: float | None
    success: float | None = None
    success_range: tuple[float, float] | None = None
    relative: float | None = None
    relative_average: float | None = None
    cut: int | None = None
    trials: int | None = None
    macs_t: float | None = None
    speedup: float | None = None
    latency_ms: float | None = None
    dense_latency_ms: float | None = None
    prefill_ms: float | None = None
    decode_ms: float | None = None
    filter_ms: tuple[float, float] | None = None
    hardware: str | None = None
    configuration: str | None = None
    note: str | None = None

    def __str__(self) -> str:
        """`dense`, or `vla_pruner @ 0.25`."""
        told = self.keep is not None and self.method != "dense"
        return f"{self.method} @ {self.keep:.3g}" if told else self.method

    @property
    def timed(self) -> bool:
        """Whether it tells how long something takes."""
        times = (self.speedup, self.latency_ms, self.prefill_ms, self.decode_ms, self.filter_ms)
        return any(value is not None for value in times)


class Published(msgspec.Struct, forbid_unknown_fields=True):
    """Content of the file: rows, and by family the set-ups behind them."""

    schema: Literal["leanvla.reference/1"]
    setups: dict[str, PublishedSetup]
    rows: list[ReferenceRow]


class Beside(NamedTuple):
    """A published row and a cell of ours that measured the same."""

    row: ReferenceRow
    cell: Mapping[str, Any]


def read_reference() -> Published:
    """All published rows that we know of."""
    return msgspec.json.decode(FILE.read_bytes(), type=Published)


def family_of(config: OpenVLAConfig | None) -> str | None:
    """The published family that an architecture belongs to; None when it is unknown."""
    if config is None:
        return None
    return "openvla_oft" if config.decoding == "parallel" else "openvla"


def beside(
    rows: Sequence[ReferenceRow], cells: Sequence[Mapping[str, Any]], family: str | None
) -> list[Beside]:
    """Published rows beside our cells, cell by cell.

    Args:
        rows: published.
        cells: our rows, as `cell_rows` gives them.
        family: of our policy.
    """
    return [
        Beside(row, cell)
        for cell in cells
        for row in rows
        if row.suite == cell["suite"]
        and row.policy == family
        and row.success is not None
        and same_cell(row, cell)
    ]


def same_cell(row: ReferenceRow, cell: Mapping[str, Any]) -> bool:
    """Whether method and budget are the same."""
    return (
        row.method == cell["method"].partition(":")[0]
        and row.keep is not None
        and abs(row.keep - cell["keep"]) < SAME_KEEP
    )


def why_none(rows: Sequence[ReferenceRow], suite: str, family: str | None) -> str:
    """Why no published row matches a cell of ours, in one sentence."""
    suites = sorted({row.suite for row in rows} - {LATENCY})
    if suite not in suites:
        return f"no published row is about suite {suite}; they are about {', '.join(suites)}"
    if family is None:
        return "the policy's family is unknown here, so no published row can match"
    return f"of the published rows about {suite} none is of {family} with these methods and budgets"
