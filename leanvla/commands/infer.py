"""`leanvla infer`: images and an instruction in, one action chunk out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leanvla.errors import UsageError

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from policy.openvla.contract import Contract
    from policy.types import Inference, Observation

SCHEMA = "leanvla.infer/1"


@dataclass(frozen=True)
class Infer:
    """Run a policy once and print its action chunk with units.

    Attributes:
        image: picture of the main camera, PNG or JPEG.
        text: what the robot should do.
        policy: name of a packaged policy, or a folder: a checkpoint's or an engine's.
        wrist: pictures of the further cameras, in the policy's order.
        state: proprioceptive values, in the policy's order and units.
        method: pruning method, see `leanvla methods`.
        keep: ratio in (0, 1], or a count above one, of visual tokens to keep per view.
        unnorm_key: data set whose statistics give actions their units; needed when the checkpoint
            has several.
        threads: processor threads.
        json: machine-readable output.
    """

    image: Path
    text: str
    policy: str = "mini"
    wrist: tuple[Path, ...] = ()
    state: tuple[float, ...] = ()
    method: str = "dense"
    keep: float | None = None
    unnorm_key: str | None = None
    threads: int = 1
    json: bool = False


def run(config: Infer) -> int:
    """Check the input, load the policy, run one query; returns the exit code."""
    observation = _observation(config)
    from policy.registry import load_policy

    policy = load_policy(
        config.policy,
        unnorm_key=config.unnorm_key,
        method=config.method,
        keep=_budget(config.keep),
        threads=config.threads,
    )
    answer = policy.infer(observation, policy.initial_state())
    if config.json:
        print(json.dumps(_plain(policy, answer), allow_nan=False))
    else:
        _show(policy, answer)
    return 0


def _budget(keep: float | None) -> int | float | None:
    """Whole numbers above one are counts; 1 is the ratio that keeps everything."""
    return int(keep) if keep is not None and keep > 1 and keep.is_integer() else keep


def _observation(config: Infer) -> Observation:
    """What the policy will see, refused before any weight is read when it cannot be used."""
    from policy.openvla.config import load_config
    from policy.registry import describing_files, resolve_policy
    from policy.types import Observation, ObservationSpec

    architecture = load_config(describing_files(resolve_policy(config.policy)))
    observation = Observation(
        images=tuple(read_image(path) for path in (config.image, *config.wrist)),
        state=np.array(config.state, np.float32) if config.state else None,
        instruction=config.text,
    )
    observation.check_against(ObservationSpec(architecture.views, architecture.state_names))
    return observation


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """One picture as RGB.

    Raises:
        UsageError: when the file is missing or is no picture.
    """
    from PIL import Image

    if not path.is_file():
        raise UsageError(f"{path}: no such image file")
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not a readable PNG or JPEG ({error})") from None


def _plain(policy: Contract, answer: Inference) -> dict[str, object]:
    chunk, timing = answer.chunk, answer.timing
    return {
        "schema": SCHEMA,
        "unnorm_key": policy.normalizer.key,
        "rate_hz": policy.action_spec.rate_hz,
        "action_names": list(policy.action_spec.names),
        "action_tokens": None if chunk.tokens is None else chunk.tokens.tolist(),
        "normalized_actions": chunk.normalized.tolist(),
        "actions": chunk.actions.tolist(),
        "kept": [kept.tolist() for kept in chunk.kept],
        "visual_tokens": timing.visual_tokens,
        "query_ms": timing.query_ms,
        "phase_ms": dict(timing.phase_ms),
    }


def _show(policy: Contract, answer: Inference) -> None:
    from rich.console import Console
    from rich.table import Table

    chunk, timing, spec = answer.chunk, answer.timing, policy.action_spec
    table = Table(title=f"{len(chunk.actions)} x {spec.dof} actions at {spec.rate_hz:g} Hz")
    table.add_column("step", justify="right")
    for name in spec.names:
        # Square brackets are units here, not markup.
        table.add_column(name.replace("[", r"\["), justify="right")
    for step, row in enumerate(chunk.actions):
        table.add_row(str(step), *(f"{value:+.4f}" for value in row))
    console = Console()
    console.print(table)
    kept = ", ".join(
        f"{len(kept)} of {policy.config.tokens_per_view} ({view})"
        for view, kept in zip(policy.observation_spec.views, chunk.kept, strict=True)
    )
    console.print(f"visual tokens kept: {kept}", highlight=False)
    console.print(
        f"units of data set {policy.normalizer.key}; query {timing.query_ms:.1f} ms",
        highlight=False,
    )
