"""Networks of a process, each loaded once and shared by every policy that runs it.

A pruning method changes nothing in a network, so a grid of methods needs its weights in memory
once. A network is dropped when the last policy that holds it is gone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch

from policy.openvla.checkpoint import assign, load_tensors
from policy.openvla.model import OpenVLAModel

if TYPE_CHECKING:
    from collections.abc import Hashable

    from policy.openvla.config import OpenVLAConfig

_NETWORKS: WeakValueDictionary[Hashable, OpenVLAModel] = WeakValueDictionary()


def shared_network(
    folder: str | Path, config: OpenVLAConfig, device: str | torch.device, dtype: torch.dtype
) -> OpenVLAModel:
    """The network of a checkpoint folder, read only: the one in memory, or else from its files.

    A folder whose files changed since (name, size or time of writing) is read again.

    Args:
        folder: checkpoint folder in the published layout.
        config: its configuration.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        CheckpointError: when a file is missing, damaged, or does not fit the architecture.
    """
    folder = Path(folder).resolve()
    key = (folder, _stamp(folder), str(torch.device(device)), dtype)
    network = _NETWORKS.get(key)
    if network is None:
        with torch.device("meta"):
            network = OpenVLAModel(config)
        assign(network, load_tensors(folder, dtype=dtype), folder)
        network = network.to(device).eval().requires_grad_(False)
        _NETWORKS[key] = network
    return network


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = ((path.name, path.stat()) for path in files)
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)
