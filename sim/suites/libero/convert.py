"""Initial states from the benchmark's pickles to plain arrays, once, when it is installed.

The pickles are read by an unpickler that knows four names, all of numpy's array format; anything
else in them is refused before it is imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.suites.libero.spec import STATES_PER_TASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float64

_MAX_BYTES = 16 * 2**20
STATES, LEDGER = "init_states.npz", "init_states.json"


class InitStateError(RuntimeError):
    """Initial states that are not what they should be."""


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise InitStateError(f"encoding {encoding!r} is not read")
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    # Arrays pickled by numpy 1 and numpy 2 name the same function differently.
    rebuild: Any = np.zeros(0).__reduce__()[0]
    return {
        ("numpy.core.multiarray", "_reconstruct"): rebuild,
        ("numpy._core.multiarray", "_reconstruct"): rebuild,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
    }


class ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The few names that an array needs.

        Raises:
            InitStateError: for any other name.
        """
        try:
            return _allowed()[module, name]
        except KeyError:
            raise InitStateError(f"{module}.{name} is no part of an array") from None


def read_states(path: Path) -> Float64[np.ndarray, "states values"]:
    """The initial states of one task.

    Raises:
        InitStateError: when the file holds anything but one table of finite numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (info,) = (i for i in archive.infolist() if i.filename.endswith("/data.pkl"))
            if info.file_size > _MAX_BYTES:
                raise InitStateError(f"{path}: {info.file_size} bytes, at most {_MAX_BYTES}")
            states = ArrayUnpickler(io.BytesIO(archive.read(info))).load()
    except (OSError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError, EOFError) as error:
        raise InitStateError(f"{path}: not a table of initial states: {error}") from None
    if not isinstance(states, np.ndarray) or states.dtype != np.float64 or states.ndim != 2:
        raise InitStateError(f"{path}: not a table of initial states")
    if len(states) < STATES_PER_TASK or not np.isfinite(states).all():
        raise InitStateError(f"{path}: fewer than {STATES_PER_TASK} finite initial states")
    return states


def digest(states: Float64[np.ndarray, "states values"]) -> str:
    """SHA-256 of a table's shape and little-endian numbers."""
    content = np.ascontiguousarray(states, "<f8")
    return hashlib.sha256(repr(content.shape).encode() + content.tobytes()).hexdigest()


def package() -> Path:
    """The folder of the benchmark's files in this environment; nothing of it is imported."""
    spec = importlib.util.find_spec("libero")
    if spec is None or not spec.submodule_search_locations:
        raise InitStateError("the package hf-libero is not in this environment")
    return Path(next(iter(spec.submodule_search_locations))) / "libero"


def main(folder: str) -> None:
    """Convert everything that is installed into `folder`."""
    files = sorted((package() / "init_files").glob("*/*.pruned_init"))
    tables = {f"{path.parent.name}/{path.stem}": read_states(path) for path in files}
    content = io.BytesIO()
    np.savez_compressed(content, **tables)
    ledger = json.dumps({name: digest(table) for name, table in tables.items()}, indent=1)
    write_atomically(Path(folder) / STATES, content.getvalue())
    write_atomically(Path(folder) / LEDGER, ledger.encode())


def write_atomically(target: Path, content: bytes) -> None:
    """The old file or the new one, never half of it."""
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(content)
    Path(file.name).replace(target)
