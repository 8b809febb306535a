"""Graphs that lie beside a checkpoint, in `graphs/`, and become an engine without torch.

They depend on the architecture alone, so a checkpoint that was trained again keeps them; one of
another architecture is refused with the command that makes them anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from engines.cache import cached_engine
from engines.errors import EngineError
from engines.graph_set import GRAPHS, GraphSet, assemble, is_graph_set, read_graph_set
from engines.manifest import sha256
from policy.openvla.checkpoint import load_arrays, weights_sha256
from policy.openvla.config import load_config

if TYPE_CHECKING:
    from pathlib import Path

    from policy.openvla.config import OpenVLAConfig

FOLDER = "graphs"
ASSETS = ("config.json", "tokenizer.json")
_SHAPING = ("towers", "text", "decoding", "head", "chunk", "dof", "proprio_dim", "cut_layer")


def architecture_sha256(config: OpenVLAConfig) -> str:
    """Hash of everything in a configuration that shapes a graph."""
    plain = asdict(config)
    shaping = {name: plain[name] for name in _SHAPING} | {"views": len(config.views)}
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def packaged_graphs(checkpoint: Path) -> GraphSet | None:
    """The graphs beside a checkpoint; None when there are none.

    Raises:
        EngineError: when they are damaged, or made for another architecture.
    """
    folder = checkpoint / FOLDER
    if not is_graph_set(folder):
        return None
    graphs = read_graph_set(folder)
    if graphs.architecture != architecture_sha256(load_config(checkpoint)):
        raise EngineError(
            f"{folder} holds graphs of another architecture than {checkpoint / 'config.json'}: "
            f"make them again with `{graphs.rebuild}`, or run with --engine torch"
        )
    return graphs


def packaged_engine(checkpoint: Path) -> Path:
    """The engine of these graphs and the checkpoint's weights, put together once and kept.

    Raises:
        CheckpointError: when the weights are damaged, or numpy cannot hold them.
        EngineError: when graphs and weights do not belong together.
        EngineUnavailableError: when the cache cannot be written.
    """
    source = checkpoint / FOLDER
    policy_sha256 = weights_sha256(checkpoint)

    def make(out: Path) -> None:
        arrays = load_arrays(checkpoint)

        def weight(name: str) -> object:
            if name not in arrays:
                raise EngineError(
                    f"{checkpoint}: tensor {name} is missing, the graphs in {source} read it"
                )
            return arrays[name]

        assemble(
            source,
            out,
            weight,  # type: ignore[arg-type]
            policy=checkpoint.name,
            policy_sha256=policy_sha256,
            assets={f"policy/{name}": checkpoint / name for name in ASSETS},
        )

    key = {
        "weights": policy_sha256,
        "graphs": sha256(source / GRAPHS),
        "assets": [sha256(checkpoint / name) for name in ASSETS],
    }
    return cached_engine(checkpoint.name, key, make)
