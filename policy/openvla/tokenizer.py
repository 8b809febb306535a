"""Instructions to token ids, by the `tokenizer.json` of a checkpoint folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from policy.openvla.errors import CheckpointError
from policy.openvla.prompt import build_prompt, end_with_empty_token

if TYPE_CHECKING:
    import tokenizers
    from jaxtyping import Int64

    from policy.openvla.config import OpenVLAConfig

BOS = "<s>"
REMEMBERED = 64
"""Instructions whose ids are kept at hand."""


class PromptTokenizer:
    """A checkpoint's tokenizer and prompt. Control tokens' names in an instruction are plain text.

    Attributes:
        bos_id: id that sequences start with.

    Args:
        folder: holds `tokenizer.json`.
        config: says which prompt, and which token ends it.

    Raises:
        CheckpointError: when the file is missing, malformed, or does not fit the config.
    """

    def __init__(self, folder: str | Path, config: OpenVLAConfig) -> None:
        path = Path(folder) / "tokenizer.json"
        self.config, self._fast = config, _load(path)
        bos = self._fast.token_to_id(BOS)
        if bos is None:
            raise CheckpointError(f"{path}: token {BOS} is missing, sequences start with it")
        self.bos_id: int = bos
        size = self._fast.get_vocab_size()
        if size > config.text.vocab_size:
            raise CheckpointError(
                f"{path} has {size} tokens, text_config.vocab_size of config.json is "
                f"{config.text.vocab_size}: the files do not belong together"
            )
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._prompt_ids)

    def __call__(self, instruction: str) -> Int64[np.ndarray, "1 t"]:
        """`input_ids` of the whole prompt around an instruction, BOS first."""
        return np.array([self._remembered(instruction)], np.int64)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it is, BOS first, nothing at the end."""
        return [self.bos_id, *self._fast.encode(text, add_special_tokens=False).ids]

    def decode(self, ids: list[int]) -> str:
        """The text of some ids, control tokens left out."""
        return self._fast.decode(ids)

    def _prompt_ids(self, instruction: str) -> tuple[int, ...]:
        ids = self.encode(build_prompt(instruction, self.config))
        return tuple(end_with_empty_token(ids, self.config))


def _load(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: {_remedy(path.parent)}")
    import tokenizers

    try:
        fast = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare `Exception` on a malformed file
        raise CheckpointError(f"{path} is not a tokenizer file ({error}): fetch it again") from None
    fast.no_padding()
    fast.no_truncation()
    fast.encode_special_tokens = True
    return fast


def _remedy(folder: Path) -> str:
    if not (folder / "tokenizer.model").exists():
        return "fetch it again"
    return (
        "only tokenizer.model is there, convert it once with "
        "`transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
    )
