"""`report.html` of demonstrations and of a training run."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.curves import curves
from leanvla.report.page import facts, page, paragraph, section, table
from leanvla.run_folder import environment, write_text
from sim.statistics import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    Row = Mapping[str, Any]

LOSSES = ("action", "grounding", "position")


def write_training_report(folder: Path, metrics: Row, log: Sequence[Row]) -> None:
    """Write `report.html` of a training run.

    Args:
        folder: the run's folder.
        metrics: content of `metrics.json`.
        log: rows of `log.jsonl`; a stage ends where `samples` falls back.
    """
    stages = list(_stages(log))
    heading = f"Training of {metrics['recipe']}"
    body = [
        f"<h1>{escape(heading)}</h1>",
        section("Stages", table(("", "samples", "samples/s", *LOSSES), map(_stage_row, stages))),
        section("Losses", *(_curve(name, stages) for name in LOSSES)),
        section("Corrections", _corrections(metrics["corrections"])),
        section("Conditions", facts({**_without(metrics, "corrections"), **environment()})),
    ]
    write_text(folder / "report.html", page(f"LeanVLA: {heading}", body))


def write_demos_report(folder: Path, suite: str, metrics: Row) -> None:
    """Write `report.html` of a collection of demonstrations."""
    kept, tried = metrics["kept"], metrics["kept"] + metrics["failed"]
    low, high = wilson_interval(kept, tried)
    text = (
        f"The scripted expert solved {kept} of {tried} episodes = {kept / tried:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}); only these are kept."
    )
    body = [
        f"<h1>Demonstrations of {escape(suite)}</h1>",
        paragraph(text),
        section("Conditions", facts({**metrics, **environment()})),
    ]
    write_text(folder / "report.html", page(f"LeanVLA: demonstrations of {suite}", body))


def _stages(log: Sequence[Row]) -> Iterator[list[Row]]:
    """The log cut where a new stage begins, also where a later recipe begins again at stage 1."""
    stage: list[Row] = []
    for row in log:
        if stage and row["samples"] <= stage[-1]["samples"]:
            yield stage
            stage = []
        stage.append(row)
    if stage:
        yield stage


def _stage_row(stage: list[Row]) -> list[str]:
    last = stage[-1]
    pace = sorted(row["samples_per_s"] for row in stage)[len(stage) // 2]
    name = f"{last['stage']} of {last['stages']}"
    done = f"{last['samples']:,} <small>of {last['of']:,}</small>"
    return [name, done, f"{pace:.0f}", *(f"{last[loss]:.3f}" for loss in LOSSES)]


def _curve(name: str, stages: list[list[Row]]) -> str:
    start, named = 0, {}
    for number, stage in enumerate(stages, 1):
        named[f"{number}: stage {stage[-1]['stage']} of {stage[-1]['stages']}"] = [
            (start + row["samples"], row[name]) for row in stage
        ]
        start += stage[-1]["samples"]
    return curves(named, f"{name} loss against samples")


def _corrections(rounds: Sequence[Row]) -> str:
    rows = (
        [str(number), str(r["episodes"]), f"{r['finished_before_take_over']:.1%}"]
        for number, r in enumerate(rounds, 1)
    )
    caption = (
        "Episodes that the policy drove, and the share it finished before the expert took over."
    )
    return table(("round", "episodes", "finished alone"), rows, caption) if rounds else ""


def _without(values: Row, name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}
