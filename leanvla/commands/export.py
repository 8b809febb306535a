"""`leanvla export`: a policy to an engine, compared with the policy before it is handed over."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from leanvla.errors import UsageError


@dataclass(frozen=True)
class Export:
    """Turn a policy into static graphs with pruning inside.

    The dense model is always part of it. Weights lie once in the folder, whatever the number of
    budgets. At the end engine and model are compared, like `leanvla verify` does.

    Attributes:
        policy: name of a packaged policy, or a checkpoint folder.
        shape: an architecture with random weights instead, see `leanvla profile --shape list`; its
            checkpoint is written beside the engine, as OUT-checkpoint.
        layers: decoder layers of the shape, to fit a small machine; nothing else is scaled.
        tower_layers: blocks of each vision tower of the shape.
        method: pruning methods, separated by commas; options after colons; `all` stands for every
            one that can be a graph of this policy.
        keep: ratios of visual tokens that live, separated by commas.
        out: folder of the engine.
        precision: `fp32`, `fp16`, `bf16`; `int8` (weights of matrix products, for CPUs); with
            calibrated ranges `int8-static`, `fp8` (the rest in float32) and `int8-static-fp16`,
            `fp8-fp16` (the rest in float16, for TensorRT).
        calibrate: what ranges are measured on: a suite, whose episodes the dense policy acts in, or
            a recording or demonstrations as `leanvla replay` reads them.
        calibrate_frames: observations to measure on.
        prompt_tokens: longest prompt without BOS; shorter ones are padded to it.
        opset: version of the ONNX operators; 20 for runtimes without `Attention`.
        fused: one graph per rung between vision and head, so that no host stands between scores
            and gather; phases below and above the cut cannot be told apart then.
        observations: made-up observations to compare on; 0 leaves the comparison out.
        json: print the ledger as JSON.
    """

    policy: str = "mini"
    shape: str | None = None
    layers: int | None = None
    tower_layers: int | None = None
    method: str = "vla_pruner"
    keep: str = "1.0,0.5,0.25,0.125"
    out: Path = Path("runs/engine")
    precision: str = "fp32"
    calibrate: str | None = None
    calibrate_frames: int = 64
    prompt_tokens: int = 32
    opset: int = 23
    fused: bool = False
    observations: int = 6
    json: bool = False


def run(config: Export) -> int:
    """Write the engine and compare it; 1 when it does not agree with the model.

    Raises:
        UsageError: for numbers that make no sense.
        EngineError: for a method that cannot become a graph, or a folder of something else.
    """
    from leanvla.commands.arguments import parse_ratio, split_list
    from leanvla.commands.calibration import measure_ranges
    from policy.openvla.engine.export import export_policy

    if config.observations < 0:
        raise UsageError(f"--observations is {config.observations}: give 0 or more")
    checkpoint = _checkpoint(config)
    export_policy(
        checkpoint,
        config.out,
        methods=split_list(config.method, "--method"),
        keeps=[parse_ratio(text) for text in split_list(config.keep, "--keep")],
        precision=config.precision,
        prompt_tokens=config.prompt_tokens,
        opset=config.opset,
        fused=config.fused,
        policy=config.policy if checkpoint.name == config.policy else str(checkpoint.resolve()),
        rebuild=rebuild_command(config),
        ranges=measure_ranges(config, checkpoint),
        progress=Talk(),
    )
    if not config.observations:
        Talk()(f"{config.out} is written, and was not compared: run `leanvla verify {config.out}`")
        return 0
    from leanvla.commands.verify import Verify
    from leanvla.commands.verify import run as verify

    return verify(Verify(config.out, observations=config.observations, json=config.json))


def rebuild_command(config: Export) -> str:
    """The command that makes the same engine again."""
    default = Export()
    words = ["leanvla", "export"]
    always = ("policy", "method", "keep", "out")
    names = ("policy", "shape", "layers", "tower_layers", "method", "keep", "out", "precision")
    for name in (*names, "calibrate", "calibrate_frames", "prompt_tokens", "opset"):
        value = getattr(config, name)
        if value != getattr(default, name) or name in always:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--fused"] if config.fused else words)


def _checkpoint(config: Export) -> Path:
    """The policy's folder; for a shape one that is written now."""
    from policy.registry import resolve_policy

    if config.shape is None:
        if config.layers is not None or config.tower_layers is not None:
            raise UsageError("--layers and --tower-layers shorten a --shape, a policy stays whole")
        return resolve_policy(config.policy)
    from policy.openvla.random_weights import random_checkpoint
    from policy.openvla.shapes import shape

    wanted = shape(config.shape, config.layers, config.tower_layers)
    return random_checkpoint(config.out.with_name(f"{config.out.name}-checkpoint"), wanted)


class Talk:
    """Progress on stderr, with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self, step: str) -> None:
        """Say one step."""
        print(f"{time.perf_counter() - self._start:6.1f} s  {step}", file=sys.stderr, flush=True)
