"""The training loop: one process per core, gradients averaged, weights carried from stage to stage.

bfloat16 through autocast, Muon on the matrices of blocks and layers, AdamW elsewhere, an
exponential average of the weights as the result. Runs the same on a CPU and on one GPU.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import distributed

from policy.openvla.attention import plain_attention
from policy.openvla.checkpoint import load_tensors
from policy.publish import publish
from policy.training.data import Batch, Sampler
from policy.training.objective import Losses, TrainingNet
from policy.training.optimise import (
    host_state,
    learning_scale,
    make_optimizers,
    spread,
    take_step,
)
from policy.training.resize import resize_patches
from policy.training.standing import (
    Standing,
    StandingError,
    read_standing,
    standing_weights,
    take_standing,
    write_standing,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from policy.openvla.config import OpenVLAConfig
    from policy.training.data import TrainingData
    from policy.training.recipe import Recipe, Stage

STATE_LAYER = "model.proprio_projector.fc1.weight"
"""The one matrix whose shape depends on how many state values a suite gives."""

REPORT_EVERY = 50
"""Steps between two lines of progress; the run can go on from each of them."""


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        config: the policy to make.
        recipe: how.
        out: folder for `weights.safetensors` (averaged), `raw.safetensors`, `log.jsonl`.
        workers: processes; 1 on a GPU.
        seed: of initial weights and sampling.
        init: weights to start from instead of random ones: those of another training run (its
            `raw.safetensors`), or a checkpoint folder, whose training heads begin anew.
        compile: fuse the network with torch.compile (needs a C++ compiler on a CPU).
        device: `cpu` or `cuda`.
        part: which recipe of the run this is, for `resume`.
        resume: go on where the run in `out` stands.
    """

    config: OpenVLAConfig
    recipe: Recipe
    out: Path
    workers: int = 1
    seed: int = 0
    init: Path | None = None
    compile: bool = True
    device: str = "cpu"
    part: int = 0
    resume: bool = False


@dataclass(frozen=True)
class Progress:
    """What is reported while training."""

    stage: int
    stages: int
    samples: int
    of: int
    samples_per_s: float
    action: float
    grounding: float
    position: float


def fit(job: Job, data: TrainingData, report: Callable[[Progress], None]) -> Path:
    """Train and return the path of the averaged weights.

    Raises:
        StandingError: when a run to go on with is damaged, or was shared by other `workers`.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    if _first(job).stage < len(job.recipe.stages):
        spread(_work, (job, data, report), job.workers)
    return job.out / "weights.safetensors"


def _work(
    rank: int,
    meeting: str | None,
    job: Job,
    data: TrainingData,
    report: Callable[[Progress], None],
) -> None:
    torch.set_num_threads(1)
    if meeting is not None:
        distributed.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=job.workers
        )
    torch.manual_seed(job.seed)
    first = _first(job)
    carried = load_weights(job.init) if job.init else None
    if first.stage or first.step:
        carried = standing_weights(job.out)
    for number, stage in enumerate(job.recipe.stages):
        if number < first.stage:
            continue
        trainer = Trainer(job, stage, carried)
        sampler = Sampler(
            data,
            batch=stage.batch,
            chunk=job.config.chunk,
            seed=job.seed * 1000 + number * 100 + rank,
        )
        begin = first.step if number == first.stage else 0
        carried = trainer.run(sampler, number, rank, report, begin)
    if meeting is not None:
        distributed.destroy_process_group()


class Trainer:
    """One stage: a network of the stage's shapes, its optimisers, its averaged weights."""

    def __init__(self, job: Job, stage: Stage, carried: dict[str, Tensor] | None) -> None:
        self.job, self.stage = job, stage
        final = job.config.towers[0]
        tower = replace(final, patch_size=stage.patch)
        coarse = replace(job.config, towers=(tower,))
        self.net = TrainingNet(coarse, final.grid, job.recipe.action_weights)
        initialise(self.net)
        if carried is not None:
            take_weights(self.net, _carry(carried, tower.patch_size, tower.grid))
        self.net.to(job.device)
        self.average = [p.detach().clone() for p in self.net.parameters()]
        if job.compile:
            # A graph per length of prompt; beyond the limit, which is 8, it would run uncompiled.
            torch._dynamo.config.recompile_limit = 64
        self.forward = torch.compile(self.net, dynamic=False) if job.compile else self.net
        self.optimizers = make_optimizers(
            self.net, stage.learning_rate, job.recipe.weight_decay, _is_inner
        )
        self.steps = math.ceil(stage.samples / (stage.batch * job.workers))

    def run(
        self,
        sampler: Sampler,
        number: int,
        rank: int,
        report: Callable[[Progress], None],
        begin: int = 0,
    ) -> dict[str, Tensor]:
        """Train the stage from step `begin` on; returns the raw weights for the next one."""
        job = self.job
        plain = plain_attention() if job.device == "cpu" else contextlib.nullcontext()
        meter = Meter(job, number, self.stage)
        if begin:
            take_standing(job.out, self.net, self.average, self.optimizers)
            sampler.skip(begin)
        with plain:
            for step in range(begin, self.steps):
                losses = self.step(step, sampler.draw())
                if rank == 0 and meter.add(losses):
                    self.save(Standing(job.part, number, step + 1, job.workers))
                    meter.tell(step, report)
        if rank == 0:
            self.save(Standing(job.part, number + 1, 0, job.workers))
        return host_state(self.net)

    def step(self, step: int, batch: Batch) -> Losses:
        """One optimiser step over all workers."""
        job, recipe = self.job, self.job.recipe
        tensors = [torch.from_numpy(np.ascontiguousarray(a)).to(job.device) for a in batch]
        with torch.autocast(job.device, torch.bfloat16):
            losses = self.forward(*tensors, self.stage.pool, recipe.label_sigma_bins)
        self.net.total(losses, recipe).backward()
        take_step(
            self.net,
            self.optimizers,
            self.average,
            scale=learning_scale(step, self.steps, recipe.warmup_steps, self.stage.final),
            decay=min(recipe.ema, (step + 1) / (step + 10)),
            workers=job.workers,
        )
        return Losses(*(loss.detach() for loss in losses))

    def save(self, standing: Standing) -> None:
        """Write averaged and raw weights, and where the run stands, each whole or not at all."""
        raw = host_state(self.net)
        names = [name for name, _ in self.net.named_parameters()]
        averaged = raw | dict(zip(names, (p.cpu() for p in self.average), strict=True))
        for name, state in (("weights", averaged), ("raw", raw)):
            plain = {k: v.contiguous() for k, v in state.items()}
            publish(self.job.out / f"{name}.safetensors", partial(save_file, plain))
        write_standing(self.job.out, standing, self.net, self.average, self.optimizers)


