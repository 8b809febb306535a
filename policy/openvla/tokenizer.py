"""Text to token ids, by the `tokenizer.json` of a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from policy.openvla.errors import CheckpointError

if TYPE_CHECKING:
    import tokenizers

BOS = "<s>"


class Tokenizer:
    """A checkpoint's tokenizer. Names of control tokens in a text (`</s>`) are plain text to it.

    Attributes:
        path: the file it was read from.
        bos_id: id that sequences start with.

    Raises:
        CheckpointError: when the tokenizer has no BOS token.
    """

    def __init__(self, fast: tokenizers.Tokenizer, path: Path) -> None:
        self.path, self._fast = path, fast
        fast.no_padding()
        fast.no_truncation()
        fast.encode_special_tokens = True
        bos = fast.token_to_id(BOS)
        if bos is None:
            raise CheckpointError(f"{path}: token {BOS} is missing, sequences start with it")
        self.bos_id: int = bos

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read `tokenizer.json`.

        Raises:
            CheckpointError: when the file is missing or malformed.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: {_remedy(path.parent)}")
        import tokenizers

        try:
            fast = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare `Exception` on a malformed file
            raise CheckpointError(
                f"{path} is not a tokenizer file ({error}): fetch it again"
            ) from None
        return cls(fast, path)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, BOS first, nothing at the end."""
        return [self.bos_id, *self._fast.encode(text, add_special_tokens=False).ids]

    def decode(self, ids: list[int]) -> str:
        """The text of some ids, control tokens left out."""
        return self._fast.decode(ids)


def _remedy(folder: Path) -> str:
    if not (folder / "tokenizer.model").exists():
        return "fetch it again"
    return (
        "only tokenizer.model is there, convert it once with "
        "`transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
    )
