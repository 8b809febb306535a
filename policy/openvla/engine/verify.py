"""The parity ledger of an engine: every stage, and whole queries, against the eager model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from engines.manifest import Parity, read_manifest, write_manifest
from policy.openvla.actions import BOUND_NAMES
from policy.openvla.checkpoint import weights_sha256
from policy.openvla.config import load_config
from policy.openvla.engine.both import Both
from policy.openvla.engine.plan import make_plan
from policy.openvla.engine.policy import EnginePolicy
from policy.openvla.engine.reference import Reference
from policy.openvla.engine.ties import WatchedPruner, are_tied
from policy.openvla.policy import OpenVLAPolicy
from policy.types import Observation
from pruning.registry import make_method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from jaxtyping import Float32, Float64, UInt8

    from engines.artefact import Engine
    from engines.manifest import Comparison, Rung
    from policy.openvla.config import OpenVLAConfig

WHOLE = "fp32"
TOLERANCE = {WHOLE: 1e-3}
"""Largest difference of a normalised action that is no miss. Rounding moves tokens to other bins:
in a reduced precision actions are reported, and stages are judged."""
WHOLE_RANGE = 2.0
LEAST_COSINE = {
    **{"fp32": 0.9999, "fp16": 0.999, "bf16": 0.99, "int8": 0.95},
    **{"int8-static": 0.95, "int8-static-fp16": 0.95, "fp8": 0.95, "fp8-fp16": 0.95},
}
INSTRUCTIONS = ("pick up the cup", "put the red block on the plate", "stop")


def verify(
    engine: Engine,
    checkpoint: Path,
    observations: Sequence[Observation],
    progress: Callable[[str], None] = lambda step: None,
    rungs: Sequence[Rung] | None = None,
) -> list[Parity]:
    """Compare rungs with the eager model on the same observations; writes the ledger.

    Memory between queries is the eager policy's own and the engine's own: a difference would grow.
    After a tie the engine goes on with the eager policy's, since the two differ by right. What the
    ledger says of other rungs stays.

    Args:
        engine: the engine.
        checkpoint: the folder it was made from.
        observations: in order, as one episode.
        progress: told what is being done.
        rungs: what to compare; all when left out.

    Returns:
        What was compared now.

    Raises:
        EngineError: when the checkpoint has other weights than the engine.
    """
    engine.check_policy(weights_sha256(checkpoint))
    found = {}
    for rung in engine.manifest.rungs if rungs is None else rungs:
        progress(f"{rung.method} at {rung.keep:g}")
        found[rung.method, rung.keep] = _verify_rung(engine, checkpoint, rung, observations)
    standing = read_manifest(engine.folder)  # an earlier comparison may have written since
    known = {(parity.method, parity.keep): parity for parity in standing.parity} | found
    places = [(rung.method, rung.keep) for rung in engine.manifest.rungs]
    ledger = [known[place] for place in places if place in known]
    write_manifest(engine.folder, msgspec.structs.replace(standing, parity=ledger))
    return list(found.values())


def judge(engine: Engine, parity: Parity) -> str | None:
    """What is wrong with a rung, in one sentence; None when nothing is.

    In full precision actions and kept tokens must agree, ties apart. In a reduced one stages must
    point the same way; what it costs in actions is for rollouts to say.
    """
    precision, name = engine.manifest.precision, f"{parity.method} at {parity.keep:g}"
    least = min(parity.stages.items(), key=lambda item: item[1].cosine)
    if least[1].cosine < LEAST_COSINE[precision]:
        return f"{name}: {least[0]} has cosine {least[1].cosine:.6f} to the eager model"
    missed = parity.observations - parity.kept_equal - parity.kept_tied
    if precision == WHOLE and missed:
        return f"{name}: other tokens kept in {missed} of {parity.observations} queries"
    if parity.action_max_abs > parity.tolerance:
        return (
            f"{name}: actions differ by {parity.action_max_abs:.2g}, {parity.tolerance:g} allowed"
        )
    return None


def generated(config: OpenVLAConfig, count: int, seed: int = 0) -> list[Observation]:
    """Observations of one made-up episode: noise of several scales, states within the data."""
    rng, made = np.random.default_rng(seed), []
    for step in range(count):
        made.append(
            Observation(
                tuple(_image(rng, config.towers[0].image_size) for _ in config.views),
                _state(config, rng),
                INSTRUCTIONS[step * len(INSTRUCTIONS) // max(count, 1)],
                stamp_s=0.1 * step,
            )
        )
    return made


def _verify_rung(
    engine: Engine, checkpoint: Path, rung: Rung, observations: Sequence[Observation]
) -> Parity:
    method = make_method(rung.method, keep=rung.keep)
    config = load_config(engine.folder / "policy")
    key = next(iter(config.norm_stats), None)  # normalised actions are compared: any will do
    mine = EnginePolicy(engine, method, key)
    prompt, fused = engine.manifest.prompt_tokens, "prefill" in rung.stages
    plan = make_plan(config, [rung.method], [rung.keep], prompt, fused=fused)
    both = mine.runtime.source = Both(engine, Reference(checkpoint, config, plan))
    eager = OpenVLAPolicy.from_folder(checkpoint, method=method, unnorm_key=key)
    watched = eager.runtime.pruner = WatchedPruner(eager.pruner)
    tally, judges_kept = _Tally(), engine.manifest.precision == WHOLE
    state, eager_state = mine.initial_state(), eager.initial_state()
    for observation in observations:
        both.begin()
        watched.choices = []
        have, state, _ = mine.infer(observation, state)
        want, eager_state, _ = eager.infer(observation, eager_state)
        equal = all(np.array_equal(a, b) for a, b in zip(have.kept, want.kept, strict=True))
        unlike = judges_kept and not equal
        tied = unlike and are_tied(watched.method, both.choices, watched.choices)
        both.settle(tied=tied)
        tally.add(np.abs(have.normalized - want.normalized), equal=equal, tied=tied)
        state = eager_state if tied else state
    tolerance = TOLERANCE.get(engine.manifest.precision, WHOLE_RANGE)
    return tally.parity(rung, tolerance, both.ledger.worst)


class _Tally:
    """Differences of actions, query by query; those of ties are kept apart."""

    def __init__(self) -> None:
        self.equal = 0
        self.judged: list[np.ndarray] = []
        self.tied: list[np.ndarray] = []

    def add(self, difference: Float64[np.ndarray, "chunk dof"], *, equal: bool, tied: bool) -> None:
        """Count one query."""
        self.equal += equal
        (self.tied if tied else self.judged).append(difference)

    def parity(self, rung: Rung, tolerance: float, stages: dict[str, Comparison]) -> Parity:
        """The ledger of these queries."""
        return Parity(
            method=rung.method,
            keep=rung.keep,
            observations=len(self.judged) + len(self.tied),
            kept_equal=self.equal,
            action_max_abs=_largest(self.judged),
            first_action_max_abs=_largest(difference[:1] for difference in self.judged),
            tolerance=tolerance,
            stages=stages,
            action_mean_abs=float(np.mean(self.judged)) if self.judged else 0.0,
            kept_tied=len(self.tied),
            tied_action_max_abs=_largest(self.tied),
        )


def _largest(differences: Iterable[np.ndarray]) -> float:
    return float(max((difference.max() for difference in differences), default=0.0))


def _image(rng: np.random.Generator, side: int) -> UInt8[np.ndarray, "h w 3"]:
    """Colour noise at two scales: some structure, no constant frame."""
    coarse = rng.integers(0, 200, (4, 4, 3)).repeat(-(-side // 4), 0).repeat(-(-side // 4), 1)
    return (coarse[:side, :side] + rng.integers(0, 56, (side, side, 3))).astype(np.uint8)


def _state(config: OpenVLAConfig, rng: np.random.Generator) -> Float32[np.ndarray, " p"] | None:
    """A state within the statistics of the first data set."""
    if not config.proprio_dim:
        return None
    table: Any = next(iter(config.norm_stats.values()))["proprio"]
    low, high = (np.asarray(table[name], np.float64) for name in BOUND_NAMES[config.bounds])
    return (low + rng.random(len(low)) * (high - low)).astype(np.float32)
