"""Recordings as demonstration shards, which `leanvla train` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import yaml

from leanvla.errors import UsageError
from leanvla.run_folder import write_text
from policy.replay.frames import frame_rows
from sim.demos import EPISODES_PER_SHARD, Episode, write_shard

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from policy.replay.types import Episode as Recorded


def write_demos(
    out: Path, recorded: Iterable[Recorded], *, first_action: bool = False
) -> dict[str, int]:
    """Write shards into `out`; gives counts.

    Raises:
        UsageError: when an episode has no state, or pictures of different sizes.
        ReplayError: when looks and executed rows are not one to one.
    """
    episodes: list[Episode] = []
    shards = steps = count = 0
    for number, source in enumerate(recorded):
        _name_suite(out, source)
        episodes.append(_episode(source, number, first_action))
        steps, count = steps + episodes[-1].steps, count + 1
        if len(episodes) == EPISODES_PER_SHARD:
            write_shard(_path(out, shards), episodes)
            episodes, shards = [], shards + 1
    if episodes:
        write_shard(_path(out, shards), episodes)
    return {"episodes": count, "rows": steps}


def _name_suite(out: Path, source: Recorded) -> None:
    """Say which suite's names and units the values have, as `leanvla demos` does."""
    from sim.suites import SUITES

    suite = source.info.facts.get("suite") or source.info.facts.get("robot")
    if suite in SUITES:
        write_text(out / "config.yaml", yaml.safe_dump({"suite": suite}))


def _path(out: Path, shard: int) -> Path:
    return out / f"demos-{shard:09d}.safetensors"


def _episode(source: Recorded, number: int, first_action: bool) -> Episode:
    info = source.info
    rows = list(frame_rows(source, first_action=first_action))
    states = [row.look.state for row in rows if row.look.state is not None]
    if not rows or len(states) != len(rows):
        raise UsageError(f"{info.name}: shards hold proprioception, this has none")
    if len({image.shape for row in rows for image in row.look.images}) != 1:
        raise UsageError(f"{info.name}: shards hold pictures of one size, these differ")
    steps, views = len(rows), len(rows[0].look.images)
    nowhere = np.full((steps, 3), np.nan, np.float32)
    unplaced, unseen = np.zeros((steps, views, 2), np.float32), np.zeros((steps, views), bool)
    arrays = {
        "frames": np.stack([np.stack(row.look.images) for row in rows]),
        "states": np.stack(states).astype(np.float32),
        "actions": np.stack([row.action for row in rows]).astype(np.float32),
        "target_xyz": nowhere,
        "goal_xyz": nowhere,
        "target_uv": unplaced,
        "goal_uv": unplaced,
        "target_visible": unseen,
        "goal_visible": unseen,
    }
    facts = info.facts
    seed = facts.get("seed")
    return Episode(
        instruction=info.instruction,
        task=str(facts.get("task") or ""),
        seed=int(seed) if isinstance(seed, (int, float, str)) else number,
        source=f"converted from {info.layout}",
        success=str(facts.get("outcome", facts.get("success", True))) in ("success", "True"),
        arrays=arrays,
    )
