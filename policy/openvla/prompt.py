"""What the decoder is told: prompt templates and the token that must end them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policy.openvla.config import OpenVLAConfig

_V01_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def build_prompt(instruction: str, config: OpenVLAConfig) -> str:
    """The text around an instruction, which is lower-cased as in training."""
    question = f"What action should the robot take to {instruction.strip().lower()}?"
    if config.prompt == "v01":
        return f"{_V01_SYSTEM} USER: {question} ASSISTANT:"
    return f"In: {question}\nOut:"


def end_with_empty_token(ids: list[int], config: OpenVLAConfig) -> list[int]:
    """Append the empty token unless it is last already.

    Training sequences have it between the colon and the first action; a tokenizer leaves it out of
    a prompt that ends there.
    """
    empty = config.empty_token_id
    return ids if empty is None or ids[-1:] == [empty] else [*ids, empty]
