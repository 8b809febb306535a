"""An episode taken down as an MCAP bag: what was seen, said, decided and executed.

The bag replays through the policy to the very same decisions, and converts to a data set: pictures
and state are there for every control step. Time on the tape is simulated time.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import numpy as np

from policy.replay.layout import layout_for
from policy.replay.recorder import Recorder
from policy.replay.types import decision_of
from sim.rollout.types import DENSE

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from policy.replay.layout import Fact
    from policy.replay.redact import Redaction
    from policy.types import Observation
    from sim.rollout.episode import Turn
    from sim.rollout.types import EpisodeRecord, Job, Source
    from sim.suites.base import SuiteSpec

BEGIN_NS = 1_000_000_000  # a stamp of zero would mean: not stamped
QUEUE_BYTES = 1 << 30  # a simulator can wait for the disk; here nothing may be dropped


class EpisodeTape:
    """One episode's recording. A context manager: a lost episode leaves what was seen so far.

    Args:
        folder: takes one bag per cell and seed; an earlier attempt's is replaced.
        job: the episode.
        suite: what the simulator shows and takes.
        policy: where the policy comes from.
        redaction: what is done to pictures.
    """

    def __init__(
        self,
        folder: Path,
        job: Job,
        suite: SuiteSpec,
        policy: Source,
        redaction: Redaction = "none",
    ) -> None:
        self.path = folder / tape_name(job)
        self._job, self._suite, self._policy = job, suite, policy
        self._redaction: Redaction = redaction
        self._recorder: Recorder | None = None
        self._words, self._decisions = "", 0
        self._result: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Opened with the first look, when the size of its pictures is known."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bag."""
        if self._recorder is not None:
            self._recorder.close(self._result, timeout_s=60.0)

    def add(self, step: int, seen: Observation, turn: Turn) -> None:
        """One query at control step `step`, and what followed."""
        chunk = turn.chunk
        recorder = self._recorder or self._open(seen)
        now = self._stamp(step)
        self._look(recorder, seen, now)
        if chunk is None:
            return
        decision = decision_of(
            seen,
            chunk,
            turn.timings[0],
            number=self._decisions,
            after=self._decisions - 1 if self._decisions else None,
            cell=str(self._job.cell),
            images=[now] * len(seen.images),
            states=[now] * len(recorder.layout.state),
        )
        self._decisions += 1
        recorder.decision(decision, now)
        self._execute(recorder, step, turn)

    def end(self, record: EpisodeRecord) -> None:
        """How it ended; written when the tape is closed."""
        self._result = {
            "outcome": record.outcome,
            "steps": str(record.steps),
            "task": record.task,
            "init_state_hash": record.init_state_hash,
        }

    def _open(self, seen: Observation) -> Recorder:
        shutil.rmtree(self.path, ignore_errors=True)
        job, suite = self._job, self._suite
        sizes = {
            view: (image.shape[1], image.shape[0])
            for view, image in zip(suite.observation.views, seen.images, strict=True)
        }
        fields = {} if job.cell.method == DENSE else dict(self._policy.method_options)
        facts: dict[str, Fact] = {
            "suite": suite.name,
            "policy": self._policy.name,
            "engine": self._policy.engine_sha256(job.cell),
            "method": job.cell.method,
            "keep": job.cell.keep,
            "options": json.dumps(fields, sort_keys=True),
            "seed": job.seed,
            "redaction": self._redaction,
        }
        layout = layout_for(suite.observation, suite.action, sizes, facts)
        self._recorder = Recorder(
            self.path, layout, redaction=self._redaction, queue_bytes=QUEUE_BYTES
        )
        return self._recorder

    def _stamp(self, step: int) -> int:
        return BEGIN_NS + round(step / self._suite.action.rate_hz * 1e9)

    def _look(self, recorder: Recorder, seen: Observation, now: int) -> None:
        if seen.instruction != self._words:
            self._words = seen.instruction
            recorder.instruction(seen.instruction, now)
        for view, image in zip(self._suite.observation.views, seen.images, strict=True):
            recorder.image(view, image, now)
        if seen.state is not None and recorder.layout.state:
            recorder.state(seen.state, now)

    def _execute(self, recorder: Recorder, step: int, turn: Turn) -> None:
        """Each executed row at its own time, behind what was seen then."""
        actions = np.asarray(turn.chunk.actions if turn.chunk else (), np.float32)
        for number in range(turn.advance.steps):
            now = self._stamp(step + number)
            if number and number <= len(turn.advance.watched):
                self._look(recorder, turn.advance.watched[number - 1], now)
            recorder.rows(actions[number : number + 1], now)


def tape_name(job: Job) -> str:
    """Folder of an episode's bag: `vla_pruner_0.25_seed_000012`."""
    cell = re.sub(r"[^A-Za-z0-9_.]+", "_", f"{job.cell.method}_{job.cell.keep:g}")
    return f"{cell}_seed_{job.seed:06d}"
