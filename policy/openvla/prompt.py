"""What the decoder is told: prompt templates and the token that must end them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy.openvla.errors import CheckpointError

if TYPE_CHECKING:
    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.tokenizer import Tokenizer

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


def prompt_ids(config: OpenVLAConfig, tokenizer: Tokenizer, instruction: str) -> list[int]:
    """Token ids of the whole prompt, BOS first, the empty token last.

    Training sequences have the empty token between the colon and the first action; a tokenizer
    leaves it out of a prompt that ends there, so it is appended unless it is last already.

    Raises:
        CheckpointError: when the tokenizer gives ids that the decoder does not have.
    """
    ids = tokenizer.encode(build_prompt(instruction, config))
    empty = config.empty_token_id
    if empty is not None and ids[-1] != empty:
        ids.append(empty)
    if max(ids) >= config.text.vocab_size:
        raise CheckpointError(
            f"{tokenizer.path} gives id {max(ids)}, text_config.vocab_size of config.json is "
            f"{config.text.vocab_size}: the files do not belong together"
        )
    return ids
