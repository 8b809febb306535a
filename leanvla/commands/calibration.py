"""`--calibrate` of `leanvla export`: recorded observations, and the ranges measured on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leanvla.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leanvla.commands.export import Export
    from policy.openvla.engine.calibrate import Calibration
    from policy.openvla.engine.export import Ranges
    from policy.types import Observation

EVERY = 8
"""Steps of a recording between two observations: about one query of a policy with chunks."""
SHORTEST = 4


def measure_ranges(config: Export, checkpoint: Path) -> Ranges | None:
    """Ranges of activations for a calibrated precision; None when none is asked for.

    Raises:
        UsageError: for a number of frames that measures nothing.
        EngineError: when precision and `--calibrate` do not go together.
        ReplayError: for a recording that cannot be read, or does not fit the policy.
    """
    from leanvla.commands.export import Talk
    from policy.openvla.engine.calibrate import calibrating
    from policy.openvla.engine.export import check_precision
    from sim.suites import SUITES

    check_precision(config.precision, calibrated=config.calibrate is not None)
    if config.calibrate is None:
        return None
    if config.calibrate_frames < 1:
        raise UsageError(f"--calibrate-frames is {config.calibrate_frames}: give 1 or more")
    suite = config.calibrate in SUITES
    if not suite and not Path(config.calibrate).exists():
        raise UsageError(
            f"--calibrate is {config.calibrate!r}: give a suite ({', '.join(sorted(SUITES))}) or a "
            "recording"
        )
    with calibrating(checkpoint, config.prompt_tokens, Talk()) as calibration:
        episodes = _acted if suite else _recorded
        for observations in episodes(config, calibration):
            calibration.see(observations)
        return calibration.ranges(config.calibrate)


def _acted(config: Export, calibration: Calibration) -> Iterator[list[Observation]]:
    """Episodes in which the dense policy acts, on seeds that no evaluation uses."""
    from leanvla.commands.recorded_episode import record_episode
    from sim.demos import EVAL_SEED_LIMIT

    seed, left = EVAL_SEED_LIMIT, config.calibrate_frames
    while left > 0:
        seen = record_episode(str(config.calibrate), calibration.policy.engine, seed, left)
        yield seen
        seed, left = seed + 1, left - len(seen)


def _recorded(config: Export, calibration: Calibration) -> Iterator[list[Observation]]:
    """Every so many steps of a recording's episodes, a share of the frames from each."""
    from leanvla.commands.replay_plan import suite_specs
    from policy.replay.match import fit
    from policy.replay.open import Options, count_episodes, open_episode
    from policy.replay.run import observe

    path, policy = Path(str(config.calibrate)), calibration.policy
    options = Options(specs=suite_specs(path), every_look=True)
    count, left = count_episodes(path), config.calibrate_frames
    for number in range(count):
        if left <= 0:
            return
        episode = open_episode(path, number, options)
        matched = fit(episode.info, policy.observation_spec, policy.action_spec, [])
        share, seen = max(SHORTEST, -(-left // (count - number))), []
        for step, moment in enumerate(episode.steps()):
            if step % EVERY == 0:
                seen.append(observe(moment, matched.choose(moment.look())))
            if len(seen) >= min(share, left):
                break
        left -= len(seen)
        yield seen
