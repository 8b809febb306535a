"""Engines that were made once and are kept in the user's cache folder.

CACHE/engines/<name>-<key>, where CACHE is as `pruning.user_cache` says, and the key a hash of
everything that the engine depends on. Deleting any of it is always safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from typing import TYPE_CHECKING

from engines.errors import EngineError, EngineUnavailableError
from engines.manifest import Manifest, check_files, is_engine, read_manifest
from pruning.user_cache import VARIABLE, cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_KEY_LENGTH = 16


def cache_folder() -> Path:
    """Where engines are kept; nothing is created."""
    return cache_dir() / "engines"


def cached_engine(name: str, key: Mapping[str, object], make: Callable[[Path], object]) -> Path:
    """The engine of a key: the one that is there when it is whole, else one that is made now.

    Processes that ask at the same time make it once.

    Args:
        name: first part of the folder's name, for people.
        key: everything that the engine depends on, as plain values.
        make: writes the engine into a folder that does not exist.

    Raises:
        EngineUnavailableError: when the cache cannot be written.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    folder = cache_folder() / f"{name}-{digest[:_KEY_LENGTH]}"
    try:
        with _lock(folder):
            if trouble(folder) is not None:
                _make(folder, make)
    except OSError as error:
        raise EngineUnavailableError(
            f"{folder} cannot be written ({error.strerror or error}): let {VARIABLE} name "
            "another folder, or run with --engine torch"
        ) from None
    return folder


def trouble(folder: Path) -> str | None:
    """What is wrong with an engine folder, in one sentence; None when nothing is."""
    if not is_engine(folder):
        return f"{folder} is no engine"
    try:
        check_files(folder, read_manifest(folder))
    except EngineError as error:
        return str(error)
    return None


def kept_engines() -> Iterator[tuple[Path, Manifest | None, int]]:
    """Every engine in the cache: folder, manifest (None when it is damaged), bytes on disk."""
    root = cache_folder()
    for folder in sorted(path for path in root.glob("*") if is_engine(path)):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        yield folder, None if trouble(folder) else read_manifest(folder), size


def _make(folder: Path, make: Callable[[Path], object]) -> None:
    """What was made halfway, or was found wrong by its maker, must not be found here later."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        make(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
