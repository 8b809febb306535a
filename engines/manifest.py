"""What an engine folder says about itself, and the refusal of everything that does not hold.

DIR/engine.json     this manifest
DIR/weights.bin     weights of all graphs, each stored once
DIR/weights.json    what lies where in it
DIR/<graph>.onnx    graphs, which hold no weights
DIR/policy/...      what the policy's family needs beside graphs (configuration, tokenizer)
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import msgspec

from engines.errors import EngineError
from engines.session import Specs, TensorSpec

SCHEMA = 1
MANIFEST = "engine.json"
_BLOCK = 1 << 20


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: its length is compared first, then its hash."""

    bytes: int
    sha256: str


class TensorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape and type of an input or output."""

    shape: list[int]
    dtype: str

    @property
    def spec(self) -> TensorSpec:
        """The same as a spec."""
        return TensorSpec(tuple(self.shape), self.dtype)


class GraphEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One graph.

    Attributes:
        file: its name in the folder.
        inputs: by name, in order.
        outputs: by name, in order.
    """

    file: str
    inputs: dict[str, TensorEntry]
    outputs: dict[str, TensorEntry]


class Rung(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One budget of one method.

    Attributes:
        method: the method as it was asked for, e.g. `vla_pruner:hold=zero`.
        keep: ratio of visual tokens that live.
        tokens: the same as a count per view.
        cut: full decoder layers.
        stages: role of a stage, e.g. `vision`, to the name of its graph.
    """

    method: str
    keep: float
    tokens: int
    cut: int
    stages: dict[str, str]


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far one output is from the reference, over all observations.

    Attributes:
        cosine: least cosine.
        max_abs: largest difference.
    """

    cosine: float
    max_abs: float


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ledger of one rung.

    Attributes:
        method: of the rung.
        keep: of the rung.
        observations: queries compared.
        kept_equal: queries in which engine and reference kept the same tokens.
        action_max_abs: largest difference of a normalised action, ties left out.
        first_action_max_abs: the same of the first row of a chunk alone.
        tolerance: what `action_max_abs` must not exceed.
        stages: by `stage.output`.
        action_mean_abs: mean difference of a normalised action, ties left out.
        kept_tied: queries in which other tokens were kept by right: the reference's own choice
            hangs on the last digits of what it read.
        tied_action_max_abs: largest difference of a normalised action in those.
    """

    method: str
    keep: float
    observations: int
    kept_equal: int
    action_max_abs: float
    first_action_max_abs: float
    tolerance: float
    stages: dict[str, Comparison]
    action_mean_abs: float = 0.0
    kept_tied: int = 0
    tied_action_max_abs: float = 0.0


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that an engine says about itself.

    Attributes:
        schema: version of this layout.
        family: which policy family reads it.
        policy: name or folder of the checkpoint it was made from.
        policy_sha256: hash of the checkpoint's weights.
        precision: a name of `engines.precision.PRECISIONS`.
        opset: version of the ONNX operators.
        prompt_tokens: longest prompt, without BOS.
        rebuild: the command that makes this engine again.
        producers: versions of what made it.
        files: every file but this one.
        graphs: by name.
        rungs: methods and budgets that it can run.
        parity: ledger; empty when it was never compared.
        calibration: what ranges of activations were measured on; empty where none are needed.
    """

    schema: int
    family: str
    policy: str
    policy_sha256: str
    precision: str
    opset: int
    prompt_tokens: int
    rebuild: str
    producers: dict[str, str]
    files: dict[str, FileEntry]
    graphs: dict[str, GraphEntry]
    rungs: list[Rung]
    parity: list[Parity] = []
    calibration: str = ""

    def specs(self, graph: str) -> tuple[Specs, Specs]:
        """Inputs and outputs of a graph."""
        entry = self.graphs[graph]
        return _specs(entry.inputs), _specs(entry.outputs)


def graph_entry(file: str, inputs: Specs, outputs: Specs) -> GraphEntry:
    """The entry of a graph from its specs."""
    return GraphEntry(file, _entries(inputs), _entries(outputs))


def file_entry(path: Path) -> FileEntry:
    """Length and hash of a file."""
    return FileEntry(path.stat().st_size, sha256(path))


def sha256(path: Path) -> str:
    """Hash of a file's contents."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def is_engine(folder: Path) -> bool:
    """Whether a folder is, or claims to be, an engine."""
    return (folder / MANIFEST).is_file()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `engine.json` in one step: a reader sees the old one or the new one."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{MANIFEST}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, folder / MANIFEST)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_manifest(folder: Path) -> Manifest:
    """Read and check `engine.json` in itself; `check_files` compares the files with it.

    Raises:
        EngineError: when it is missing, malformed, of another schema, or contradicts itself.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise EngineError(f"{folder} has no {MANIFEST}: give a folder that leanvla export wrote")
    text = path.read_bytes()
    try:
        schema = msgspec.json.decode(text, type=dict[str, Any]).get("schema")
        if schema == SCHEMA:
            manifest = msgspec.json.decode(text, type=Manifest)
            check_rungs(path, manifest)
            return manifest
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"{path} is damaged ({error}): export it again") from None
    raise EngineError(
        f"{path} has schema {schema!r}, this version of leanvla reads {SCHEMA}: "
        "export it again, or use the version that wrote it"
    )


