"""`leanvla convert`: recordings into MCAP bags, a LeRobotDataset, or demonstration shards."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from leanvla.errors import CHECK_FAILED, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policy.replay.types import Episode

SCHEMA = "leanvla.convert/1"


@dataclass(frozen=True)
class Convert:
    """Convert every episode of a recording, or one of them.

    Reads whatever `leanvla replay` reads. The destination appears whole or not at all.

    Attributes:
        source: the recording.
        destination: folder to write; must not exist.
        to: `mcap` (one rosbag2 folder per episode), `lerobot` (LeRobotDataset v3.0), or `demos`
            (shards for `leanvla train`; without grounding, which recordings do not hold).
        episode: only this one.
        contract: the robot's contract, for bags that do not say which topic is what.
        instruction: words instead of the recorded ones.
        pictures: of a LeRobotDataset: `video` (small, lossy) or `png` (lossless).
        first_action: where looks and executed rows are not one to one, take the first row after a
            look, and leave looks without one out.
        recover: read what a damaged recording still holds.
        strict: exit code 1 when anything was lost.
    """

    source: tyro.conf.Positional[Path]
    destination: tyro.conf.Positional[Path]
    to: Literal["mcap", "lerobot", "demos"] = "lerobot"
    episode: int | None = None
    contract: Path | None = None
    instruction: str | None = None
    pictures: Literal["video", "png"] = "video"
    first_action: bool = False
    recover: bool = False
    strict: bool = False


def run(config: Convert) -> int:
    """Convert, print counts as JSON; gives the exit code.

    Raises:
        UsageError: when the destination exists.
        ReplayError: when the source cannot be read, or does not fit the destination.
    """
    if config.destination.exists():
        raise UsageError(f"{config.destination} exists: choose another folder")
    part = config.destination.with_name(f".{config.destination.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write = {"mcap": _to_mcap, "lerobot": _to_lerobot, "demos": _to_demos}[config.to]
    lost: Counter[str] = Counter()
    try:
        counts = write(config, part, lost)
        part.rename(config.destination)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    print(json.dumps({"schema": SCHEMA, **counts, "losses": dict(lost)}, indent=2))
    return CHECK_FAILED if config.strict and lost else 0


def _episodes(config: Convert, lost: Counter[str], *, every_look: bool) -> Iterator[Episode]:
    from leanvla.commands.replay_plan import suite_specs
    from policy.replay.open import Options, count_episodes, open_episode

    contract = None
    if config.contract is not None:
        from policy.contract_file import read_contract

        contract = read_contract(config.contract)
    options = Options(
        contract,
        config.instruction,
        suite_specs(config.source),
        config.recover,
        every_look=every_look,
    )
    count = count_episodes(config.source)
    for number in range(count) if config.episode is None else [config.episode]:
        episode = open_episode(config.source, number, options)
        yield episode
        lost.update(episode.losses.counts)
        for sentence in episode.losses.notes:
            print(sentence, file=sys.stderr)


def _to_mcap(config: Convert, out: Path, lost: Counter[str]) -> dict[str, int]:
    from policy.replay.write_bag import write_bag

    looks = [
        write_bag(episode, out / f"episode_{number:06d}")
        for number, episode in enumerate(_episodes(config, lost, every_look=True))
    ]
    return {"episodes": len(looks), "looks": sum(looks)}


def _to_lerobot(config: Convert, out: Path, lost: Counter[str]) -> dict[str, int]:
    from policy.replay.frames import frame_rows, look_rate_hz
    from policy.replay.lerobot_write import LeRobotWriter

    writer, rows = None, 0
    for episode in _episodes(config, lost, every_look=True):
        if writer is None:
            fps = look_rate_hz(episode) if config.first_action else episode.info.rate_hz
            robot = episode.info.facts.get("robot") or episode.info.facts.get("suite")
            name = None if robot is None else str(robot)
            writer = LeRobotWriter(out, round(fps, 3), config.pictures, name)
        rows += writer.add(episode.info, frame_rows(episode, first_action=config.first_action))
    if writer is None:
        raise UsageError(f"{config.source}: holds no episode")
    writer.close()
    return {"episodes": len(writer.lengths), "rows": rows}


def _to_demos(config: Convert, out: Path, lost: Counter[str]) -> dict[str, int]:
    from leanvla.commands.convert_demos import write_demos

    episodes = _episodes(config, lost, every_look=True)
    return write_demos(out, episodes, first_action=config.first_action)
