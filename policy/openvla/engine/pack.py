"""Making the graphs that ship beside a packaged checkpoint; see `packaged.py` for how they run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from engines.artefact import Engine
from engines.errors import EngineError
from engines.graph_set import GraphSet, assemble, pack
from policy.openvla.checkpoint import load_arrays, weights_sha256
from policy.openvla.config import load_config
from policy.openvla.engine.export import PROMPT_TOKENS, export_policy
from policy.openvla.engine.packaged import ASSETS, FOLDER, architecture_sha256
from policy.openvla.engine.stages import RopeTable, table_length
from policy.openvla.engine.verify import generated, judge, verify
from policy.openvla.sequence import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engines.manifest import Parity

METHODS = ("vla_pruner", "fastv", "divprune", "uniform")
KEEPS = (0.5, 0.25, 0.125)
REBUILD = "make graphs"
COMPARED = 3


def pack_graphs(
    checkpoint: Path,
    methods: Sequence[str] = METHODS,
    keeps: Sequence[float] = KEEPS,
    *,
    rebuild: str = REBUILD,
    progress: Callable[[str], None] = lambda step: None,
) -> GraphSet:
    """Export, compare with the model, and put the graphs beside the checkpoint.

    Raises:
        EngineError: when a method cannot become a graph, or a rung does not say what its model
            says; nothing is changed then.
    """
    config = load_config(checkpoint)
    length = table_length(config, layout_of(config, PROMPT_TOKENS))
    tables = {k: t.numpy() for k, t in RopeTable.values(config.text, length).items()}
    with tempfile.TemporaryDirectory() as temporary:
        engine, graphs = Path(temporary) / "engine", Path(temporary) / "graphs"
        export_policy(
            checkpoint, engine, methods=methods, keeps=keeps, rebuild=rebuild, progress=progress
        )
        pack(engine, graphs, architecture_sha256(config), tables, rebuild)
        for parity, miss in compare_graphs(checkpoint, graphs, COMPARED, progress):
            if miss:
                raise EngineError(f"{parity.method} at {parity.keep:g} is not packed: {miss}")
        return pack(engine, checkpoint / FOLDER, architecture_sha256(config), tables, rebuild)


def compare_graphs(
    checkpoint: Path,
    graphs: Path,
    observations: int,
    progress: Callable[[str], None] = lambda step: None,
) -> list[tuple[Parity, str | None]]:
    """What graphs with a checkpoint's weights say beside its model, rung by rung."""
    arrays = load_arrays(checkpoint)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "engine"
        assemble(
            graphs,
            folder,
            arrays.__getitem__,
            policy=checkpoint.name,
            policy_sha256=weights_sha256(checkpoint),
            assets={f"policy/{name}": checkpoint / name for name in ASSETS},
        )
        engine = Engine(folder)
        seen = generated(load_config(checkpoint), observations)
        ledger = verify(engine, checkpoint, seen, progress)
        engine.close()
    return [(parity, judge(engine, parity)) for parity in ledger]
