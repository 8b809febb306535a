"""Pruning inside someone else's model: `with prune(model, VLAPruner(keep=0.25)): ...`."""

from pruning.adapters.api import prune, supported
from pruning.adapters.errors import AdapterError

__all__ = ["AdapterError", "prune", "supported"]
