"""`report.html` over one or several runs: what was won, lost, saved, and how sure that is."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.page import facts, page, paragraph, section, table
from leanvla.report.rollout import keep_curves, name
from leanvla.report.study_charts import Spot, Square, heat_map, pareto
from leanvla.report.study_compared import compared_sections, compared_title
from leanvla.report.study_reference import reference_tables, time_tables
from leanvla.report.study_truth import gallery, recall_tables
from leanvla.report.study_verdict import difference_cells, family
from leanvla.report.words import SHADE, UNKNOWN, number, p_value, percent, points, rule, si
from sim.rollout.types import DENSE
from sim.statistics import ALPHA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leanvla.report.study_truth import Exhibit

    Part = Mapping[str, Any]


def document(report: Part, exhibits: Sequence[Exhibit] = ()) -> str:
    """The whole page.

    Args:
        report: content of `metrics.json`.
        exhibits: filmed failures.
    """
    studies = report["studies"]
    title = "; ".join(study["title"] for study in studies) or compared_title(report)
    body = [f"<h1>{escape(title)}</h1>", *compared_sections(report)]
    for study in studies:
        body += _study(study, alone=len(studies) == 1)
    body.append(section("What it looks like when it fails", *gallery(exhibits)))
    return page(f"LeanVLA report: {title}", body)


def findings(study: Part) -> list[str]:
    """One sentence per cell that is shown to differ from dense, and one for all the others."""
    said, open_, alone = [], [], []
    for run in study["runs"]:
        one = run["comparison"]
        if one is None:
            continue
        if one["verdict"] not in SHADE:
            open_.append(name(run))
            low, high = one["paired"]["ci95"]
            alone += [name(run)] if low > 0 or high < 0 else []
            continue
        low, high = one["paired"]["ci95"]
        said.append(
            f"{name(run)} is {one['verdict']} than dense: {points(one['paired']['difference'])} "
            f"points on {one['paired']['n']} paired seeds, 95 % interval {points(low)} to "
            f"{points(high)}, p (Holm) {p_value(one['p_holm'])}."
        )
    if open_:
        said.append(f"No difference to dense is shown for {', '.join(open_)}.")
    if alone:
        said.append(
            f"The interval alone leaves zero out for {', '.join(alone)}; McNemar's p, adjusted "
            f"over the {family(study['runs'])} of this table, is not below {ALPHA:g}: no finding."
        )
    return said


def _study(study: Part, *, alone: bool) -> list[str]:
    runs = study["runs"]
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings(study))
    heads = [] if alone else [f"<h1>{escape(study['title'])}</h1>"]
    notices = [paragraph(notice, "note") for notice in study["notices"]]
    return [
        *heads,
        paragraph(f"From {', '.join(study['folders'])}.", "soft"),
        *notices,
        f"<ul>{said}</ul>" if said else "",
        section("Success and differences on the same seeds", _results(runs)),
        section("How few tokens are enough", *_budgets(study["budgets"])),
        section("Success against keep ratio", *keep_curves(runs)),
        section("Success against cost", *_paretos(runs, study["macs_note"])),
        section("Task by task", *_tasks(runs)),
        section("What was kept of what mattered", *recall_tables(study["recall"])),
        section("Time of a query", *time_tables(study)),
        section("Published numbers", *reference_tables(study)),
        section("Conditions", facts(study["conditions"])),
    ]


def _results(runs: Sequence[Part]) -> str:
    head = (
        *("", "success", "judged", "points to dense", "bootstrap", "p (McNemar)", "p (Holm)"),
        *("verdict", "tokens", "p50 ms", "speed-up", "MACs"),
    )
    return table(
        head,
        map(_result, runs),
        "Small figures are 95 % intervals: Wilson's for success, Newcombe's and the bootstrap's "
        f"for the paired difference. {rule(family(runs))} MACs are per query, warm-up queries "
        "included, without the selection itself.",
    )


def _result(run: Part) -> list[str]:
    low, high = run["success_ci95"]
    one, errors = run["comparison"], run["errors"]
    lost = f' <small class="bad">{errors} lost to the simulator</small>' if errors else ""
    return [
        escape(name(run)) + (" <small>(is dense)</small>" if run["reused_from"] else ""),
        f"{percent(run['success_rate'])} <small>{low * 100:.1f} – {high * 100:.1f}</small>",
        f"{run['successes'] + run['failures']}{lost}",
        *difference_cells(one),
        f"{run['tokens']['kept']} / {run['tokens']['visual']}",
        number(run["query_latency_ms"]["p50"], ".1f"),
        number(run["speedup_p50"], ".2f", "×"),
        si(run["macs"]),
    ]


def _budgets(budgets: Mapping[str, Sequence[Part]]) -> tuple[str, ...]:
    if not budgets:
        return ()
    drops = [f"{one['drop'] * 100:g}" for one in next(iter(budgets.values()))]
    rows = (
        [escape(method), *map(_budget, found), str(found[0]["seeds"])]
        for method, found in budgets.items()
    )
    intro = (
        "Visual tokens, over all views, at which a method has lost so many points against dense. "
        "Read off between the measured budgets, linearly over the logarithm of the tokens; "
        "intervals from drawing the seeds again. “Fewer” is below the smallest budget measured."
    )
    head = ("", *(f"{drop} point{'s' * (drop != '1')} lost at" for drop in drops), "paired seeds")
    return paragraph(intro), table(head, rows)


def _budget(one: Part) -> str:
    def words(tokens: float | None) -> str:
        return "fewer" if tokens is None else f"{tokens:.0f}"

    return f"{words(one['tokens'])} <small>{words(one['low'])} – {words(one['high'])}</small>"


def _paretos(runs: Sequence[Part], macs_note: str) -> list[str]:
    shown = [run for run in runs if run["success_rate"] is not None and not run["reused_from"]]
    latency = [_spot(run, run["query_latency_ms"]["p50"]) for run in shown]
    macs = [_spot(run, run["macs"] and run["macs"] / 1e9) for run in shown]
    charts = [
        pareto([s for s in latency if s], "median query, ms", "success against latency"),
        pareto([s for s in macs if s], "GMACs per query", "success against MACs"),
    ]
    if not any(charts):
        return []
    intro = (
        "Beside each mark its share of kept tokens; bars are Wilson's intervals; the dashed line "
        "joins the cells that none beats in both."
    )
    return [paragraph(intro), *charts, paragraph(macs_note, "soft")]


def _spot(run: Part, cost: float | None) -> Spot | None:
    if not cost:
        return None
    rung = DENSE if run["method"] == DENSE else f"{run['keep']:g}"
    return Spot(run["method"], name(run), rung, cost, run["success_rate"], *run["success_ci95"])


def _tasks(runs: Sequence[Part]) -> tuple[str, ...]:
    shown = [run for run in runs if not run["reused_from"]]
    tasks = sorted({task for run in shown for task in run["tasks"]})
    rows = {name(run): [_square(run["tasks"].get(task)) for task in tasks] for run in shown}
    chart = heat_map(tasks, rows, "success by task and cell")
    note = "Successes of judged episodes; point at a square for its interval."
    return (chart, paragraph(note, "soft")) if chart else ()


def _square(task: Part | None) -> Square:
    if task is None:
        return Square(None, UNKNOWN, "nothing judged")
    low, high = task["success_ci95"]
    counts = f"{task['successes']} of {task['episodes']}"
    return Square(
        task["success_rate"],
        f"{task['success_rate']:.0%}  {task['successes']}/{task['episodes']}",
        f"{counts}, 95 % interval {low:.1%} to {high:.1%}",
    )
