"""Where the benchmark's meshes and textures are. Its package does not bring them."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

VARIABLE = "LEANVLA_LIBERO_ASSETS"
NEEDED = ("scenes", "stable_hope_objects", "stable_scanned_objects", "turbosquid_objects")
REMEDY = (
    f"set {VARIABLE} to the folder `libero/libero/assets` of a clone of "
    "Lifelong-Robot-Learning/LIBERO"
)


class AssetsError(RuntimeError):
    """Assets that are not where they were said to be; the message names the remedy."""


def find_assets(path: str | None = None) -> Path:
    """The folder of the assets.

    Args:
        path: the folder; None takes the environment variable.

    Raises:
        AssetsError: when nothing is said, or what is said is not such a folder.
    """
    said = path or os.environ.get(VARIABLE)
    if not said:
        raise AssetsError(f"LIBERO's meshes and textures are nowhere: {REMEDY}")
    folder = Path(said).expanduser().resolve()
    missing = [name for name in NEEDED if not (folder / name).is_dir()]
    if missing:
        raise AssetsError(f"{folder} has no {', '.join(missing)}: {REMEDY}")
    return folder


@lru_cache
def assets_hash(folder: Path) -> str:
    """SHA-256 over names and contents: published numbers hold for the published assets only."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}:{content}\n".encode())
    return total.hexdigest()
