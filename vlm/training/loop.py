"""The training loop of `mini-vlm`: one process per core, gradients averaged, resumable to the step.

What a step draws depends on seed, stage, step and worker alone, so a resumed run goes on as if it
had never stopped. bfloat16 through autocast; Muon on the matrices of layers, AdamW elsewhere; an
exponential average of the weights is the result.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import distributed

from policy.publish import publish
from policy.training.optimise import (
    host_state,
    learning_scale,
    make_optimizers,
    spread,
    take_step,
)
from vlm.training.data import SceneData, draw_of_step
from vlm.training.objective import Losses, TrainingNet
from vlm.training.sequence import (
    PADDING,
    attention_mask,
    end_position,
    prefix_positions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from vlm.training.data import Draw
    from vlm.training.recipe import Recipe, Stage

REPORT_EVERY = 25
SAVE_EVERY_S = 120.0


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        recipe: how.
        out: folder for `weights.safetensors` (averaged), `state.pt` (to go on), `log.jsonl`.
        workers: processes; 1 on a GPU.
        seed: of initial weights and of what is drawn.
        device: `cpu` or `cuda`.
        changes: other values of the architecture, for tests.
    """

    recipe: Recipe
    out: Path
    workers: int = 1
    seed: int = 0
    device: str = "cpu"
    changes: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Progress:
    """What is reported while training; losses are means since the last report."""

    stage: int
    stages: int
    frames: int
    of: int
    frames_per_s: float
    answer: float
    patch: float
    pointing: float
    right: float


def fit(job: Job, data: SceneData, report: Callable[[Progress], None]) -> Path:
    """Train, or go on, and return the path of the averaged weights."""
    job.out.mkdir(parents=True, exist_ok=True)
    spread(_work, (job, data, report), job.workers)
    return job.out / "weights.safetensors"


def _work(
    rank: int,
    meeting: str | None,
    job: Job,
    data: SceneData,
    report: Callable[[Progress], None],
) -> None:
    torch.set_num_threads(1)
    if meeting is not None:
        distributed.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=job.workers
        )
    saved = _load(job.out / "state.pt")
    carried: dict[str, Tensor] | None = None
    for number in range(saved["stage"] if saved else 0, len(job.recipe.stages)):
        trainer = Trainer(job, number, rank, carried)
        if saved and saved["stage"] == number:
            trainer.restore(saved)
        carried = trainer.run(data, report)
    if meeting is not None:
        distributed.destroy_process_group()


