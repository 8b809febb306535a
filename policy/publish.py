"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, which then takes its place.

    It gets the rights of any new file of this user: some writers, safetensors among them, make
    files that nobody else may read.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch()
    rights = partial.stat().st_mode & 0o777
    write(partial)
    partial.chmod(rights)
    os.replace(partial, path)
