"""`report.html` of `leanvla vlm`: accuracy, cost, and where the kept tokens lie."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.page import facts, image, page, paragraph, section, table
from leanvla.report.rollout import name
from leanvla.report.scatter import Dot, scatter
from leanvla.run_folder import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from leanvla.report.rollout import Picture

    Run = Mapping[str, Any]

STRIP_WIDTH = 250


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    conditions: Mapping[str, Any],
    pictures: Sequence[Picture] = (),
    *,
    notice: str = "",
) -> None:
    """Write the report; the file appears whole or not at all.

    Args:
        path: `report.html`.
        metrics: content of `metrics.json`.
        conditions: what a repetition needs, in words.
        pictures: strips of kept tokens.
        notice: shown on top, for a run that is not whole.
    """
    runs = metrics["runs"]
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    model = runs[0]["model"] if runs else "nothing"
    title = f"{model} on {', '.join(tasks)}"
    body = [
        f"<h1>{escape(title)}</h1>",
        paragraph("Every cell answered the same questions, in turn on the same machine.", "soft"),
        paragraph(notice, "note"),
        *(_task([run for run in runs if run["task"] == task]) for task in tasks),
        section("Which tokens live", *_strips(pictures)),
        section("Conditions", facts(conditions)),
    ]
    write_text(path, page(f"LeanVLA vlm: {title}", body))


def _task(runs: Sequence[Run]) -> str:
    return section(
        runs[0]["task"],
        _accuracy(runs),
        paragraph("Accuracy against the median time to the first token.", "soft"),
        scatter([_dot(run) for run in runs], "prefill p50, ms", "accuracy"),
        _cost(runs),
        _where(runs),
        _lengths(runs),
        _kinds(runs),
        _figures(runs),
    )


def _accuracy(runs: Sequence[Run]) -> str:
    return table(
        ("", "accuracy", "points to dense", "gained, lost", "p", "questions"),
        map(_accuracy_row, runs),
        "Small figures are 95 % intervals: Wilson's, and Newcombe's for the difference on the same "
        "questions. p is McNemar's exact test.",
    )


def _accuracy_row(run: Run) -> list[str]:
    low, high = run["accuracy_ci95"]
    paired = run["paired_difference_to_dense"]
    shown = f"{run['accuracy']:.1%} <small>{low * 100:.1f} – {high * 100:.1f}</small>"
    label = escape(name(run)) + (f" <small>{escape(run['note'])}</small>" if run["note"] else "")
    if not paired or not paired["n"]:
        return [label, shown, "–", "–", "–", str(run["questions"])]
    down, up = paired["ci95"]
    kind = "good" if down > 0 else "bad" if up < 0 else ""
    return [
        label,
        shown,
        f'<span class="{kind}">{paired["difference"] * 100:+.1f}</span> '
        f"<small>{down * 100:+.1f} to {up * 100:+.1f}</small>",
        f"{paired['gained']}, {paired['lost']}",
        f"{paired['p_value']:.3f}",
        str(run["questions"]),
    ]


def _cost(runs: Sequence[Run]) -> str:
    times = ("prefill ms", "decode ms", "whole ms", "selection ms")
    gains = ("prefill speed-up", "whole", "MACs", "dense layers")
    peaks = [run["peak_memory_mb"] for run in runs]
    memory = ("GPU peak MB",) if any(peaks) else ()
    rows = (
        _cost_row(r) + [_show(p, ".0f") for _ in memory] for r, p in zip(runs, peaks, strict=True)
    )
    return table(
        ("", "tokens kept", *times, *gains, *memory),
        rows,
        "Medians, small figures p95; decode is per token. Speed-up: median over the questions of "
        "dense time over this one. MACs: dense over this one, prefill of the decoder alone, "
        "4nd² + 2n²d + 3ndm per layer; no tower, no decoding.",
    )


def _cost_row(run: Run) -> list[str]:
    tokens, layers = run["tokens"], run["layers"]
    return [
        escape(name(run)),
        f"{tokens['kept']} / {tokens['visual']}",
        _time(run["prefill_ms"]),
        _time(run["decode_ms_per_token"]),
        _time(run["query_ms"]),
        _time(run["selection_ms"]),
        _show(run["prefill_speedup_p50"], ".2f", "×"),
        _show(run["query_speedup_p50"], ".2f", "×"),
        _show(run["prefill_macs_ratio"], ".2f", "×"),
        f"{layers['dense']} of {layers['of']}",
    ]


def _where(runs: Sequence[Run]) -> str:
    """Retention: what the kept tokens lie on."""
    rows = [
        [
            escape(name(run)),
            f"{run['tokens']['kept'] / run['tokens']['visual']:.0%}",
            *(_show((run["retention"] or {}).get(key), ".1%") for key in _WHERE),
        ]
        for run in runs
        if run["retention"]
    ]
    caption = (
        "Kept patches against the masks of what was asked about (recall, IoU), and of it and the "
        "gripper together (Precision-Ω). A random choice recalls the share that is kept; its "
        "Precision-Ω is the last column."
    )
    heads = ("", "kept", "recall", "IoU", "Precision-Ω", "chance")
    return table(heads, rows, caption) if rows else ""


_WHERE = ("recall", "iou", "precision_omega", "omega_share")


def _lengths(runs: Sequence[Run]) -> str:
    """Accuracy by length, where there is more than one."""
    lengths = {one["seconds"]: one["prompt_tokens"] for run in runs for one in run["lengths"]}
    if len(lengths) < 2:
        return ""
    heads = [f"{seconds:g} s, {tokens:,} tokens" for seconds, tokens in sorted(lengths.items())]
    rows = (
        [escape(name(run)), *(_kind(by_length.get(seconds)) for seconds in sorted(lengths))]
        for run in runs
        for by_length in [{one["seconds"]: one for one in run["lengths"]}]
    )
    return table(("", *heads), rows, "Accuracy by length of the context, with its questions.")


def _kinds(runs: Sequence[Run]) -> str:
    kinds = sorted({kind for run in runs for kind in run["kinds"]})
    if not kinds:
        return ""
    rows = ([escape(name(run)), *(_kind(run["kinds"].get(kind)) for kind in kinds)] for run in runs)
    return table(("", *kinds), rows, "Accuracy by kind of question, with their number.")


def _kind(kind: Mapping[str, float] | None) -> str:
    return "–" if kind is None else f"{kind['accuracy']:.0%} <small>{kind['questions']}</small>"


def _figures(runs: Sequence[Run]) -> str:
    names = sorted({figure for run in runs for figure in run["figures"]})
    rows = (
        [escape(name(run)), *(_show(run["figures"].get(figure), ".3g") for figure in names)]
        for run in runs
    )
    return table(("", *names), rows, "The benchmark's own figures.") if names else ""


def _dot(run: Run) -> Dot:
    low, high = run["accuracy_ci95"]
    label = name(run)
    return Dot(run["method"], label, run["prefill_ms"]["p50"], run["accuracy"], low, high)


def _strips(pictures: Sequence[Picture]) -> Iterator[str]:
    if pictures:
        yield paragraph("Patches that were pruned are dim.", "soft")
    for strip in pictures:
        shown = "".join(image(png, caption, STRIP_WIDTH) for caption, png in strip.files)
        yield f'{paragraph(strip.caption)}<div class="row">{shown}</div>'


def _time(times: Mapping[str, float | None]) -> str:
    return f"{_show(times['p50'], '.2f')} <small>{_show(times['p95'], '.2f')}</small>"


def _show(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"
