"""The tables of a report for a paper, in the manner of the booktabs package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanvla.report.rollout import name
from leanvla.report.words import UNKNOWN, number, p_value, points, si

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Part = Mapping[str, Any]

_PLAIN = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{"–": "--", "−": "$-$", "×": r"$\times$", "…": r"\ldots{}", "≤": r"$\leq$"},
}


def latex_table(study: Part) -> str:
    """Cells with episodes, success, difference to dense, time, MACs and verdict."""
    heads = (
        *("Method", "Tokens", "$n$", r"Success [95\,\%]", r"$\Delta$ dense [95\,\%]", "$p$ (Holm)"),
        *("ms", "Speed-up", "MACs", "Verdict"),
    )
    about = f"{study['title']}; from {', '.join(study['folders'])}"
    return _tabular("lrrrrrrrrl", heads, map(_cell, study["runs"]), about)


def latex_comparisons(comparisons: Sequence[Part], compared: Part) -> str:
    """One row per pair of cells, A minus B."""
    heads = ("A", "B", "$n$", r"A $-$ B [95\,\%]", "$p$ (Holm)", "Verdict")
    about = f"A: {compared['a']['folder']}; B: {compared['b']['folder']}"
    return _tabular("llrrrl", heads, map(_comparison, comparisons), about)


def latex(words: str) -> str:
    """Words with everything that LaTeX would read as a command made plain."""
    return "".join(_PLAIN.get(mark, mark) for mark in words)


def _tabular(columns: str, heads: Sequence[str], rows: Iterable[Sequence[str]], about: str) -> str:
    lines = [
        r"% \usepackage{booktabs}",
        f"% {about}".replace("\n", " "),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *(" & ".join(map(latex, row)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cell(run: Part) -> tuple[str, ...]:
    low, high = run["success_ci95"]
    rate, one = run["success_rate"], run["comparison"]
    return (
        name(run),
        f"{run['tokens']['kept']}/{run['tokens']['visual']}",
        str(run["successes"] + run["failures"]),
        f"{number(rate and rate * 100, '.1f')} [{low * 100:.1f}, {high * 100:.1f}]",
        *(_difference(one) if one else (UNKNOWN, UNKNOWN)),
        number(run["query_latency_ms"]["p50"], ".1f"),
        number(run["speedup_p50"], ".2f", "×"),
        si(run["macs"]),
        one["verdict"] if one else UNKNOWN,
    )


def _comparison(one: Part) -> tuple[str, ...]:
    seeds = str(one["paired"]["n"])
    return (one["treatment"], one["reference"], seeds, *_difference(one), one["verdict"])


def _difference(one: Part) -> tuple[str, str]:
    low, high = one["paired"]["ci95"]
    difference = points(one["paired"]["difference"])
    return f"{difference} [{points(low)}, {points(high)}]", p_value(one["p_holm"])
