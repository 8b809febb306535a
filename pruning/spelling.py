"""The name that was meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], lead: str = "; ", *, cutoff: float = 0.5) -> str:
    """A question that goes into an error about an unknown name.

    Args:
        name: what was given.
        known: the names that there are.
        lead: what parts the question from the words before it.
        cutoff: how alike the two must be, from 0 to 1.

    Returns:
        `lead` and the question, or nothing when no known name is near.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"{lead}did you mean {near[0]!r}?" if near else ""
