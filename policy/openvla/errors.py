"""What can be wrong with a checkpoint or with the way it is asked for."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used: names the file, the key in it, and the remedy."""


class UnnormKeyError(ValueError):
    """`unnorm_key` is missing or names no data set of the checkpoint: lists the valid ones."""


class PolicyNameError(ValueError):
    """Neither the name of a packaged policy nor a checkpoint folder: lists the known ones."""
