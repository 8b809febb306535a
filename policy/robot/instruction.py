"""Words from a topic: checked, cleaned, and never allowed to speak the prompt's own language."""

from __future__ import annotations

import unicodedata

from policy.types import MAX_INSTRUCTION_CHARS

_SPECIAL = ("<s>", "</s>", "<unk>", "<pad>", "<image>", "<|", "|>", "in:", "out:", "[inst]")
_BREAKERS = ("\n", "\r", "\t", "\x0b", "\x0c")


class InstructionError(ValueError):
    """An instruction that no policy is asked to follow."""


def clean_instruction(text: str) -> str:
    """The instruction with its white space folded.

    Raises:
        InstructionError: when it is empty, over-long, not text, holds control characters, or
            holds pieces of a prompt template, which would rewrite the prompt around it.
    """
    if not isinstance(text, str):
        raise InstructionError(f"instruction is {type(text).__name__}: give text")
    if len(text) > MAX_INSTRUCTION_CHARS:
        raise InstructionError(
            f"instruction has {len(text)} characters, at most {MAX_INSTRUCTION_CHARS} are read"
        )
    for breaker in _BREAKERS:
        text = text.replace(breaker, " ")
    control = [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co")]
    if control:
        raise InstructionError(f"instruction holds control characters: {text!r:.120}")
    folded = " ".join(text.split())
    if not folded:
        raise InstructionError("instruction is empty: say what the robot should do")
    found = [piece for piece in _SPECIAL if piece in folded.lower()]
    if found:
        raise InstructionError(
            f"instruction holds {', '.join(map(repr, found))}, which belongs to prompt templates: "
            f"{folded!r:.120}"
        )
    return folded
