"""How published set-ups differ from ours, and the published rows that only give a context.

A context row is about the same suite, or about the average that the suite is part of, but of
another policy, method or budget. It is printed apart: its distance to ours is no finding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sim.analysis.reference import AVERAGE, PublishedSetup, same_cell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from policy.openvla.config import OpenVLAConfig
    from sim.analysis.reference import Beside, Published, ReferenceRow

_UNKNOWN = "not told"
# Policies of this make learn from what `leanvla demos` writes.
_SCRIPTED = "leanvla-mini"


class Ours(NamedTuple):
    """What is known of our side.

    Attributes:
        suite: of tasks.
        policy: who acted.
        config: its architecture; None when it cannot be had.
        machine: what it ran on.
        drawn: how it was rendered, in words; empty for the suite's default.
    """

    suite: str
    policy: str
    config: OpenVLAConfig | None
    machine: str
    drawn: str


class Shown(NamedTuple):
    """A published row as a report shows it.

    Attributes:
        row: the row.
        cell: our cell of the same method and budget, on the suite of the row where it is about one;
            None when there is none.
        differences: between the set-ups, one each, as far as both sides tell.
    """

    row: ReferenceRow
    cell: Mapping[str, Any] | None
    differences: tuple[str, ...]


def matched(published: Published, found: Sequence[Beside], ours: Ours) -> list[Shown]:
    """Rows beside the cells that they match."""
    return [Shown(row, cell, _all(published, row, ours, cell)) for row, cell in found]


def context(
    published: Published, cells: Sequence[Mapping[str, Any]], family: str | None, ours: Ours
) -> list[Shown]:
    """Rows about success on the same suite or its average that match no cell of ours.

    Rows of methods and budgets that we measured come first.

    Args:
        published: all rows.
        cells: our rows.
        family: of our policy.
        ours: our set-up.
    """
    suites = {ours.suite} | ({AVERAGE} if ours.suite.startswith("libero") else set())
    shown = []
    for row in published.rows:
        here = cells if row.suite == ours.suite else ()
        cell = next((cell for cell in here if same_cell(row, cell)), None)
        is_match = cell is not None and row.policy == family and row.success is not None
        if row.suite in suites and _tells_success(row) and not is_match:
            shown.append(Shown(row, cell, _all(published, row, ours, cell)))
    return sorted(shown, key=lambda one: (one.cell is None, one.row.suite != ours.suite))


def times(published: Published, cells: Sequence[Mapping[str, Any]], ours: Ours) -> list[Shown]:
    """Rows about time: every audit, and claims for the methods that we measured, once each."""
    methods = {cell["method"].partition(":")[0] for cell in cells}
    shown: dict[tuple[object, ...], Shown] = {}
    for row in published.rows:
        if row.timed and (row.kind == "audit" or row.method in methods):
            key = (row.source, row.policy, str(row), row.speedup, row.latency_ms, row.configuration)
            cell = next((cell for cell in cells if same_cell(row, cell)), None)
            told = (*_model(published, row, ours), *_run(row, ours), *_notes(row, cell))
            shown.setdefault(key, Shown(row, cell, told))
    return list(shown.values())


def _tells_success(row: ReferenceRow) -> bool:
    return (row.success, row.success_range, row.relative) != (None, None, None)


def _all(
    published: Published, row: ReferenceRow, ours: Ours, cell: Mapping[str, Any] | None
) -> tuple[str, ...]:
    return (
        *_model(published, row, ours),
        *_scenes(row, ours),
        *_trials(row, cell),
        *_run(row, ours),
        *_notes(row, cell),
    )


def _model(published: Published, row: ReferenceRow, ours: Ours) -> Iterator[str]:
    theirs = published.setups.get(row.policy, PublishedSetup(row.policy))
    config = ours.config
    yield f"policy: theirs {theirs.name}, ours {ours.policy}"
    views = _views(theirs.views, theirs.tokens_per_view)
    our_views = _views(len(config.views), config.tokens_per_view) if config else _UNKNOWN
    if views != our_views or views == _UNKNOWN:
        yield f"views: theirs {views}, ours {our_views}"
    if row.method != "dense":
        cut = _cut(row.cut or theirs.cuts.get(row.method), theirs.layers)
        our_cut = _UNKNOWN
        if config:
            layers = config.text.num_hidden_layers
            our_cut = _cut(config.cut_layer, layers) if config.cut_layer else "the method's own"
        if cut != our_cut or cut == _UNKNOWN:
            yield f"cut layer: theirs {cut}, ours {our_cut}"


def _scenes(row: ReferenceRow, ours: Ours) -> Iterator[str]:
    if row.suite != ours.suite:
        yield f"suite: theirs the average of four LIBERO suites, ours {ours.suite}"
    if ours.drawn:
        yield f"drawn: theirs by the benchmark's own rendering and assets, ours {ours.drawn}"
    learnt = _UNKNOWN
    if ours.config and ours.config.arch == _SCRIPTED:
        learnt = "a scripted expert's, made by simulation"
    yield f"demonstrations: theirs the benchmark's, by people, ours {learnt}"


def _trials(row: ReferenceRow, cell: Mapping[str, Any] | None) -> Iterator[str]:
    if cell:
        judged = cell["successes"] + cell["failures"]
        yield f"episodes: theirs {row.trials or _UNKNOWN}, ours {judged}"
    elif row.trials:
        yield f"episodes: theirs {row.trials}"


def _run(row: ReferenceRow, ours: Ours) -> Iterator[str]:
    yield f"machine: theirs {row.hardware or _UNKNOWN}, ours {ours.machine}"


def _notes(row: ReferenceRow, cell: Mapping[str, Any] | None) -> Iterator[str]:
    method = cell["method"] if cell else ""
    if row.configuration or ":" in method:
        told = row.configuration or "as published"
        yield f"method: theirs {told}" + (f", ours {method}" if method else "")
    if row.macs_t is not None:
        yield "theirs counts MACs of the decoder's prefill alone"
    yield f"read in: {row.read_in}"
    if row.note:
        yield row.note


def _views(count: int | None, tokens: int | None) -> str:
    return _UNKNOWN if count is None or tokens is None else f"{count} of {tokens} tokens"


def _cut(layer: int | None, layers: int | None) -> str:
    return _UNKNOWN if layer is None else f"behind {layer} of {layers} layers"
