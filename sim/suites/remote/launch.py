"""First lines of a worker, run as a script by the interpreter of a suite's own environment.

That interpreter sees its own packages and, of ours, only `ROOMS`: not the packages that
lie beside them, which may be other versions.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

ROOMS = ("sim", "policy", "pruning")


class RoomFinder(MetaPathFinder):
    """Finds our own rooms under `root`, and nothing else there."""

    def __init__(self, root: str) -> None:
        self._root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a room; packages below it are found by its own path."""
        return PathFinder.find_spec(fullname, [self._root]) if fullname in ROOMS else None


def main(root: str, *words: str) -> None:
    """Serve a suite (descriptor, parent, factory, options), or run a module (name, argument)."""
    sys.meta_path.insert(0, RoomFinder(root))
    if len(words) == 2:
        importlib.import_module(words[0]).main(words[1])
        return
    from sim.rollout.process import die_with
    from sim.suites.remote.serve import serve

    descriptor, parent, factory, options = words
    die_with(int(parent))
    serve(socket.socket(fileno=int(descriptor)), factory, json.loads(options))


if __name__ == "__main__":
    main(*sys.argv[1:])