class Listing(Protocol):
    """What a manifest and a set of graphs have in common."""

    @property
    def files(self) -> dict[str, FileEntry]:
        """Every other file of the folder."""
        ...

    @property
    def graphs(self) -> dict[str, GraphEntry]:
        """By name."""
        ...

    @property
    def rungs(self) -> list[Rung]:
        """Methods and budgets."""
        ...

    @property
    def rebuild(self) -> str:
        """The command that makes the folder again."""
        ...


def check_files(folder: Path, manifest: Listing, name_of_it: str = MANIFEST) -> None:
    """Compare every file with the manifest, before any runtime sees one of them.

    Raises:
        EngineError: naming the first file that is missing, of another length, or changed.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise EngineError(f"{path} is missing: rebuild with `{manifest.rebuild}`")
        size = path.stat().st_size
        if size != entry.bytes:
            raise EngineError(
                f"{path} has {size} bytes, {name_of_it} says {entry.bytes}: it is truncated or "
                f"foreign; rebuild with `{manifest.rebuild}`"
            )
        if sha256(path) != entry.sha256:
            raise EngineError(
                f"{path} does not have the hash in {name_of_it}: it is damaged or foreign; "
                f"rebuild with `{manifest.rebuild}`"
            )


def contents_sha256(manifest: Listing) -> str:
    """Hash of everything that runs, whatever the folder is called and the ledger says."""
    digest = hashlib.sha256()
    for name, entry in sorted(manifest.files.items()):
        digest.update(f"{name}\0{entry.sha256}\n".encode())
    return digest.hexdigest()


def check_weights_of(folder: Path, manifest: Manifest, policy_sha256: str) -> None:
    """Refuse an engine that was made from other weights.

    Raises:
        EngineError: when the hashes differ.
    """
    if policy_sha256 != manifest.policy_sha256:
        raise EngineError(
            f"{folder} was made from other weights of {manifest.policy} "
            f"({manifest.policy_sha256[:12]}, now {policy_sha256[:12]}): "
            f"rebuild with `{manifest.rebuild}`"
        )


def check_rungs(path: Path, manifest: Listing) -> None:
    """Refuse files outside the folder, and names that lead nowhere.

    Raises:
        EngineError: naming the file, the graph or the rung.
    """
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or not parts:
            raise EngineError(f"{path}: file {name!r} lies outside the folder: export it again")
    for name, graph in manifest.graphs.items():
        if graph.file not in manifest.files:
            raise EngineError(f"{path}: graph {name} has no file entry: export it again")
    for rung in manifest.rungs:
        lost = set(rung.stages.values()) - manifest.graphs.keys()
        if lost:
            raise EngineError(
                f"{path}: rung {rung.method} @ {rung.keep:g} names graph {min(lost)}, "
                "which is not there: export it again"
            )
    if not manifest.rungs:
        raise EngineError(f"{path} has no rung that could run: export it again")


def _entries(specs: Specs) -> dict[str, TensorEntry]:
    return {name: TensorEntry(list(spec.shape), spec.dtype) for name, spec in specs.items()}


def _specs(entries: dict[str, TensorEntry]) -> Specs:
    return {name: entry.spec for name, entry in entries.items()}
