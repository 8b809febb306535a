"""What papers claim and what others measured, as data, to stand beside our numbers where it may.

A row is shown beside one of our cells when suite, family of the policy, method and budget are the
same. Even then the set-ups differ; the differences are listed with it, as far as both sides tell.
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
FAMILIES = {"openvla": "OpenVLA 7B", "openvla_oft": "OpenVLA-OFT 7B", "pi0": "pi0"}


class ReferenceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published number.

    Attributes:
        kind: `claim` of a method's authors, `reproduction` by others, or `audit` of cost or code.
        source: who says it.
        read_in: where it was read, when that is not the source itself.
        policy: family of the policy.
        suite: as ours are called; `latency` for a row that is about time alone.
        method: as ours are called, where we have it.
        keep: share of the visual tokens; None when the source does not tell.
        success: rate; None when it was not told.
        relative: success over dense, where that alone is told.
        relative_average: success over dense, average of the four suites.
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
    relative: float | None = None
    relative_average: float | None = None
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


class Beside(NamedTuple):
    """A published row beside a cell of ours, and how the two set-ups differ."""

    row: ReferenceRow
    cell: Mapping[str, Any]
    differences: tuple[str, ...]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    schema: Literal["leanvla.reference/1"]
    rows: list[ReferenceRow]


def read_reference() -> list[ReferenceRow]:
    """All published rows that we know of."""
    return msgspec.json.decode(FILE.read_bytes(), type=_File).rows


def family_of(config: OpenVLAConfig | None) -> str | None:
    """The published family that an architecture belongs to; None when it is unknown."""
    if config is None:
        return None
    return "openvla_oft" if config.decoding == "parallel" else "openvla"


def beside(
    rows: Sequence[ReferenceRow],
    cells: Sequence[Mapping[str, Any]],
    family: str | None,
    machine: str,
) -> list[Beside]:
    """Published rows beside our cells, cell by cell.

    Args:
        rows: published.
        cells: our rows, as `cell_rows` gives them.
        family: of our policy.
        machine: what ours ran on.
    """
    return [
        Beside(row, cell, tuple(_differences(row, cell, machine)))
        for cell in cells
        for row in rows
        if _same(row, cell, family)
    ]


def why_none(rows: Sequence[ReferenceRow], suite: str, family: str | None) -> str:
    """Why no published row stands beside ours, in one sentence."""
    suites = sorted({row.suite for row in rows if row.suite.startswith("libero")})
    known = {row.suite: row.policy for row in rows if row.success is not None}
    if suite not in known:
        return f"no published row is about suite {suite}; they are about {', '.join(suites)}"
    if family is None:
        return "the policy's family is unknown here, so no published row can be set beside it"
    return f"no published row for {suite} has a {family} policy with these methods and budgets"


def _same(row: ReferenceRow, cell: Mapping[str, Any], family: str | None) -> bool:
    return (
        row.suite == cell["suite"]
        and row.policy == family
        and row.method == cell["method"].partition(":")[0]
        and row.keep is not None
        and abs(row.keep - cell["keep"]) < SAME_KEEP
        and row.success is not None
    )


def _differences(row: ReferenceRow, cell: Mapping[str, Any], machine: str) -> list[str]:
    judged = cell["successes"] + cell["failures"]
    trials = f"{row.trials} episodes" if row.trials else "an untold number of episodes"
    found = [
        f"policy: theirs {FAMILIES[row.policy]}, ours {cell['policy']}",
        f"theirs {trials}, ours {judged}",
        f"theirs on {row.hardware or 'an untold machine'}, ours on {machine}",
    ]
    if cell["render_profile"] != "default":
        found.append(f"ours is rendered {cell['render_profile']}")
    if row.configuration or ":" in cell["method"]:
        found.append(f"method: theirs {row.configuration or 'as published'}, ours {cell['method']}")
    if row.macs_t is not None:
        found.append("theirs counts MACs of the decoder's prefill alone")
    found.append(f"read in: {row.read_in}")
    return found + ([row.note] if row.note else [])
