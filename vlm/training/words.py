"""The tokenizer of `mini-vlm`: whole words of `scene_qa`, letters and bytes for all other text.

Real tokenizer files in the layout of LLaVA's: `<s>` in front, `<image>` as one token, and a chat
template that writes `USER: <image>` and `ASSISTANT:`. Any text has a faithful encoding.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vlm.types import LETTER_ANSWER, SHORT_ANSWER

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
VOCAB = 512
SPACE = "\u2581"  # the mark that SentencePiece writes for a space

_STARTS = "Is How What Which In USER: ASSISTANT:"
_WORDS = """
    there a the in picture many are red green blue yellow cyan cube cubes cylinder cylinders bin
    plate block objects object colour is on left right of above below was were moved first last seen
    with after order what then yes no 0 1 2 3 4 5 6 7 8 9 A B C D E
"""
_LETTERS = "etaoinshrdlcumwfgypbvkjxqzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?:;'\"-_()/&+%#*=@[]"
_WORD_SCORE, _LETTER_SCORE, _NEVER_SCORE = -5.0, -10.0, -1e4

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | upper + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def pieces() -> list[str]:
    """Text pieces in the order of their ids; the two standing instructions are one piece each."""
    standing = ["\n" + text.replace(" ", SPACE) for text in (SHORT_ANSWER, LETTER_ANSWER)]
    starts = [mark + word for word in _STARTS.split() for mark in ("", SPACE)]
    words = [SPACE + word for word in _WORDS.split()]
    return list(dict.fromkeys([SPACE, "\n", *standing, *starts, *words, *_LETTERS]))


def write_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`; same bytes on
    every run.

    Raises:
        ValueError: when the words do not fit into the vocabulary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = _tokenizer().to_str(pretty=True)
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    _write(folder / "special_tokens_map.json", names)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 16384}
    settings |= {"padding_side": "left", "clean_up_tokenization_spaces": False}
    # Without it transformers 4 also hands out token types, which no LLaVA decoder reads.
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    extra = {"extra_special_tokens": {"image_token": "<image>"}, "image_token": "<image>"}
    _write(folder / "tokenizer_config.json", names | settings | extra)


def _vocabulary() -> list[tuple[str, float]]:
    vocab = [(name, _NEVER_SCORE) for name in SPECIALS]
    vocab += [(f"<0x{byte:02X}>", _NEVER_SCORE) for byte in range(256)]
    for piece in pieces():
        vocab.append((piece, _LETTER_SCORE if len(piece) == 1 else _WORD_SCORE))
    room = VOCAB - len(vocab)
    if room < 0:
        raise ValueError(f"{len(vocab)} pieces do not fit into {VOCAB}: take {-room} words away")
    return vocab + [(f"<reserved_{i:03d}>", _NEVER_SCORE) for i in range(room)]


def _tokenizer() -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    tokenizer = Tokenizer(models.Unigram(_vocabulary(), unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIALS.index("<s>"))]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIALS])
    return tokenizer


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
