"""Prompts, and the small tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import policy.registry
from policy.openvla.errors import CheckpointError
from policy.openvla.mini_tokenizer import (
    ACTION_BINS,
    ACTION_VOCAB,
    EMPTY_TOKEN_ID,
    TEXT_VOCAB,
    build_mini_tokenizer,
    vocabulary,
)
from policy.openvla.prompt import build_prompt, end_with_empty_token
from policy.openvla.tokenizer import PromptTokenizer
from tests.policy.tiny import CONFIGS, TEXT

CONFIG = CONFIGS["single_ar"]
SHIPPED = policy.registry.ZOO / "mini"


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return PromptTokenizer(SHIPPED, CONFIG)


def test_prompts():
    text = "In: What action should the robot take to pick up the red cube?\nOut:"
    assert build_prompt(" Pick up the RED cube ", CONFIG) == text
    v01 = build_prompt("Open it", replace(CONFIG, prompt="v01"))
    assert v01.startswith("A chat between a curious user and an artificial intelligence assistant.")
    assert v01.endswith("USER: What action should the robot take to open it? ASSISTANT:")


def test_empty_token_is_forced_once():
    llama = replace(CONFIG, empty_token_id=29871)
    assert end_with_empty_token([1, 5], llama) == [1, 5, 29871]
    assert end_with_empty_token([1, 29871], llama) == [1, 29871]
    assert end_with_empty_token([1, 5], replace(CONFIG, empty_token_id=None)) == [1, 5]


def test_shipped_files_are_what_the_builder_writes(tmp_path):
    build_mini_tokenizer(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        assert file.read_bytes() == (SHIPPED / file.name).read_bytes(), file.name


def test_words_of_other_tasks_get_pieces_and_move_no_other_id(tmp_path):
    sentences = ["pick up the Alphabet soup", "put the milk in the basket"]
    before = [name for name, _ in vocabulary()]
    after = [name for name, _ in vocabulary(sentences)]
    new = {"\u2581alphabet", "\u2581soup", "\u2581milk"}
    changed = [at for at, pair in enumerate(zip(before, after, strict=True)) if len({*pair}) > 1]
    assert {after[at] for at in changed} == new
    assert all(before[at].startswith("<reserved") for at in changed)
    file = build_mini_tokenizer(tmp_path, sentences)
    assert len(Tokenizer.from_file(str(file)).encode("pick up the alphabet soup").ids) == 6


def test_more_words_than_reserved_ids_take_those_of_words_that_are_not_said(tmp_path):
    sentences = ["push the " + " ".join(f"thing{letter}" for letter in "abcdefghijklmn")]
    names = {name for name, _ in vocabulary(sentences)}
    assert {"\u2581thinga", "\u2581thingn", "\u2581push", "\u2581What", "\u2581robot"} <= names
    with pytest.raises(ValueError, match="words of their own"):
        vocabulary([" ".join(f"w{number}" for number in range(200))])


def test_ids_have_llamas_plan(tokenizer):
    names = [name for name, _ in vocabulary()]
    assert names[:3] == ["<unk>", "<s>", "</s>"]
    assert names[3] == "<0x00>"
    assert names[EMPTY_TOKEN_ID] == "\u2581"
    assert len(names) == ACTION_VOCAB == TEXT_VOCAB + ACTION_BINS
    assert len(set(names)) == len(names)
    assert CONFIG.action_vocab == ACTION_VOCAB
    assert TEXT.vocab_size % 64 == 0


@pytest.mark.parametrize(
    "instruction",
    [
        "put the red cube in the bin",
        "stack the blue cube on the green cylinder",
        "push the yellow cylinder to the left",
        "pick up the red cylinder",
        "put the green cube on the plate",
        "push the blue cube to the right",
        "put the red cube on the block",
    ],
)
def test_instructions_of_the_suite_are_short(tokenizer, instruction):
    ids = tokenizer(instruction)
    assert ids.shape[1] <= 22
    assert ids[0, 0] == 1
    assert ids[0, -1] == EMPTY_TOKEN_ID
    prompt = build_prompt(instruction, CONFIG)
    assert not any(3 <= i < EMPTY_TOKEN_ID and i != 3 + ord("\n") for i in ids[0])
    assert tokenizer.decode(ids[0].tolist()).strip() == prompt


@given(st.text(max_size=80))
def test_any_text_comes_back_without_unk_or_action_tokens(text):
    tokenizer = PromptTokenizer(SHIPPED, CONFIG)
    ids = tokenizer.encode("a" + text)
    assert ids[0] == 1
    assert min(ids[1:]) > 2
    assert max(ids) < TEXT_VOCAB
    # SentencePiece's mark for a space reads as a space, by its own convention.
    assert tokenizer.decode(ids) == ("a" + text).replace("\u2581", " ")


@pytest.mark.parametrize(
    "text", ["</s>", "<s>", "<PAD>", "<action_003>", "<0x0A>", "<reserved_01>"]
)
def test_control_tokens_cannot_be_typed(tokenizer, text):
    ids = tokenizer.encode(text)[1:]
    assert len(ids) >= 3
    assert all(2 < i < TEXT_VOCAB for i in ids)


def test_missing_file_and_remedy(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing: fetch it again"):
        PromptTokenizer(tmp_path, CONFIG)
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(CheckpointError, match=r"only tokenizer\.model is there, convert it once"):
        PromptTokenizer(tmp_path, CONFIG)


def test_malformed_file(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer file"):
        PromptTokenizer(tmp_path, CONFIG)


def test_vocabulary_that_does_not_fit():
    small = replace(CONFIG, text=replace(TEXT, vocab_size=640))
    with pytest.raises(CheckpointError, match=r"705 tokens, text_config\.vocab_size .* is 640"):
        PromptTokenizer(SHIPPED, small)
