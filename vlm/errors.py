"""What can go wrong here, one sentence each."""

from __future__ import annotations


class TaskError(ValueError):
    """An unknown task, or a file that is not in the published format."""


class MissingDataError(RuntimeError):
    """A data set that is not on this machine; the message says what to put where."""


class ModelError(ValueError):
    """A folder that is no vision-language model we can run."""


class RunError(RuntimeError):
    """A run that could not go on."""
