"""`leanvla attribute`: the step, the phase and the view where pruning lost an episode."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from leanvla.commands.arguments import parse_cell
from leanvla.errors import UsageError

if TYPE_CHECKING:
    from sim.analysis.runs import RunFolder
    from sim.attribution.attribute import Attribution
    from sim.rollout.types import EpisodeRecord
    from sim.rollout.worker import WorkerSpec

SCHEMA = "leanvla.attribution/1"


@dataclass(frozen=True)
class Attribute:
    """Find where pruning lost an episode that the dense model wins on the same seed.

    Runs both episodes again, then continues from saved moments with the dense and the pruned
    policy, halving the episode until the query that lost it is found. Needs a suite that can save a
    running episode, as `tabletop` can; any other is refused at once. Writes `metrics.json` and
    `report.html` into `out`.

    Attributes:
        run: folder that `leanvla rollout` wrote, or one run of a sweep's store.
        episode: seed of the failed episode; the first one that dense solved when left out.
        cell: `METHOD@KEEP` of the failed episode, where several cells failed.
        trials: continuations per moment at most; odd.
        noise: standard deviation of what disturbs actions in all continuations but the first, in
            the action's own units.
        out: folder of the results.
        json: print `metrics.json` instead of sentences.
    """

    run: tyro.conf.Positional[Path]
    episode: int | None = None
    cell: str | None = None
    trials: int = 5
    noise: float = 0.02
    out: Path = Path("runs/attribution")
    json: bool = False


def run(config: Attribute) -> int:
    """Find the episode, search, write and print; gives the exit code.

    Raises:
        UsageError: when there is no such episode, or several.
        ResultsError: when the run folder cannot be read.
        AttributionError: when nothing can be attributed: it says why.
    """
    from leanvla.commands.twins import spec_of
    from leanvla.report.attribution import document, sentences
    from leanvla.run_folder import IGNORED, open_run_folder, write_json, write_text
    from sim.analysis.runs import read_run, run_folders

    _check(config)
    (path, *others) = run_folders(config.run)
    if others:
        raise UsageError(f"{config.run} holds {len(others) + 1} runs: name one, e.g. {path}")
    folder = read_run(path)
    record = choose(folder, config)
    spec = spec_of(folder, record.cell)
    _check_suite(spec.suite.name)
    out = open_run_folder(config.out, config, resume=True, ignore={*IGNORED, "json"})
    print(f"{record.cell}, seed {record.seed}: “{record.instruction}”", file=sys.stderr)
    found = search(folder, spec, record, config)
    content = entry(record, found)
    write_json(out / "metrics.json", content)
    write_text(out / "report.html", document(record, found))
    if config.json:
        print(json.dumps(content, indent=2))
    else:
        print("\n".join(sentences(record, found)))
    print(f"report: {out / 'report.html'}", file=sys.stderr)
    return 0


def choose(folder: RunFolder, config: Attribute) -> EpisodeRecord:
    """The failed episode that was asked for.

    Raises:
        UsageError: when there is none, or when it is not clear which one.
    """
    from leanvla.commands.twins import losses
    from sim.analysis.study import Study

    study = Study(folder.setup)
    study.add(folder)
    lost = {cell: {r.seed: r for r in found} for cell, found in losses(study).items() if found}
    if config.cell is not None:
        asked = parse_cell(config.cell, "--cell")
        lost = {cell: found for cell, found in lost.items() if cell == asked}
    if config.episode is not None:
        lost = {cell: found for cell, found in lost.items() if config.episode in found}
    if not lost:
        raise UsageError(
            f"{folder.path} has no such episode that pruning failed and dense solved: "
            "look at its report for failures, or leave out --episode or --cell"
        )
    if len(lost) > 1 and config.episode is not None:
        raise UsageError(
            f"seed {config.episode} was lost in {', '.join(map(str, lost))}: choose one, e.g. "
            f"--cell {str(next(iter(lost))).replace(' ', '')}"
        )
    found = next(iter(lost.values()))
    return found[config.episode] if config.episode is not None else next(iter(found.values()))


def search(
    folder: RunFolder, spec: WorkerSpec, record: EpisodeRecord, config: Attribute
) -> Attribution:
    """Run the search in a simulator of its own."""
    from leanvla.commands.twins import make_twins, open_lab, view_actors
    from sim.attribution.attribute import attribute

    log = str(config.out / "simulator.log")
    with open_lab(folder, spec, record.seed, noise=config.noise, log=log) as lab:
        twins = make_twins(lab, spec, record.cell)
        views, note = view_actors(spec, record.cell, lab.suite)
        return attribute(
            lab,
            record,
            twins.dense,
            twins.pruned,
            views,
            trials=config.trials,
            views_note=note,
            tell=lambda words: print(words, file=sys.stderr, flush=True),
        )


def entry(record: EpisodeRecord, found: Attribution) -> dict[str, Any]:
    """The content of `metrics.json`."""
    return {
        "schema": SCHEMA,
        "method": record.method,
        "keep": record.keep,
        "seed": record.seed,
        "instruction": record.instruction,
        "kind": found.kind,
        "query": found.query,
        "step": found.step,
        "until_step": found.until_step,
        "phase": found.phase,
        "views_that_lose_alone": found.culprits,
        "pruned_steps": found.pruned_steps,
        "dense_steps": found.dense_steps,
        "decision_gap": found.gap,
        "divergence": found.divergence._asdict(),
        "mended_by_noise": found.mended and found.mended._asdict(),
        "votes": [{**one._asdict(), "ci95": one.ci95} for one in found.turning.votes],
        "views": [
            {**view._asdict(), "vote": view.vote and view.vote._asdict()} for view in found.views
        ],
        "views_note": found.views_note or None,
        "queries": found.queries,
        "search_s": found.seconds,
    }


def _check_suite(name: str) -> None:
    """What one's own suite can, it tells when it stands."""
    from sim.attribution.lab import check_saves
    from sim.suites import suite_spec

    if ":" not in name:
        check_saves(suite_spec(name))


def _check(config: Attribute) -> None:
    if config.trials < 1 or config.trials % 2 == 0:
        raise UsageError(f"--trials is {config.trials}: give an odd number, so that a vote decides")
    if not 0 <= config.noise < 1:
        raise UsageError(f"--noise is {config.noise}: give 0 or more, below 1")
