"""Graphs without weights, as they ship with a package; an engine is put together from them.

A graph depends on a network's architecture and on no weight. So the graphs of a packaged policy are
kept beside its checkpoint, stay right when it is trained again, and become an engine by writing its
weights into one file in the order that they expect. That takes numpy, and no torch.

SET/graphs.json          this manifest
SET/<graph>.onnx         the graphs
SET/weights.json         which weight lies where in the file that they read
SET/tables.safetensors   weights that no checkpoint holds, e.g. rotary phases
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engines.errors import EngineError
from engines.folder import staged
from engines.manifest import (
    SCHEMA,
    FileEntry,
    GraphEntry,
    Manifest,
    Rung,
    check_files,
    check_rungs,
    file_entry,
    read_manifest,
    write_manifest,
)
from engines.weights import TABLE, WEIGHTS, read_table, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

GRAPHS = "graphs.json"
TABLES = "tables.safetensors"


class GraphSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a set of graphs says about itself; fields as in `Manifest`.

    Attributes:
        schema: version of this layout.
        family: which policy family reads it.
        architecture: hash of everything in a configuration that shapes a graph.
        precision: of the weights.
        opset: version of the ONNX operators.
        prompt_tokens: longest prompt, without BOS.
        rebuild: the command that makes this set again.
        producers: versions of what made it.
        files: every file but this one.
        graphs: by name.
        rungs: methods and budgets.
    """

    schema: int
    family: str
    architecture: str
    precision: str
    opset: int
    prompt_tokens: int
    rebuild: str
    producers: dict[str, str]
    files: dict[str, FileEntry]
    graphs: dict[str, GraphEntry]
    rungs: list[Rung]


def is_graph_set(folder: Path) -> bool:
    """Whether a folder is, or claims to be, a set of graphs."""
    return (folder / GRAPHS).is_file()


def pack(
    engine: Path, out: Path, architecture: str, tables: Mapping[str, np.ndarray], rebuild: str
) -> GraphSet:
    """Keep an engine's graphs without its weights.

    Args:
        engine: an engine folder.
        out: where to; a set that is there is replaced.
        architecture: see `GraphSet`.
        tables: weights that no checkpoint holds.
        rebuild: the command that does this.

    Raises:
        EngineError: when the engine is damaged.
    """
    from safetensors.numpy import save_file

    manifest = read_manifest(engine)
    check_files(engine, manifest)
    read_table(engine)
    with staged(out) as staging:
        for name in (TABLE, *(graph.file for graph in manifest.graphs.values())):
            shutil.copyfile(engine / name, staging / name)
        save_file(dict(tables), staging / TABLES)
        shutil.copymode(staging / TABLE, staging / TABLES)  # it is written for this user alone
        found = GraphSet(
            schema=SCHEMA,
            family=manifest.family,
            architecture=architecture,
            precision=manifest.precision,
            opset=manifest.opset,
            prompt_tokens=manifest.prompt_tokens,
            rebuild=rebuild,
            producers=manifest.producers,
            files={path.name: file_entry(path) for path in sorted(staging.iterdir())},
            graphs=manifest.graphs,
            rungs=manifest.rungs,
        )
        text = msgspec.json.format(msgspec.json.encode(found), indent=2)
        (staging / GRAPHS).write_bytes(text + b"\n")
    return found


def read_graph_set(folder: Path) -> GraphSet:
    """Read a set and check every file of it.

    Raises:
        EngineError: when it is damaged, of another schema, or contradicts itself.
    """
    path = folder / GRAPHS
    try:
        found = msgspec.json.decode(path.read_bytes(), type=GraphSet)
    except FileNotFoundError:
        raise EngineError(f"{folder} has no {GRAPHS}: it is no set of graphs") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"{path} is damaged ({error}): restore it") from None
    if found.schema != SCHEMA:
        raise EngineError(f"{path} has schema {found.schema}, {SCHEMA} is read: make it again")
    check_rungs(path, found)
    check_files(folder, found, GRAPHS)
    return found


def assemble(
    source: Path,
    out: Path,
    weight: Callable[[str], np.ndarray],
    *,
    policy: str,
    policy_sha256: str,
    assets: Mapping[str, Path],
) -> Manifest:
    """Put an engine together: the graphs, and weights in the order that they expect.

    Args:
        source: a set of graphs.
        out: engine folder; appears whole or not at all.
        weight: gives a weight of the checkpoint by name.
        policy: name or folder of the checkpoint.
        policy_sha256: hash of its weights.
        assets: further files, by their name in the folder.

    Raises:
        EngineError: when the set is damaged, or a weight has another shape than its graph expects.
    """
    from safetensors.numpy import load_file

    graphs = read_graph_set(source)
    tables = load_file(source / TABLES)
    with staged(out) as staging:
        for name in (TABLE, *(graph.file for graph in graphs.graphs.values())):
            shutil.copyfile(source / name, staging / name)
        for name, asset in assets.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(asset, staging / name)
        places = read_table(source)
        write_weights(
            staging / WEIGHTS, places, lambda name: tables[name] if name in tables else weight(name)
        )
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        manifest = Manifest(
            schema=SCHEMA,
            family=graphs.family,
            policy=policy,
            policy_sha256=policy_sha256,
            precision=graphs.precision,
            opset=graphs.opset,
            prompt_tokens=graphs.prompt_tokens,
            rebuild=graphs.rebuild,
            producers=graphs.producers,
            files={path.relative_to(staging).as_posix(): file_entry(path) for path in files},
            graphs=graphs.graphs,
            rungs=graphs.rungs,
        )
        write_manifest(staging, manifest)
    return manifest
