"""Two folders compared: which they are, what was found, and in what else they differ."""

from __future__ import annotations

from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from leanvla.report.page import facts, paragraph, section, table
from leanvla.report.study_verdict import difference_cells
from leanvla.report.words import rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Part = Mapping[str, Any]

SAME_RUN = "Both sides are of the same run: nothing differs but the cell."
ALIKE = "Nothing that the two folders tell differs but the cells and seeds."


def compared_title(report: Part) -> str:
    """What is against what, and on what."""
    found, compared = report["comparisons"], report["compared"]
    a, b = compared["a"]["title"], compared["b"]["title"]
    if len(found) > 1:
        names = [PurePath(compared[side]["folder"]).name for side in "ab"]
        return f"{names[0]} against {names[1]}: {a}" + (f"; {b}" if a != b else "")
    (one,) = found
    pair = f"{one['treatment']} against {one['reference']}"
    return f"{pair}: {a}" + (f"; {b}" if a != b else "")


def compared_sections(report: Part) -> list[str]:
    """The sections of a comparison; none when nothing was compared."""
    found, compared = report["comparisons"], report["compared"]
    if not compared:
        return []
    legend = {side.upper(): f"{_words(compared[side])}" for side in "ab"}
    conditions = (
        paragraph(side.upper()) + facts(compared[side]["conditions"])
        for side in ("a",) + ("b",) * (not compared["same_run"])
    )
    return [
        section("Compared", facts(legend), *_comparisons(found)),
        section("How A and B differ", _differences(compared)),
        section("Conditions of the comparison", *conditions),
    ]


def _words(side: Part) -> str:
    return f"{side['folder']} ({side['title']})"


def _comparisons(comparisons: Sequence[Part]) -> list[str]:
    head = (
        *("A", "B", "paired seeds", "A alone", "B alone"),
        *("A − B", "bootstrap", "p (McNemar)", "p (Holm)", "verdict"),
    )
    rows = (
        [
            escape(one["treatment"]),
            escape(one["reference"]),
            str(one["paired"]["n"]),
            str(one["paired"]["gained"]),
            str(one["paired"]["lost"]),
            *difference_cells(one),
        ]
        for one in comparisons
    )
    note = (
        "Same seeds and initial-state hashes; points of success, A minus B; the verdict is on A. "
        f"“Alone”: solved by that side only. {rule(len(comparisons))}"
    )
    unpaired = sum(one["unpaired"] for one in comparisons)
    left = f" Episodes without a partner, left out: {unpaired}." if unpaired else ""
    return [table(head, rows, note + left)]


def _differences(compared: Part) -> str:
    found = compared["differences"]
    if not found:
        return paragraph(SAME_RUN if compared["same_run"] else ALIKE)
    rows = (list(map(escape, (one["what"], one["ours"], one["theirs"]))) for one in found)
    return table(("", "A", "B"), rows, "What decides none of the pairing, but may the outcome.")
