"""Where everything lies that can be made again: engines, suites, meshes, remembered digests.

It stands here because this is the one room that all others may import.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "LEANVLA_CACHE"


def cache_dir() -> Path:
    """`$LEANVLA_CACHE`, or else `$XDG_CACHE_HOME/leanvla`, or else `~/.cache/leanvla`.

    Nothing is created.
    """
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "leanvla"
