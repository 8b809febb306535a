"""`report.html` of a rollout: what was measured, how sure it is, and under which conditions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.charts import Bar, Point, latency_bars, success_curves
from leanvla.report.page import facts, image, page, paragraph, section, table, video
from leanvla.report.rollout_torch import torch_section
from leanvla.report.words import SHADE, number, percent, points, rule
from sim.statistics import UNDECIDED, Interval, holm, verdict_in_family

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Run = Mapping[str, Any]

MANY = 6


@dataclass(frozen=True)
class Picture:
    """A film strip of kept tokens, or a video.

    Attributes:
        caption: what it shows.
        files: captions and PNG images of one strip, or one MP4.
    """

    caption: str
    files: tuple[tuple[str, bytes], ...]


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    conditions: Mapping[str, Any],
    *,
    overlays: Sequence[Picture] = (),
    videos: Sequence[Picture] = (),
    notice: str = "",
) -> None:
    """Write the report; the file appears whole or not at all.

    Args:
        path: `report.html`.
        metrics: content of `metrics.json`.
        conditions: machine, versions, seeds and whatever else a repetition needs, in words.
        overlays: film strips of kept tokens.
        videos: episodes to play.
        notice: shown on top, for a run that is not whole.
    """
    part = path.with_name(f".{path.name}.part")
    part.write_text(_document(metrics, conditions, overlays, videos, notice), encoding="utf-8")
    os.replace(part, path)


def findings(runs: Sequence[Run]) -> list[str]:
    """One plain sentence per pruned cell, or per method at its lowest keep when there are many."""
    pruned = [run for run in runs if run["keep"] < 1.0 and run["success_rate"] is not None]
    words = verdicts(runs)
    if len(pruned) > MANY:
        lowest = {run["method"]: run for run in sorted(pruned, key=lambda run: -run["keep"])}
        pruned = list(lowest.values())
    return [_finding(run, words.get(name(run), UNDECIDED)) for run in pruned]


def verdicts(runs: Sequence[Run]) -> dict[str, str]:
    """By cell, what is shown of its difference to dense when all pruned cells are one family."""
    paired = {
        name(run): run["paired_difference_to_dense"]
        for run in runs
        if run["keep"] < 1.0 and (run["paired_difference_to_dense"] or {}).get("n")
    }
    adjusted = holm([one["p_value"] for one in paired.values()])
    return {
        cell: verdict_in_family(Interval(*one["ci95"]), p)
        for (cell, one), p in zip(paired.items(), adjusted, strict=True)
    }


def name(run: Run) -> str:
    """`dense`, or `vla_pruner @ 0.25`."""
    return "dense" if run["method"] == "dense" else f"{run['method']} @ {run['keep']:g}"


def _document(
    metrics: Mapping[str, Any],
    conditions: Mapping[str, Any],
    overlays: Sequence[Picture],
    videos: Sequence[Picture],
    notice: str,
) -> str:
    runs = metrics["runs"]
    first = runs[0] if runs else {"suite": "nothing", "policy": "nothing"}
    title = f"{first['policy']} on {first['suite']}"
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings(runs))
    body = [
        f"<h1>{escape(title)}</h1>",
        paragraph("Closed-loop rollouts, every cell on the same seeds and initial states.", "soft"),
        paragraph(notice, "note"),
        f"<ul>{said}</ul>" if said else "",
        section("Results", _results(runs)),
        section("Where a query's time goes", *_latencies(runs)),
        section("Engine and torch", *torch_section([(name(run), run) for run in runs])),
        section("Success against keep ratio", *keep_curves(runs)),
        section("Which tokens live", *_strips(overlays)),
        section("Episodes", *_videos(videos)),
        section("Task families", _families(runs)),
        section("Conditions", facts(conditions)),
    ]
    return page(f"LeanVLA rollout: {title}", body)


def _finding(run: Run, word: str) -> str:
    rate = f"{name(run)}: success {run['success_rate']:.1%}"
    return f"{rate}{_against_dense(run, word)}.{_speed(run)}"


def _against_dense(run: Run, word: str) -> str:
    paired = run["paired_difference_to_dense"]
    if not paired or not paired["n"]:
        return ""
    low, high = paired["ci95"]
    verdict = f"no difference to dense could be shown with {paired['n']} paired episodes"
    if word != UNDECIDED:
        verdict = f"{word} than dense"
    return (
        f", {points(paired['difference'])} points to dense on the same seeds "
        f"(95 % interval {points(low)} to {points(high)}): {verdict}"
    )


def _speed(run: Run) -> str:
    speedup, ceiling = run["speedup_p50"], run["speedup_ceiling"]
    if speedup is None:
        return ""
    word = "faster" if speedup >= 1 else "slower: it costs more than it saves"
    most = f"; dropping these tokens could give {ceiling:.2f}× at most" if ceiling else ""
    return (
        f" Median query {run['query_latency_ms']['p50']:.1f} ms against "
        f"{run['dense_query_latency_ms']['p50']:.1f} ms, {speedup:.2f}× {word}{most}."
    )


def _results(runs: Sequence[Run]) -> str:
    judged = ("", "success", "points to dense", "judged", "errors", "wrong object")
    timed = ("tokens kept", "p50, p95 ms", "speed-up", "of ceiling")
    words = verdicts(runs)
    coloured = f" Differences are coloured by verdict. {rule(len(words))}" if words else ""
    return table(
        judged + timed,
        (_result_row(run, words.get(name(run), "")) for run in runs),
        "Small figures are 95 % intervals: Wilson's for success, Newcombe's paired one for the "
        f"difference on the same seeds.{coloured} Errors are episodes lost to the simulator; they "
        "are not judged. Speed-up: dense p50 over p50, episodes interleaved. Ceiling: Amdahl's "
        "limit from the dense phases, and how much of it was reached.",
    )


def _result_row(run: Run, word: str) -> list[str]:
    latency, speedup, ceiling = run["query_latency_ms"], run["speedup_p50"], run["speedup_ceiling"]
    low, high = run["success_ci95"]
    reused = " <small>(is dense)</small>" if run["reused_from"] else ""
    errors = str(run["errors"])
    return [
        escape(name(run)) + reused,
        f"{percent(run['success_rate'])} <small>{low * 100:.1f} – {high * 100:.1f}</small>",
        _difference(run["paired_difference_to_dense"], word),
        str(run["successes"] + run["failures"]),
        f'<span class="bad">{errors}</span>' if run["errors"] else errors,
        percent(run["wrong_object_rate"]),
        f"{run['tokens']['kept']} / {run['tokens']['visual']}",
        f"{number(latency['p50'], '.2f')} <small>{number(latency['p95'], '.2f')}</small>",
        number(speedup, ".2f", "×"),
        f"{number(ceiling, '.2f', '×')} <small>{_reached(speedup, ceiling)}</small>",
    ]


def _reached(speedup: float | None, ceiling: float | None) -> str:
    return f"{speedup / ceiling:.0%}" if speedup and ceiling and ceiling > 1 else ""


def _difference(paired: Mapping[str, Any] | None, word: str) -> str:
    if not paired or not paired["n"]:
        return "–"
    low, high = paired["ci95"]
    shown = f'<span class="{SHADE.get(word, "")}">{points(paired["difference"])}</span>'
    return f"{shown} <small>{points(low)} to {points(high)}</small>"


def _latencies(runs: Sequence[Run]) -> tuple[str, ...]:
    bars = [_latency_bar(run) for run in runs if not run["reused_from"] and _timed(run)]
    if not any(bar.parts for bar in bars):
        return ()
    text = (
        "Medians per query. The tick is the ceiling: the dense query with the layers above the cut "
        "shortened by the tokens that were dropped, and nothing else changed."
    )
    return paragraph(text), latency_bars(bars)


def _latency_bar(run: Run) -> Bar:
    ceiling, dense = run["speedup_ceiling"], run["dense_query_latency_ms"]["p50"]
    shortest = dense / ceiling if ceiling and ceiling > 1 else None
    parts = list(run["phase_latency_ms"].items())
    return Bar(name(run), parts, run["query_latency_ms"]["p50"], shortest)


def _timed(run: Run) -> bool:
    return run["query_latency_ms"]["p50"] is not None


def keep_curves(runs: Sequence[Run]) -> tuple[str, ...]:
    """Success against keep ratio, when there is a pruned run."""
    curves: dict[str, list[Point]] = {}
    judged = [run for run in runs if run["success_rate"] is not None]
    for run in judged:
        if run["method"] != "dense":
            curves.setdefault(run["method"], []).append(_point(run))
    dense = next((_point(run) for run in judged if run["method"] == "dense"), None)
    chart = success_curves(curves, dense)
    return (paragraph("Bars are 95 % intervals; the band is dense's."), chart) if chart else ()


def _point(run: Run) -> Point:
    return Point(run["keep"], run["success_rate"], *run["success_ci95"])


def _strips(overlays: Sequence[Picture]) -> list[str]:
    if not overlays:
        return []
    intro = "Patches that were pruned are dim; the acting query saw the others above the cut."
    strips = (
        f'{paragraph(strip.caption)}<div class="row">'
        + "".join(image(png, caption, 250) for caption, png in strip.files)
        + "</div>"
        for strip in overlays
    )
    return [paragraph(intro, "soft"), *strips]


def _videos(videos: Sequence[Picture]) -> list[str]:
    figures = "".join(video(clip.files[0][1], clip.caption) for clip in videos)
    return [f'<div class="row">{figures}</div>'] if figures else []


def _families(runs: Sequence[Run]) -> str:
    shown = [run for run in runs if not run["reused_from"]]
    families = sorted({task for run in shown for task in run["tasks"]})
    if not families:
        return ""
    rows = (
        [escape(name(run)), *(_family(run["tasks"].get(task)) for task in families)]
        for run in shown
    )
    return table(("", *families), rows, "Success rate, with successes of episodes judged.")


def _family(task: Mapping[str, Any] | None) -> str:
    if task is None:
        return "–"
    return f"{task['success_rate']:.0%} <small>{task['successes']}/{task['episodes']}</small>"
