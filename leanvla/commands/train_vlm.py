"""`leanvla train-vlm`: a small vision-language model in LLaVA's layout, from `scene_qa`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from leanvla.errors import UsageError
from leanvla.report.curves import curves
from leanvla.report.page import facts, page, section, table
from leanvla.run_folder import environment, open_run_folder, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlm.training.data import SceneData
    from vlm.training.loop import Progress

SCHEMA = "leanvla.train_vlm/1"
LOSSES = ("answer", "patch", "pointing")


@dataclass(frozen=True)
class TrainVlm:
    """Train `mini-vlm` and write it as a checkpoint folder, `OUT/mini-vlm`.

    An interrupted training goes on where it stopped, to the step: start the same command again.
    Beside the model stand `metrics.json`, `report.html` with the losses, and the log. Then
    `leanvla vlm --model OUT/mini-vlm --tasks scene_qa,scene_clips --limit 0` measures it on
    held-out scenes.

    Attributes:
        data: a training set (`leanvla scene-qa --split train ...`).
        out: folder for weights, log and model.
        effort: share of the recipe's frames; 0.001 tries the whole chain in a minute.
        workers: processes; 0 means one per core.
        device: `cpu` or `cuda`.
        seed: of initial weights and of what is drawn.
    """

    data: Path = Path("data/scene_qa/train")
    out: Path = Path("runs/train-vlm")
    effort: float = 1.0
    workers: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    seed: int = 0


def run(config: TrainVlm) -> int:
    """Train, or go on, and write the model; returns the exit code.

    Raises:
        UsageError: on values that ask for something impossible, or for held-out scenes.
        MissingDataError: when the training set is not there.
    """
    if config.workers < 0:
        raise UsageError(f"--workers is {config.workers}: give 0 for one per core, or more")
    from vlm.tasks.scene_qa import read_scene_set
    from vlm.training.recipe import MINI

    recipe = MINI.scaled(config.effort)
    found = read_scene_set(config.data)
    if found.facts.get("split") == "heldout":
        raise UsageError(f"{config.data} is held out for evaluation: draw one with --split train")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    out = open_run_folder(config.out, config, resume=True)
    from vlm.training.loop import Job, fit

    data = _scene_data(found, out)
    workers = 1 if config.device == "cuda" else config.workers or os.cpu_count() or 1
    job = Job(recipe, out, workers, config.seed, config.device)
    weights = fit(job, data, _report)
    metrics = _metrics(config, found.facts, _log(out / "log.jsonl"), workers)
    _save(weights, out, metrics)
    write_json(out / "metrics.json", metrics)
    _write_report(out, metrics, _log(out / "log.jsonl"))
    print(json.dumps(metrics, indent=2))
    return 0


def _scene_data(found: Any, out: Path) -> SceneData:
    from tokenizers import Tokenizer

    from vlm.training.data import SceneData
    from vlm.training.words import write_tokenizer

    write_tokenizer(out / "tokenizer")
    tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
    return SceneData(found, lambda text: tokenizer.encode(text).ids)


def _save(weights: Path, out: Path, metrics: dict[str, Any]) -> None:
    from safetensors.torch import load_file

    from vlm.training.loop import model_weights
    from vlm.training.mini import mini_config, save_mini

    card = (
        "# mini-vlm\n\nA LLaVA of four million parameters (CLIP tower of 5 layers, 256 visual "
        "tokens, Llama decoder of 6 layers) that answers questions about the tabletop scene of "
        "`scene_qa`, and nothing else. Made by `leanvla train-vlm`:\n\n"
        f"```json\n{json.dumps(metrics, indent=2)}\n```\n"
    )
    tensors = model_weights(load_file(weights))
    save_mini(out / "mini-vlm", tensors, mini_config(), card, half=True)


def _metrics(
    config: TrainVlm, facts: dict[str, Any], log: Sequence[dict[str, Any]], workers: int
) -> dict[str, Any]:
    last = log[-1] if log else {}
    return {
        "schema": SCHEMA,
        "data": {k: v for k, v in facts.items() if not k.startswith("frames_")},
        "effort": config.effort,
        "seed": config.seed,
        "workers": workers,
        **{f"last_{name}_loss": last.get(name) for name in LOSSES},
        "last_answer_tokens_right": last.get("right"),
    }


def _log(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write_report(out: Path, metrics: dict[str, Any], log: Sequence[dict[str, Any]]) -> None:
    stages = sorted({row["stage"] for row in log})
    rows = {stage: [row for row in log if row["stage"] == stage] for stage in stages}
    heads = ("stage", "frames", "frames/s", *LOSSES, "right")
    lines = (
        [str(stage), f"{mine[-1]['frames']:,}", f"{mine[len(mine) // 2]['frames_per_s']:.0f}",
         *(f"{mine[-1][name]:.3f}" for name in LOSSES), f"{mine[-1]['right']:.1%}"]
        for stage, mine in rows.items()
    )  # fmt: skip
    body = [
        "<h1>Training of mini-vlm</h1>",
        section("Stages", table(heads, lines)),
        section("Losses", *(_curve(name, rows) for name in (*LOSSES, "right"))),
        section("Conditions", facts({**metrics, **environment()})),
    ]
    write_text(out / "report.html", page("LeanVLA: training of mini-vlm", body))


def _curve(name: str, rows: dict[int, list[dict[str, Any]]]) -> str:
    start, named = 0, {}
    for stage, mine in rows.items():
        named[f"stage {stage}"] = [(start + row["frames"], row[name]) for row in mine]
        start += mine[-1]["frames"]
    return curves(named, f"{name} against frames")


def _report(progress: Progress) -> None:
    line = (
        f"stage {progress.stage}/{progress.stages}  {progress.frames:,}/{progress.of:,} frames  "
        f"{progress.frames_per_s:.1f}/s  answer {progress.answer:.3f}  patch {progress.patch:.3f}  "
        f"pointing {progress.pointing:.3f}  right {progress.right:.1%}"
    )
    print(line, file=sys.stderr, flush=True)
