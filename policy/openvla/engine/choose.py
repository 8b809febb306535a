"""Which cells of a run an engine can take, and which engine that is; torch takes the others.

Graphs beside the checkpoint come first: they need no torch. What they lack is exported once,
compared with the model, and kept in the cache. Every cell that stays with torch has a reason.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import engines
import pruning
from engines.cache import cached_engine
from engines.errors import EngineError
from engines.manifest import check_weights_of, read_manifest, sha256
from policy.openvla.checkpoint import weights_sha256
from policy.openvla.config import load_config
from policy.openvla.engine.packaged import ASSETS, packaged_engine, packaged_graphs
from policy.openvla.engine.plan import DENSE
from policy.openvla.engine.rungs import find_rung
from policy.openvla.errors import CheckpointError
from pruning.registry import make_method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from engines.manifest import Listing
    from policy.openvla.config import OpenVLAConfig
    from pruning.base import Method

MOST_BYTES = 2_000_000_000
"""Weights of a checkpoint that is exported without being asked; the cache holds them once more."""
COMPARED = 2
_EXPORTERS = ("torch", "onnx", "onnxscript")


class Wanted(NamedTuple):
    """A cell to run.

    Attributes:
        name: method with its options after colons; it must make `method` at any budget.
        keep: ratio of visual tokens that live.
        method: the same, made.
    """

    name: str
    keep: float
    method: Method

    @classmethod
    def named(cls, name: str, keep: float) -> Wanted:
        """A cell by its name and budget.

        Raises:
            MethodError, BudgetError: as `make_method`.
        """
        return cls(name, keep, make_method(name, keep=keep))


class Choice(NamedTuple):
    """What runs a cell.

    Attributes:
        engine: the engine's folder; None for torch.
        reason: why it is torch; empty for an engine.
    """

    engine: Path | None
    reason: str = ""


def choose_engines(
    checkpoint: Path,
    wanted: Sequence[Wanted],
    progress: Callable[[str], None] = lambda step: None,
) -> list[Choice]:
    """An engine for every cell that can have one; `dense` goes where most pruned cells can.

    Raises:
        EngineError: when the graphs beside the checkpoint are damaged or of another architecture.
        EngineUnavailableError: when the cache cannot be written.
    """
    config = load_config(checkpoint)
    found = _packaged(checkpoint, config, wanted)
    missing: dict[str, list[float]] = {}
    for number, cell in enumerate(wanted):
        if number not in found and cell.method.prunes:
            missing.setdefault(cell.name, []).append(cell.keep)
    made = {
        name: _exported(checkpoint, config, name, keeps, progress)
        for name, keeps in missing.items()
    }
    pruned = [
        found.get(number) or made[cell.name]
        for number, cell in enumerate(wanted)
        if cell.method.prunes
    ]
    dense = _dense(checkpoint, config, found, wanted, pruned, progress)
    return [
        (found.get(number) or made[cell.name]) if cell.method.prunes else dense
        for number, cell in enumerate(wanted)
    ]


def check_engine(engine: Path, checkpoint: Path, wanted: Iterable[Wanted]) -> None:
    """Refuse an engine that is not this checkpoint's, or lacks a rung.

    Raises:
        EngineError: when it is damaged, of other weights, or without a rung.
    """
    manifest = read_manifest(engine)
    check_weights_of(engine, manifest, weights_sha256(checkpoint))
    config = load_config(checkpoint)
    for cell in wanted:
        find_rung(manifest, cell.method, config)


def _packaged(
    checkpoint: Path, config: OpenVLAConfig, wanted: Sequence[Wanted]
) -> dict[int, Choice]:
    """Cells that are rungs of the graphs beside the checkpoint, by their number."""
    graphs = packaged_graphs(checkpoint)
    if graphs is None:
        return {}
    fitting = [n for n, cell in enumerate(wanted) if _has_rung(graphs, cell.method, config)]
    if not fitting:
        return {}
    try:
        choice = Choice(packaged_engine(checkpoint))
    except CheckpointError:  # what numpy cannot read, torch may
        return {}
    return dict.fromkeys(fitting, choice)


def _has_rung(graphs: Listing, method: Method, config: OpenVLAConfig) -> bool:
    try:
        find_rung(graphs, method, config)
    except EngineError:
        return False
    return True


def _dense(
    checkpoint: Path,
    config: OpenVLAConfig,
    found: dict[int, Choice],
    wanted: Sequence[Wanted],
    pruned: Sequence[Choice],
    progress: Callable[[str], None],
) -> Choice:
    """The reference runs where what it is compared with runs."""
    if pruned and not any(choice.engine for choice in pruned):
        return Choice(None, "no pruned cell of this run has an engine")
    numbers = (n for n, cell in enumerate(wanted) if not cell.method.prunes and n in found)
    for number in numbers:
        return found[number]
    for choice in pruned:
        if choice.engine:
            return choice  # every engine has the dense rung
    return _exported(checkpoint, config, DENSE, [1.0], progress)


def _exported(
    checkpoint: Path,
    config: OpenVLAConfig,
    name: str,
    keeps: Sequence[float],
    progress: Callable[[str], None],
) -> Choice:
    """An engine for one method, made now or found in the cache."""
    lacking = [each for each in _EXPORTERS if importlib.util.find_spec(each) is None]
    if lacking:
        return Choice(None, f"{name} has no packaged graph, and export needs {lacking[0]}")
    size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    if size > MOST_BYTES:
        return Choice(
            None, f"{size / 1e9:.1f} GB are exported on request only, with `leanvla export`"
        )
    from policy.openvla.engine.export import PROMPT_TOKENS
    from policy.openvla.engine.plan import make_plan

    try:
        make_plan(config, [name], keeps, PROMPT_TOKENS)
        return Choice(_cached(checkpoint, name, sorted(set(keeps), reverse=True), progress))
    except EngineError as error:
        return Choice(None, str(error).partition(": ")[0])


def _cached(
    checkpoint: Path, name: str, keeps: Sequence[float], progress: Callable[[str], None]
) -> Path:
    from engines.export import OPSET, producers
    from policy.openvla.engine.export import PROMPT_TOKENS, export_policy

    def make(out: Path) -> None:
        progress(f"exporting {name} of {checkpoint.name}, once; it is kept in {out}")
        export_policy(
            checkpoint,
            out,
            methods=[name],
            keeps=keeps,
            policy=checkpoint.name,
            rebuild=f"leanvla export --policy {checkpoint} --method {name} "
            f"--keep {','.join(f'{keep:g}' for keep in keeps)} --out {out}",
            progress=progress,
        )
        _compare(checkpoint, out, progress)

    key = {
        "weights": weights_sha256(checkpoint),
        "assets": [sha256(checkpoint / asset) for asset in ASSETS],
        "method": name,
        "keeps": list(keeps),
        "opset": OPSET,
        "prompt_tokens": PROMPT_TOKENS,
        "producers": producers(),
        "exporter": exporter_sha256(),
    }
    return cached_engine(checkpoint.name, key, make)


def _compare(checkpoint: Path, out: Path, progress: Callable[[str], None]) -> None:
    """Refuse an engine that does not say what its model says."""
    from engines.artefact import Engine
    from policy.openvla.engine.verify import generated, judge, verify

    engine = Engine(out)
    seen = generated(load_config(checkpoint), COMPARED)
    misses = [judge(engine, parity) for parity in verify(engine, checkpoint, seen, progress)]
    for miss in misses:
        if miss:
            raise EngineError(f"the engine differs from its model ({miss})")


def exporter_sha256() -> str:
    """Hash of the code that shapes graphs: an engine of other code is made again."""
    digest = hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterable[Path]:
    rooms = [Path(str(room.__file__)).parent for room in (engines, pruning)]
    for folder in (*rooms, Path(__file__).parent.parent):
        yield from folder.rglob("*.py")
