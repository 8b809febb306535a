"""The gallery of a report: lost episodes once more, on camera, beside their dense twins."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from leanvla.commands.twins import losses, make_twins, open_lab, spec_of
from leanvla.errors import explain
from leanvla.report.pictures import film_strips, write_videos
from leanvla.report.study_truth import Exhibit
from sim.attribution.divergence import PATH_GAP_M, divergence, metres
from sim.rollout.runner import FILM_SIZE
from sim.rollout.simulator import FILM_EVERY, describe
from sim.rollout.types import Recording

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sim.analysis.study import Study
    from sim.attribution.divergence import Divergence
    from sim.attribution.lab import Walk
    from sim.rollout.types import EpisodeRecord
    from sim.suites.base import SuiteSpec


class GalleryError(RuntimeError):
    """Episodes that could not be filmed; everything else of the report is written.

    Args:
        message: one sentence.
        exit_code: that of what stood in the way.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Unfilmed(NamedTuple):
    """An episode that could not be filmed.

    Attributes:
        study: number of its study.
        notice: which, and why: one sentence.
        error: what stood in the way.
        exit_code: of that; None for a fault of ours.
    """

    study: int
    notice: str
    error: Exception
    exit_code: int | None


def film(studies: Sequence[Study], most: int, out: Path) -> tuple[list[Exhibit], list[Unfilmed]]:
    """Film at most `most` losses: of each cell its first, the largest budgets first."""
    exhibits, lost = list[Exhibit](), list[Unfilmed]()
    for number, study in enumerate(studies):
        chosen = [found[0] for found in losses(study).values() if found]
        for record in chosen[: most - len(exhibits)]:
            name = f"{record.cell}, seed {record.seed}"
            _say(f"filming {name}")
            try:
                exhibits.append(_exhibit(study, record, out))
            except Exception as error:
                code, why = explain(error) or (None, describe(error))
                lost.append(Unfilmed(number, f"{name} could not be filmed: {why}", error, code))
    if not exhibits and not lost:
        _say("nothing to film: no pruned episode failed whose dense twin succeeded")
    return exhibits, lost


def refuse(lost: Sequence[Unfilmed]) -> NoReturn:
    """End a report that lacks films.

    Raises:
        GalleryError: when the user can do something about it; a fault of ours as it is.
    """
    first = next((one for one in lost if one.exit_code is None), lost[0])
    if first.exit_code is None:
        raise first.error
    more = f"; {len(lost) - 1} more are told of in the report" if len(lost) > 1 else ""
    message = f"the report is written, but {first.notice}{more}"
    raise GalleryError(message, first.exit_code) from first.error


def sentences(found: Divergence, dense_steps: int, suite: SuiteSpec) -> list[str]:
    """What a divergence says, one sentence each."""
    told = [f"Dense solves this seed in {dense_steps} steps of at most {suite.max_steps}."]
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
    elif metres(suite):
        told.append(
            f"The two episodes are never more than {PATH_GAP_M * 100:g} cm apart while both last."
        )
    return told


def _exhibit(study: Study, record: EpisodeRecord, out: Path) -> Exhibit:
    folder = study.home(record.cell)
    spec = spec_of(folder, record.cell)
    with open_lab(folder, spec, record.seed) as lab:
        twins = make_twins(lab, spec, record.cell)
        pruned, dense = lab.walk(twins.pruned, FILM_SIZE), lab.walk(twins.dense)
        suite = lab.suite
        found = divergence(pruned, dense, twins.dense, suite)
    told = sentences(found, dense.steps, suite)
    outcome = "success" if pruned.success else "failure"
    began = pruned.opening.start.init_state_hash
    was, now = (record.outcome, record.steps), (outcome, pruned.steps)
    if was != now or not dense.success or record.init_state_hash not in ("", began):
        told.insert(0, "It did not repeat: policy, suite or code changed since the run.")
    recording = _recording(record, pruned, suite)
    strip, clips = film_strips([recording])[0], write_videos(out, [recording])
    return Exhibit(strip.caption, tuple(told), strip, clips[0] if clips else None)


def _recording(record: EpisodeRecord, walk: Walk, suite: SuiteSpec) -> Recording:
    views, rate = suite.observation.views, suite.action.rate_hz / FILM_EVERY
    return Recording(record, views, walk.frames, rate, walk.view_tokens)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
