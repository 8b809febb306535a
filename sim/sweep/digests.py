"""SHA-256 of files, and of the code that can change an episode."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pruning.user_cache import cache_dir

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGE_BYTES = 64 << 20  # above this a digest is remembered, by path, size and time of writing
CODE = (
    *("policy", "pruning", "engines", "sim/rollout", "sim/suites"),
    *("sim/render.py", "sim/meshes.py", "sim/truth.py"),
)
CODE_SUFFIXES = (".py", ".xml", ".json", ".txt")
ROOT = Path(__file__).resolve().parents[2]
_CHUNK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    if path.stat().st_size < LARGE_BYTES:
        return _read(path)
    stat = path.stat()
    stamp = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    note = cache_dir() / "digests" / hashlib.sha256(stamp.encode()).hexdigest()
    if note.is_file():
        return note.read_text().strip()
    digest = _read(path)
    write_atomically(note, digest.encode())
    return digest


def files_digest(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names, seen from `root`, and contents of files."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path.relative_to(root).as_posix()}:{file_digest(path)}\n".encode())
    return total.hexdigest()


@lru_cache
def code_digest() -> str:
    """SHA-256 over our own files that an episode runs through.

    These are the sources and data files of `policy` (packaged weights apart), `pruning`, `engines`,
    `sim/rollout`, `sim/suites`, `sim/render.py`, `sim/meshes.py` and `sim/truth.py`; not the
    command line, reports or tests.
    """
    found = [ROOT / name for name in CODE]
    files = [path for top in found for path in ([top] if top.is_file() else top.rglob("*"))]
    own = (f for f in files if f.suffix in CODE_SUFFIXES and "zoo" not in f.parts)
    return files_digest(ROOT, own)


def module_digest(name: str) -> str | None:
    """SHA-256 of the source file of `module:callable`; None when it has none."""
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        return None
    origin = None if spec is None or spec.origin is None else Path(spec.origin)
    return file_digest(origin) if origin is not None and origin.is_file() else None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and its folder when it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()
