"""Numbers as a report writes them; what is unknown is a dash."""

from __future__ import annotations

from sim.statistics import ALPHA, BETTER, UNDECIDED, WORSE

UNKNOWN = "–"
SHADE = {BETTER: "good", WORSE: "bad"}


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return number(value, ".1%")


def number(value: float | None, form: str, unit: str = "") -> str:
    """A number in a given form."""
    return UNKNOWN if value is None else f"{value:{form}}{unit}"


def points(share: float) -> str:
    """A difference in percentage points, with its sign; zero has none."""
    shown = f"{share * 100:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "−")


def p_value(value: float) -> str:
    """A p value; small ones are not spelt out, and the sign is fit for HTML."""
    return "≤ 0.001" if value < 0.001 else f"{value:.3f}"


def si(count: float | None) -> str:
    """A count with its prefix."""
    if count is None:
        return UNKNOWN
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g}"


def rule(cells: int) -> str:
    """When a table of so many differences says `better` or `worse`."""
    return (
        "Verdict: better or worse only where the paired interval leaves zero out and McNemar's p, "
        f"Holm-adjusted over {cells} cell{'s' * (cells != 1)}, is below {ALPHA:g}; else "
        f"{UNDECIDED}."
    )
