"""Published rows in a report: those that match, those that give a context, and times."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.page import paragraph, table
from leanvla.report.rollout import name
from leanvla.report.words import UNKNOWN, number, percent
from sim.analysis.reference import AVERAGE
from sim.rollout.types import DENSE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Part = Mapping[str, Any]

_OTHERS = (
    "Others' numbers, not ours. A claim is by a method's authors, a reproduction by somebody "
    "else. No verdict is drawn between theirs and ours: seeds and machines are not shared."
)
_CONTEXT = (
    "Context, not matched: rows about the same suite, or the average it is part of, of another "
    "policy, method or budget. Their distance to ours says nothing about either."
)
_TIMES = (
    "Context, not matched: others' times, of other models on other machines. An audit measured "
    "cost or read code."
)


def reference_tables(study: Part) -> list[str]:
    """Published success rates: beside the cells that they match, and apart from them."""
    head = ("published", "kind", "source", "theirs", "of dense", "ours")
    matched, others = study["reference"], study["reference_context"]
    note = study["reference_note"]
    parts = [paragraph(f"{note[:1].upper()}{note[1:]}.")] if note else []
    if matched or others:
        parts.insert(0, paragraph(_OTHERS))
    if matched:
        parts += _tables(head, matched, _success)
    if others:
        parts += [paragraph(_CONTEXT, "note"), *_tables(head, others, _success)]
    return parts


def time_tables(study: Part) -> list[str]:
    """Our times, and what others claim or measured."""
    runs = [run for run in study["runs"] if run["query_latency_ms"]["p50"] is not None]
    if not runs:
        return []
    rows = (
        [
            escape(name(run)),
            number(run["query_latency_ms"]["p50"], ".1f"),
            number(run["query_latency_ms"]["p95"], ".1f"),
            number(run["speedup_p50"], ".2f", "×"),
            number(run["speedup_ceiling"], ".2f", "×"),
        ]
        for run in runs
    )
    parts = [table(("", "p50 ms", "p95 ms", "speed-up", "ceiling"), rows)]
    if not study["reference_times"]:
        return parts
    head = (
        *("published", "kind", "source", "ms", "dense ms", "speed-up", "prefill ms"),
        *("decode ms", "selection ms", "MACs"),
    )
    return [*parts, paragraph(_TIMES, "note"), *_tables(head, study["reference_times"], _time)]


def _tables(
    head: Sequence[str], rows: Sequence[Part], cells: Callable[[Part], list[str]]
) -> list[str]:
    """One table per policy, averages of success apart; what all rows differ in is said above it."""
    groups: dict[str, list[Part]] = {}
    for one in rows:
        average = one["suite"] == AVERAGE and cells is _success
        of = one["policy"] + (", average of four suites" if average else "")
        groups.setdefault(of, []).append(one)
    return [part for of, found in groups.items() for part in _table(of, head, found, cells)]


def _table(
    of: str, head: Sequence[str], rows: Sequence[Part], cells: Callable[[Part], list[str]]
) -> list[str]:
    # A dense row has no cut: what all the others say of theirs holds for the table.
    cutting = [one for one in rows if one["published"] != DENSE] or rows
    common = [
        said
        for said in cutting[-1]["differences"]
        if all(said in one["differences"] for one in (cutting if said[:3] == "cut" else rows))
    ]
    body = (
        [
            *(escape(one[key]) for key in ("published", "kind", "source")),
            *cells(one),
            "<br>".join(escape(said) for said in one["differences"] if said not in common),
        ]
        for one in rows
    )
    told = "".join(f"<li>{escape(said)}</li>" for said in common)
    shared = f"<p>{escape(of)}, in all rows:</p><ul>{told}</ul>" if told else ""
    return [shared, table((*head, "and" if told else "how the set-ups differ"), body)]


def _success(one: Part) -> list[str]:
    theirs = percent(one["success"])
    if one["success_range"]:
        theirs = " – ".join(map(percent, one["success_range"]))
    ours = UNKNOWN if one["cell"] is None else percent(one["ours"])
    return [theirs, percent(one["relative"]), ours]


def _time(one: Part) -> list[str]:
    spent = one["filter_ms"]
    return [
        number(one["latency_ms"], ".1f"),
        number(one["dense_latency_ms"], ".1f"),
        number(one["speedup"], ".2f", "×"),
        number(one["prefill_ms"], ".0f"),
        number(one["decode_ms"], ".0f"),
        f"{spent[0]:g} – {spent[1]:g}" if spent else UNKNOWN,
        number(one["macs_t"], ".2f", " T"),
    ]
