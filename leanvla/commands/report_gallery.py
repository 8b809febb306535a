"""The gallery of a report: lost episodes once more, on camera, beside their dense twins."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leanvla.commands.twins import losses, make_twins, open_lab, spec_of
from leanvla.report.pictures import film_strips, write_videos
from leanvla.report.study_truth import Exhibit
from sim.attribution.divergence import divergence
from sim.rollout.runner import FILM_SIZE
from sim.rollout.simulator import FILM_EVERY
from sim.rollout.types import Recording

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sim.analysis.study import Study
    from sim.attribution.divergence import Divergence
    from sim.attribution.lab import Walk
    from sim.rollout.types import EpisodeRecord
    from sim.suites.base import SuiteSpec


def film(studies: Sequence[Study], most: int, out: Path) -> list[Exhibit]:
    """Film at most `most` losses: of each cell its first, the largest budgets first.

    Raises:
        SimulatorLostError: when the simulator hung or died.
        VideoError: when PyAV is not installed.
    """
    exhibits: list[Exhibit] = []
    for study in studies:
        chosen = [found[0] for found in losses(study).values() if found]
        for record in chosen[: most - len(exhibits)]:
            print(f"filming {record.cell}, seed {record.seed}", file=sys.stderr, flush=True)
            exhibits.append(_exhibit(study, record, out))
    return exhibits


def explain(found: Divergence, dense_steps: int, max_steps: int) -> list[str]:
    """What a divergence says, one sentence each."""
    told = [f"Dense solves this seed in {dense_steps} steps of at most {max_steps}."]
    if found.decision_step is None:
        told.append("Shown the same pictures, dense would never have decided much otherwise.")
    else:
        told.append(
            f"First diverging decision: step {found.decision_step}, where dense, shown the same "
            f"picture, would have acted otherwise by {found.decision_gap:.2f} of the action range."
        )
    if found.path_step is not None:
        told.append(
            f"The two episodes are {found.path_gap_m * 100:.1f} cm apart for the first time at "
            f"step {found.path_step}."
        )
    return told


def _exhibit(study: Study, record: EpisodeRecord, out: Path) -> Exhibit:
    folder = study.home(record.cell)
    spec = spec_of(folder, record.cell)
    with open_lab(folder, spec, record.seed) as lab:
        twins = make_twins(lab, spec, record.cell)
        pruned, dense = lab.walk(twins.pruned, FILM_SIZE), lab.walk(twins.dense)
        suite = lab.suite
        told = explain(divergence(pruned, dense, twins.dense, suite), dense.steps, suite.max_steps)
    outcome = "success" if pruned.success else "failure"
    if (outcome, pruned.steps) != (record.outcome, record.steps) or not dense.success:
        told.insert(0, "It did not repeat: policy, suite or code changed since the run.")
    recording = _recording(record, pruned, suite)
    strip, clips = film_strips([recording])[0], write_videos(out, [recording])
    return Exhibit(strip.caption, tuple(told), strip, clips[0] if clips else None)


def _recording(record: EpisodeRecord, walk: Walk, suite: SuiteSpec) -> Recording:
    views, rate = suite.observation.views, suite.action.rate_hz / FILM_EVERY
    return Recording(record, views, walk.frames, rate, walk.view_tokens)
