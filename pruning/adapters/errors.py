"""What an adapter says when a model, a method or an input cannot be pruned."""

from __future__ import annotations


class AdapterError(ValueError):
    """A model without adapter, a method whose needs it cannot meet, or an input of another kind."""
