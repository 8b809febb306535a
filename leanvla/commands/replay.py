"""`leanvla replay`: a recorded episode through the same policy code as live, dense and pruned."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from leanvla.commands.replay_play import Played

NOBODY = "none"
RECORDED = "recorded"


@dataclass(frozen=True)
class Replay:
    """Replay one recorded episode through a policy, dense and pruned, on the same looks.

    Reads LeRobotDataset folders (v2.1, v3.0), rosbag2 folders and plain MCAP, LIBERO and robomimic
    HDF5, and our own demonstrations and recordings. Writes `metrics.json` and `report.html`.

    Attributes:
        recording: the recording.
        policy: packaged policy or checkpoint folder; `none` only reads and decodes.
        engine: `recorded` runs what the recording ran on, and torch where it says nothing of it;
            `auto`, `torch` or the folder of an exported engine as in `leanvla rollout`.
        method: pruning methods, separated by commas; `dense` always runs as the reference.
        keep: keep ratios in (0, 1], separated by commas.
        out: folder of the results.
        episode: which episode, where a recording holds several.
        contract: the robot's contract, for bags that do not say which topic is what.
        instruction: words instead of the recorded ones.
        view: recorded view for a view of the policy, `VIEW=RECORDED`, with `@180`, `@90`, `@270`
            or `@flip` behind it when it must be turned first.
        state_by_place: take recorded state values in their order, whatever they are called.
        execute: rows of a chunk before the next query, where no decisions were recorded; the
            policy's own choice when left out.
        limit: most looks.
        realtime: wait for the recording's clock; late answers are counted.
        recover: read what a damaged recording still holds, and say how much is lost.
        strict: exit code 1 when anything was lost or had to be mended.
        option: fields of the pruning methods, e.g. `window=5`.
        unnorm_key: data set whose statistics give actions their units.
        threads: processor threads of the policy.
        rerun: write looks, kept tokens and actions to this `.rrd` file, too.
        json: print `metrics.json` instead of the table.
    """

    recording: tyro.conf.Positional[Path]
    policy: str = "mini"
    engine: str = RECORDED
    method: str = "vla_pruner"
    keep: str = "0.25"
    out: Path = Path("runs/replay")
    episode: int = 0
    contract: Path | None = None
    instruction: str | None = None
    view: tuple[str, ...] = ()
    state_by_place: bool = False
    execute: int | None = None
    limit: int | None = None
    realtime: bool = False
    recover: bool = False
    strict: bool = False
    option: tuple[str, ...] = ()
    unnorm_key: str | None = None
    threads: int = 1
    rerun: Path | None = None
    json: bool = False


def run(config: Replay) -> int:
    """Open, replay, write; gives the exit code.

    Raises:
        UsageError: for an impossible configuration.
        EnvironmentFault: when a cell needs torch, and torch is missing.
        EngineError: for an engine that cannot run a cell.
        ReplayError: when the recording cannot be read, or does not fit the policy.
        RerunError: when `--rerun` is asked for and rerun-sdk is not installed.
    """
    from leanvla.commands.replay_engine import make_policy_source
    from leanvla.commands.replay_plan import check, make_actors, open_source
    from leanvla.commands.replay_play import play
    from leanvla.commands.replay_results import show, write
    from leanvla.run_folder import open_run_folder

    check(config)
    episode = open_source(config)
    source = make_policy_source(config, episode.info.facts)
    actors = make_actors(config, source)
    folder = open_run_folder(config.out, config, resume=False)
    played = play(config, episode, actors, source)
    metrics = write(config, folder, played)
    _tell(played)
    return show(config, metrics, played)


def _tell(played: Played) -> None:
    losses = played.episode.losses
    for sentence in losses.notes:
        print(sentence, file=sys.stderr)
    if losses.seconds:
        print(f"lost: at least {losses.seconds:.3f} s of the recording", file=sys.stderr)
