"""What can be wrong with an engine, or with the machine that is to run it."""

from __future__ import annotations


class EngineError(ValueError):
    """An engine that cannot be used: says what, where, and the command that rebuilds it."""


class EngineUnavailableError(RuntimeError):
    """A machine that cannot run this engine: says what is missing and how to get it."""


class EngineMemoryError(RuntimeError):
    """Not enough memory to load or run a stage: says how much is needed and how much is free."""


class EngineLostError(RuntimeError):
    """A device that failed for good: the process must be started again."""
