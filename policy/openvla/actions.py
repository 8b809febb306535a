"""From action tokens to commands: bins, statistics of the data set, gripper conventions.

Bins as in OpenVLA (arXiv 2406.09246): 256 edges over [-1, 1]; the last ids of the vocabulary, from
its end downwards, stand for them; an id decodes to the centre between two edges. Statistics map
[-1, 1] to q01 ... q99 (or min ... max) of every dimension that `mask` flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from policy.openvla.errors import CheckpointError, UnnormKeyError
from pruning.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float, Float32, Float64, Int64

    from policy.openvla.config import OpenVLAConfig

OFT_RANGE_EPS = 1e-8
BOUND_NAMES = {"q99": ("q01", "q99"), "minmax": ("min", "max")}


def bin_edges(config: OpenVLAConfig) -> Float64[np.ndarray, " bins"]:
    """The edges of the action grid."""
    return np.linspace(-1.0, 1.0, config.n_action_bins)


def tokens_to_values(
    tokens: Int64[np.ndarray, "*rows"], config: OpenVLAConfig
) -> Float32[np.ndarray, "*rows"]:
    """Action token ids to values in [-1, 1]; ids outside the action range give the nearest end."""
    edges = bin_edges(config)
    centres = (edges[:-1] + edges[1:]) / 2
    index = np.clip(config.action_vocab - np.asarray(tokens) - 1, 0, len(centres) - 1)
    return centres[index].astype(np.float32)


def values_to_tokens(
    values: Float[np.ndarray, "*rows"], config: OpenVLAConfig
) -> Int64[np.ndarray, "*rows"]:
    """Values to action token ids; values outside [-1, 1] are clipped."""
    bins = np.digitize(np.clip(values, -1.0, 1.0), bin_edges(config))
    return config.action_vocab - bins.astype(np.int64)


def gripper_to_signed(
    actions: Float32[np.ndarray, "*rows dof"], *, binarise: bool = True
) -> Float32[np.ndarray, "*rows dof"]:
    """The last dimension from [0, 1] to [-1, 1], to exactly -1 or +1 when `binarise`."""
    out = actions.copy()
    out[..., -1] = 2.0 * out[..., -1] - 1.0
    if binarise:
        out[..., -1] = np.sign(out[..., -1])
    return out


def invert_gripper(actions: Float32[np.ndarray, "*rows dof"]) -> Float32[np.ndarray, "*rows dof"]:
    """Flip the sign of the last dimension (training data: 1 is open; LIBERO: -1 is open)."""
    out = actions.copy()
    out[..., -1] *= -1.0
    return out


class Normalizer:
    """The statistics of one data set.

    Attributes:
        key: the data set in use.

    Args:
        config: a checkpoint's config; its `norm_stats` may hold many data sets.
        unnorm_key: the data set; may be omitted when there is only one.

    Raises:
        UnnormKeyError: when the key is unknown, or omitted where there is a choice.
        CheckpointError: when the statistics are missing, not finite, of a wrong length, or would
            not change anything, so that actions would leave in wrong units.
    """

    def __init__(self, config: OpenVLAConfig, unnorm_key: str | None = None) -> None:
        self.key = pick_key(config.norm_stats, unnorm_key)
        stats = config.norm_stats[self.key]
        self._action = _Range(stats, "action", self.key, config, config.dof)
        self._proprio = None
        if config.proprio_dim:
            self._proprio = _Range(stats, "proprio", self.key, config, config.proprio_dim)

    def unnormalize(
        self, actions: Float[np.ndarray, "*rows dof"]
    ) -> Float32[np.ndarray, "*rows dof"]:
        """Actions in [-1, 1] to the units of the data set; unmasked dimensions stay."""
        r = self._action
        scaled = 0.5 * (np.asarray(actions, np.float64) + 1.0) * r.width + r.low
        return np.where(r.mask, scaled, actions).astype(np.float32)

    def normalize(
        self, actions: Float[np.ndarray, "*rows dof"]
    ) -> Float32[np.ndarray, "*rows dof"]:
        """Actions in the units of the data set to [-1, 1], clipped; unmasked dimensions stay."""
        r = self._action
        return np.where(r.mask, np.clip(r.scale(actions), -1.0, 1.0), actions).astype(np.float32)

    def normalize_state(self, state: Float32[np.ndarray, " p"]) -> Float32[np.ndarray, " p"]:
        """Proprioception to [-1, 1], clipped (unmasked dimensions too, as in OpenVLA-OFT).

        Raises:
            CheckpointError: when the checkpoint reads no proprioception.
        """
        if self._proprio is None:
            raise CheckpointError("this checkpoint reads no proprioception: give no state")
        r = self._proprio
        return np.clip(np.where(r.mask, r.scale(state), state), -1.0, 1.0).astype(np.float32)


def pick_key(stats: Mapping[str, object], unnorm_key: str | None) -> str:
    """The data set to use.

    Raises:
        UnnormKeyError: listing the valid keys and the nearest one.
    """
    names = ", ".join(stats) or "none"
    if unnorm_key is None:
        if len(stats) == 1:
            return next(iter(stats))
        raise UnnormKeyError(f"unnorm_key is needed, the checkpoint has {len(stats)}: {names}")
    if unnorm_key in stats:
        return unnorm_key
    hint = did_you_mean(unnorm_key, stats, cutoff=0.0)
    raise UnnormKeyError(f"unknown unnorm_key {unnorm_key!r}: choose from {names}{hint}")


class _Range:
    """Checked bounds of one vector: `low`, `width` and `mask`, each `[n]`."""

    def __init__(
        self,
        stats: Mapping[str, Mapping[str, object]],
        part: str,
        key: str,
        config: OpenVLAConfig,
        n: int,
    ) -> None:
        low_name, high_name = BOUND_NAMES[config.bounds]
        where = f"norm_stats[{key!r}].{part}"
        self.low = _vector(stats, part, low_name, where, n)
        high = _vector(stats, part, high_name, where, n)
        self.mask = _mask(stats[part].get("mask"), where, n)
        width = high - self.low
        wrong = np.flatnonzero(self.mask & (width <= 0) & ~_constant(stats[part], self.low, high))
        if wrong.size:
            raise CheckpointError(
                f"{where}: {low_name} is not below {high_name} in dimension {wrong.tolist()}: "
                "fix the statistics, or flag constant dimensions with mask false"
            )
        unit = (self.low == -1.0) & (high == 1.0)
        if self.mask.any() and unit[self.mask].all():
            raise CheckpointError(
                f"{where}: {low_name} and {high_name} are -1 and 1 everywhere, which changes "
                "nothing: give real statistics, or flag dimensions without units with mask false"
            )
        self.width = width + (OFT_RANGE_EPS if config.decoding == "parallel" else 0.0)

    def scale(self, values: Float[np.ndarray, "*rows n"]) -> Float64[np.ndarray, "*rows n"]:
        safe = np.where(self.width > 0, self.width, 1.0)
        return 2.0 * (np.asarray(values, np.float64) - self.low) / safe - 1.0


def _vector(
    stats: Mapping[str, Mapping[str, object]], part: str, name: str, where: str, n: int
) -> Float64[np.ndarray, " n"]:
    if name not in stats.get(part, {}):
        raise CheckpointError(f"{where}.{name} is missing: the checkpoint cannot scale its values")
    try:
        vector = np.asarray(stats[part][name], np.float64)
    except (TypeError, ValueError):
        raise CheckpointError(f"{where}.{name} is not a list of numbers") from None
    if vector.shape != (n,):
        raise CheckpointError(f"{where}.{name} has shape {list(vector.shape)}, {n} values expected")
    if not np.isfinite(vector).all():
        raise CheckpointError(f"{where}.{name} is not finite: {vector.tolist()}")
    return vector


def _mask(mask: object, where: str, n: int) -> Bool[np.ndarray, " n"]:
    """`mask` of the statistics; every dimension is scaled when there is none."""
    if mask is None:
        return np.ones(n, bool)
    flags = np.asarray(mask)
    if flags.shape != (n,) or flags.dtype != bool:
        raise CheckpointError(f"{where}.mask is {mask!r}, {n} booleans expected")
    return flags


def _constant(
    table: Mapping[str, object], low: Float64[np.ndarray, " n"], high: Float64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Dimensions that never moved in the data: all four bounds agree, so their value is known."""
    ends = [np.asarray(table.get(name, np.nan), np.float64) for name in ("min", "max")]
    return (low == high) & (low == ends[0]) & (low == ends[1])