class Trainer:
    """One stage: a network at the stage's resolution, its optimisers, its averaged weights."""

    def __init__(self, job: Job, number: int, rank: int, carried: dict[str, Tensor] | None) -> None:
        self.job, self.number, self.rank = job, number, rank
        self.stage: Stage = job.recipe.stages[number]
        torch.manual_seed(job.seed)
        self.net = TrainingNet(self.stage.pool, **dict(job.changes or {}))
        if carried is not None:
            self.net.load_state_dict(carried)
        self.net.to(job.device)
        self.average = [p.detach().clone() for p in self.net.parameters()]
        self.optimizers = make_optimizers(
            self.net,
            self.stage.learning_rate,
            job.recipe.weight_decay,
            lambda name: ".layers." in name,
        )
        self.steps = math.ceil(self.stage.frames / (self.stage.batch * job.workers))
        self.step = 0

    def run(self, data: SceneData, report: Callable[[Progress], None]) -> dict[str, Tensor]:
        """Train the rest of the stage; returns the raw weights for the next one."""
        meter = Meter(self)
        saved = time.monotonic()
        while self.step < self.steps:
            losses = self.advance(data)
            self.step += 1
            if self.rank == 0:
                meter.add(losses, report)
                if time.monotonic() - saved > SAVE_EVERY_S:
                    self.save()
                    saved = time.monotonic()
        if self.rank == 0:
            self.save()
        return host_state(self.net)

    def advance(self, data: SceneData) -> Losses:
        """One optimiser step over all workers."""
        job, recipe = self.job, self.job.recipe
        # All workers train on the same task in a step, so that none waits for another's clip.
        shared = np.random.default_rng([job.seed, self.number, self.step])
        draw = draw_of_step(recipe, self.stage, data.lengths(), shared)
        own = np.random.default_rng([job.seed, self.number, self.step, 1 + self.rank])
        inputs = [tensor.to(job.device) for tensor in self.inputs(data, draw, own)]
        with torch.autocast(job.device, torch.bfloat16):
            losses = self.net(*inputs)
        self.net.total(losses, recipe).backward()
        take_step(
            self.net,
            self.optimizers,
            self.average,
            scale=learning_scale(self.step, self.steps, recipe.warmup_steps, self.stage.final),
            decay=min(recipe.ema, (self.step + 1) / (self.step + 10)),
            workers=job.workers,
        )
        return Losses(*(loss.detach() for loss in losses))

    def inputs(self, data: SceneData, draw: Draw, rng: np.random.Generator) -> list[Tensor]:
        """A batch as the network's arguments."""
        text = self.job.recipe.text_tokens[draw.task]
        batch = data.batch(draw.task, draw.frames, draw.samples, text, rng)
        prefix, packed = data.prefixes[draw.frames], batch.packed
        before = prefix_positions(prefix, self.net.grid)
        after = np.where(packed.segment == PADDING, 0, end_position(prefix) + packed.offset)
        positions = np.concatenate([np.tile(before, (draw.samples, 1)), after], 1)
        arrays = (
            batch.frames,
            np.array(prefix.ids),
            np.array(prefix.pictures),
            packed.ids,
            packed.labels,
            packed.first,
            positions,
            attention_mask(packed.segment, len(before)),
            batch.classes,
            batch.about,
        )
        return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]

    def save(self) -> None:
        """Write averaged weights and everything that is needed to go on, each whole or not."""
        raw = host_state(self.net)
        names = [name for name, _ in self.net.named_parameters()]
        average = dict(zip(names, (p.cpu() for p in self.average), strict=True))
        weights = {k: v.contiguous() for k, v in (raw | average).items()}
        publish(self.job.out / "weights.safetensors", lambda path: save_file(weights, path))
        state = {
            "stage": self.number,
            "step": self.step,
            "raw": raw,
            "average": average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        publish(self.job.out / "state.pt", lambda path: torch.save(state, path))

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where a state was saved."""
        self.net.load_state_dict(saved["raw"])
        names = [name for name, _ in self.net.named_parameters()]
        for mine, name in zip(self.average, names, strict=True):
            mine.copy_(saved["average"][name])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step = saved["step"]


class Meter:
    """Running means of the losses, reported and logged."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.sums = torch.zeros(4)
        self.count = 0
        self.since = time.monotonic()

    def add(self, losses: Losses, report: Callable[[Progress], None]) -> None:
        """Take one step's losses in; report every so many steps and at the end."""
        trainer = self.trainer
        self.sums += torch.stack(losses).float().cpu()
        self.count += 1
        if self.count < REPORT_EVERY and trainer.step < trainer.steps:
            return
        per_step = trainer.stage.batch * trainer.job.workers
        now = time.monotonic()
        progress = Progress(
            trainer.number + 1,
            len(trainer.job.recipe.stages),
            trainer.step * per_step,
            trainer.stage.frames,
            self.count * per_step / max(now - self.since, 1e-9),
            *(self.sums / self.count).tolist(),
        )
        with (trainer.job.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(progress.__dict__) + "\n")
        report(progress)
        self.sums.zero_()
        self.count, self.since = 0, now


def model_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own tensors of a training run, without the training heads."""
    prefix = "model."
    heads = ("namer.", "asker.", "pointed.")
    return {
        name[len(prefix) :]: value for name, value in weights.items() if not name.startswith(heads)
    }


def _load(path: Path) -> dict[str, Any] | None:
    return torch.load(path, weights_only=True) if path.exists() else None
