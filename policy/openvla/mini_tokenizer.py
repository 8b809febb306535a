"""The small tokenizer of our own checkpoints, in the file layout of Llama-2's.

Ids follow Llama's plan at a smaller size: `<unk> <s> </s>`, 256 byte pieces, text pieces, then the
256 action tokens as the last of the vocabulary, then `<PAD>` and padding. Whole words of the prompt
and of table-top instructions are one piece each; other text falls apart into letters, and what is
not a letter of ours into UTF-8 bytes, so that any text has a faithful, unk-free encoding. A policy
for other tasks gets pieces for their words, in the place of reserved ones and of words that its
instructions lack; every other piece keeps its id, and so the embedding of weights to start from.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenizers import Tokenizer

SPECIALS = ("<unk>", "<s>", "</s>")
PAD = "<PAD>"
TEXT_VOCAB = 448
ACTION_BINS = 256
ACTION_VOCAB = TEXT_VOCAB + ACTION_BINS
PAD_MULTIPLE = 64
SPACE = "\u2581"  # the mark that SentencePiece writes for a space
EMPTY_TOKEN_ID = len(SPECIALS) + 256

_PROMPT = "In: What action should the robot take to Out:"
_TASKS = """
    pick up put stack push pull place move grab lift drop open close turn slide cover
    red green blue yellow orange purple pink white black brown grey
    cube cylinder bin plate block ball bowl cup mug box can bottle tray basket drawer door table
    object one all a an and it then of in into on onto at to from left right front back top bottom
    middle side corner edge next under over behind between near small large big
"""
_LETTERS = "etaoinshrdlcumwfgypbvkjxqzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?:;'\"-_()/&+%#*=@<>[]"
_SUFFIXES = ("ing", "ed", "er", "es", "ly", "s")

_WORD_SCORE, _LETTER_SCORE, _NEVER_SCORE = -5.0, -10.0, -1e4


def text_pieces(instructions: Iterable[str] = ()) -> list[str]:
    """The text pieces in the order of their ids; the first one is the empty token, a bare space.

    Args:
        instructions: sentences whose words shall be one piece each.

    Raises:
        ValueError: when they have more words than there is room for.
    """
    prompt = ["Out:" if word == "Out:" else SPACE + word for word in _PROMPT.split()]
    words = [SPACE + word for word in _TASKS.split()]
    pieces = list(dict.fromkeys([SPACE, *prompt, *words, *_SUFFIXES, *_LETTERS]))
    room = TEXT_VOCAB - EMPTY_TOKEN_ID
    if len(pieces) > room:
        raise ValueError(f"{len(pieces)} text pieces do not fit into {room} ids: take some away")
    pieces += [f"<reserved_{i:02d}>" for i in range(room - len(pieces))]
    said = {SPACE + word for sentence in instructions for word in sentence.lower().split()}
    new = sorted(said - set(pieces))
    free = [piece for piece in pieces if piece.startswith("<reserved")]
    free += [word for word in reversed(words) if word not in said and word not in prompt]
    if len(new) > len(free):
        raise ValueError(f"the instructions have {len(new)} words of their own: {len(free)} fit")
    place = dict(zip(free, new, strict=False))
    return [place.get(piece, piece) for piece in pieces]


def vocabulary(instructions: Iterable[str] = ()) -> list[tuple[str, float]]:
    """Pieces and log scores in the order of ids `0 ... ACTION_VOCAB - 1`.

    Special, reserved and action pieces score so low that no text is ever split into them: spelling
    their name out letter by letter is always the better path.
    """
    vocab = [(name, _NEVER_SCORE) for name in SPECIALS]
    vocab += [(f"<0x{byte:02X}>", _NEVER_SCORE) for byte in range(256)]
    for piece in text_pieces(instructions):
        if piece.startswith("<reserved"):
            vocab.append((piece, _NEVER_SCORE))
        else:
            vocab.append((piece, _LETTER_SCORE if len(piece) == 1 else _WORD_SCORE))
    vocab += [(f"<action_{i:03d}>", _NEVER_SCORE) for i in range(ACTION_BINS)]
    return vocab


def build_mini_tokenizer(folder: str | Path, instructions: Iterable[str] = ()) -> Path:
    """Write `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` into `folder`.

    Same bytes on every run.

    Args:
        folder: where to.
        instructions: sentences whose words shall be one piece each; other text can be said, too.

    Returns:
        The path of `tokenizer.json`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(_tokenizer(instructions).to_str(pretty=True) + "\n", encoding="utf-8")
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": PAD}
    _write_json(folder / "special_tokens_map.json", names)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048}
    settings |= {"add_bos_token": True, "add_eos_token": False, "padding_side": "right"}
    _write_json(folder / "tokenizer_config.json", names | settings)
    return path


def _tokenizer(instructions: Iterable[str]) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    tokenizer = Tokenizer(models.Unigram(vocabulary(instructions), unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in (*SPECIALS, PAD)])
    return tokenizer


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    build_mini_tokenizer(sys.argv[1])