class Meter:
    """Running means of the losses, reported and logged."""

    def __init__(self, job: Job, number: int, stage: Stage) -> None:
        self.job, self.number, self.stage = job, number, stage
        self.sums = torch.zeros(3)
        self.count = 0
        self.since = time.monotonic()

    def add(self, losses: Losses) -> bool:
        """Take one step's losses in; True when it is time to `tell`."""
        self.sums += torch.stack(losses).float().cpu()
        self.count += 1
        return self.count >= REPORT_EVERY

    def tell(self, step: int, report: Callable[[Progress], None]) -> None:
        """Log and report what was taken in, up to `step`."""
        per_step = self.stage.batch * self.job.workers
        now = time.monotonic()
        mean = (self.sums / self.count).tolist()
        progress = Progress(
            self.number + 1,
            len(self.job.recipe.stages),
            (step + 1) * per_step,
            self.stage.samples,
            self.count * per_step / (now - self.since),
            *mean,
        )
        with (self.job.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(progress.__dict__) + "\n")
        report(progress)
        self.sums.zero_()
        self.count, self.since = 0, now


def _first(job: Job) -> Standing:
    """Where to begin: at the first step, unless there is something to go on with."""
    start = Standing(job.part, 0, 0, job.workers)
    found = read_standing(job.out) if job.resume else None
    if found is None or found.part < job.part:
        return start
    if found.workers != job.workers:
        raise StandingError(
            f"{job.out} was trained by {found.workers} processes: go on with `--workers "
            f"{found.workers}`, or start anew with `--out NEW`"
        )
    return found if found.part == job.part else start._replace(stage=len(job.recipe.stages))


def initialise(net: TrainingNet) -> None:
    """Initial values where torch's defaults hurt: quiet FiLM, moderate embeddings."""
    torch.nn.init.normal_(net.model.language_model.model.embed_tokens.weight, std=0.5)
    tower = net.model.vision_backbone.featurizer
    torch.nn.init.normal_(tower.pos_embed, std=0.02)
    for block in tower.blocks:
        for layer in (block.scale, block.shift):
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.normal_(layer.weight, std=0.02)
                torch.nn.init.zeros_(layer.bias)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Weights by their names in `TrainingNet`, of a training run's file or a checkpoint folder.

    Raises:
        CheckpointError: when the folder lacks a file, or one is damaged.
    """
    if path.is_dir():
        return {"model." + name: value for name, value in load_tensors(path).items()}
    return load_file(path)


def take_weights(net: TrainingNet, weights: dict[str, Tensor]) -> None:
    """Put weights in place; only training heads may be absent, and then keep what they have.

    A policy that reads another number of state values begins `STATE_LAYER` anew.

    Raises:
        ValueError: when the weights are those of another architecture.
    """
    own = net.state_dict()
    if STATE_LAYER in weights and STATE_LAYER in own:
        reads, given = own[STATE_LAYER], weights[STATE_LAYER]
        if reads.shape[0] == given.shape[0] and reads.shape[1] != given.shape[1]:
            weights = {**weights, STATE_LAYER: reads}
    odd = [name for name in weights if name not in own or own[name].shape != weights[name].shape]
    odd += [name for name in own if name not in weights and name.startswith("model.")]
    if odd:
        raise ValueError(
            f"--init does not fit the recipe's architecture: {odd[0]} and {len(odd) - 1} more"
        )
    net.load_state_dict(weights, strict=False)


def _is_inner(name: str) -> bool:
    """Matrices inside blocks and layers, but for FiLM's, which begin near zero."""
    inside = ".blocks." in name or ".layers." in name
    return inside and ".scale." not in name and ".shift." not in name


def _carry(state: dict[str, Tensor], patch: int, grid: int) -> dict[str, Tensor]:
    """Weights of another stage at this stage's patch size."""
    prefix = "model."
    network = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    heads = {k: v for k, v in state.items() if not k.startswith(prefix)}
    resized = resize_patches(network, patch, grid)
    return {prefix + k: v for k, v in resized.items()} | heads
