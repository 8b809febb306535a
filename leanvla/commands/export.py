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
        method: pruning methods, separated by commas; options after colons.
        keep: ratios of visual tokens that live, separated by commas.
        out: folder of the engine.
        precision: `fp32`, `fp16`, `bf16`, or `int8` (weights of matrix products, for CPUs).
        prompt_tokens: longest prompt without BOS; shorter ones are padded to it.
        opset: version of the ONNX operators; 20 for runtimes without `Attention`.
        fused: one graph per rung between vision and head, so that no host stands between scores
            and gather; phases below and above the cut cannot be told apart then.
        observations: made-up observations to compare on; 0 leaves the comparison out.
        json: print the ledger as JSON.
    """

    policy: str = "mini"
    method: str = "vla_pruner"
    keep: str = "1.0,0.5,0.25,0.125"
    out: Path = Path("runs/engine")
    precision: str = "fp32"
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
    from policy.openvla.engine.export import export_policy
    from policy.registry import resolve_policy

    if config.observations < 0:
        raise UsageError(f"--observations is {config.observations}: give 0 or more")
    export_policy(
        checkpoint := resolve_policy(config.policy),
        config.out,
        methods=split_list(config.method, "--method"),
        keeps=[parse_ratio(text) for text in split_list(config.keep, "--keep")],
        precision=config.precision,
        prompt_tokens=config.prompt_tokens,
        opset=config.opset,
        fused=config.fused,
        policy=config.policy if checkpoint.name == config.policy else str(checkpoint.resolve()),
        rebuild=rebuild_command(config),
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
    for name in ("policy", "method", "keep", "out", "precision", "prompt_tokens", "opset"):
        value = getattr(config, name)
        if value != getattr(default, name) or name in ("policy", "method", "keep", "out"):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--fused"] if config.fused else words)


class Talk:
    """Progress on stderr, with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self, step: str) -> None:
        """Say one step."""
        print(f"{time.perf_counter() - self._start:6.1f} s  {step}", file=sys.stderr, flush=True)
