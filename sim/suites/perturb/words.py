"""The same thing asked for in other words: the verb is changed, never what it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

VERBS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("pick up", ("grab", "take", "get hold of")),
    ("pick", ("grab", "take")),
    ("put", ("place", "set", "lay")),
    ("place", ("put", "set")),
    ("stack", ("put", "place", "set")),
    ("push", ("shove", "slide", "move")),
    ("pull", ("drag", "draw")),
    ("open", ("pull open",)),
    ("close", ("shut",)),
    ("turn on", ("switch on",)),
    ("turn off", ("switch off",)),
    ("press", ("push down", "push")),
    ("wipe", ("clean", "sweep")),
    ("reach", ("go to", "move to")),
)
FRAMES = ("please {}", "could you {}", "I want you to {}", "your task is to {}", "{}, please")


def paraphrase(instruction: str, size: int, rng: np.random.Generator) -> str:
    """The instruction in other words.

    Args:
        instruction: it begins with its verb, or it is put into another sentence.
        size: see `KINDS`.
        rng: chooses the words.
    """
    verb, others = next(
        ((verb, others) for verb, others in VERBS if instruction.startswith(f"{verb} ")), ("", ())
    )
    said = instruction
    if verb:
        said = str(rng.choice(others)) + instruction[len(verb) :]
    if size > 1 or not verb:
        said = FRAMES[rng.integers(len(FRAMES))].format(said)
    return said
