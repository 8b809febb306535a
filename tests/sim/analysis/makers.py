"""Run folders of a few made-up episodes."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import yaml

from sim.rollout.types import EpisodeRecord

CONFIG = {"suite": "tabletop", "policy": "mini", "method": "fastv", "keep": "0.25", "execute": None}


def episode(
    seed: int, won: bool, method: str = "dense", keep: float = 1.0, **more
) -> EpisodeRecord:
    kept = round(288 * keep)
    base = EpisodeRecord(
        seed=seed,
        method=method,
        keep=keep,
        outcome="success" if won else "failure",
        task="pick" if seed % 2 else "push",
        instruction="pick up the red cube",
        render_profile="lowpoly",
        init_state_hash=f"{seed:x}",
        steps=40 if won else 180,
        query_ms=[10.0 + 20 * keep] * 4,
        phase_ms={"vision": [8.0] * 4, "prefill_above": [20 * keep] * 4},
        visual_tokens=288,
        kept=[kept] * 4,
        sequence_tokens=364,
        kept_sequence_tokens=[kept + 76] * 4,
        layer_sequence_tokens=[(2 * 364 + 4 * (kept + 76)) / 6] * 4,
        seconds=2.0,
    )
    return msgspec.structs.replace(base, **more)


def column(wins: list[bool], method: str = "dense", keep: float = 1.0, **more):
    return [episode(seed, won, method, keep, **more) for seed, won in enumerate(wins)]


def write_run(folder: Path, records, *, commit: str = "abc", env=None, **config) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **config}))
    machine = {"cpu_model": "Abacus", "git_commit": commit}
    (folder / "env.json").write_text(json.dumps(machine | (env or {})))
    lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
    (folder / "episodes.jsonl").write_bytes(lines)
    return folder
