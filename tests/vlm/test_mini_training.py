"""What is learnt is what is saved: packed questions, coarse patches, resumed steps."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from tests.vlm.small import SMALL
from vlm.tasks.scene_qa import read_scene_set
from vlm.training.data import SceneData, split_prompt
from vlm.training.loop import Job, Trainer, fit, model_weights
from vlm.training.mini import GRID, mini_config, save_mini, write_processor
from vlm.training.objective import pool_shares, pool_tokens
from vlm.training.recipe import Recipe, Stage
from vlm.training.sequence import Asked, attention_mask, pack, prefix_positions
from vlm.training.words import SPECIALS, pieces
from vlm.types import SHORT_ANSWER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECIPE = Recipe(
    (Stage(24, 4, 2, 2e-3), Stage(12, 4, 1, 1e-3, final=0.5)),
    shares={"image": 0.7, "clip": 0.3},
    text_tokens={"image": 48, "clip": 48},
    warmup_steps=2,
)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    write_processor(folder)
    (folder / "config.json").write_text(json.dumps(mini_config().to_dict()))
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def encode(processor) -> Callable[[str], list[int]]:
    return lambda text: processor.tokenizer(text)["input_ids"]


@pytest.fixture(scope="module")
def data(squares: Path, encode) -> SceneData:
    return SceneData(read_scene_set(squares / "scene_qa" / "heldout"), encode)


def test_the_chat_template_writes_what_training_reads(processor, encode) -> None:
    for frames in (1, 3):
        question = f"Is there a red cube in the picture?\n{SHORT_ANSWER}"
        content = [{"type": "image"}] * frames + [{"type": "text", "text": question}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        prefix, rest = split_prompt(question, frames, encode)
        assert (*prefix.ids, *rest) == tuple(encode(text))
        assert len(prefix.pictures) == frames


def test_questions_are_short_and_any_text_survives(processor, encode) -> None:
    asked = split_prompt(f"Is the red cube left of the bin?\n{SHORT_ANSWER}", 1, encode)[1]
    assert len(asked) <= 14
    for text in (" yes", " red cube then blue cylinder", " Größe 日本 <3\n\tend"):
        ids = encode(text)
        assert SPECIALS.index("<unk>") not in ids
        assert processor.tokenizer.decode(ids[1:]) == text
    assert len(pieces()) == len(set(pieces()))


def test_packed_questions_are_what_each_is_alone(data, processor, encode, tmp_path) -> None:
    trainer = Trainer(Job(RECIPE, tmp_path, changes=SMALL), 1, 0, None)
    trainer.net.eval()
    save_mini(tmp_path / "m", model_weights(trainer.net.state_dict()), mini_config(**SMALL), "card")
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "m").eval()
    captured: dict[str, torch.Tensor] = {}
    trainer.net.model.lm_head.register_forward_hook(
        lambda module, args, output: captured.update(logits=output)
    )
    from PIL import Image

    for task, frames in (("image", 1), ("clip", 4)):
        rng = np.random.default_rng(0)
        sample = data.samples[task][frames][
            rng.integers(len(data.samples[task][frames]), size=1)[0]
        ]
        order = rng.permutation(len(sample.asked))
        draw = data.batch(task, frames, 1, 48, np.random.default_rng(0))
        with torch.inference_mode():
            trainer.net(*_inputs(trainer, data, task, frames))
        pictures = [Image.fromarray(picture) for picture in draw.frames[0]]
        for place, number in zip(draw.packed.first[0], order, strict=False):
            if place < 0:
                continue
            ids = (*data.prefixes[frames].ids, *sample.asked[number].question)
            alone = _alone(model, processor, pictures, ids)
            assert torch.allclose(captured["logits"][0, place], alone, atol=2e-4)


def _inputs(trainer: Trainer, data: SceneData, task: str, frames: int) -> list[torch.Tensor]:
    from vlm.training.data import Draw

    return trainer.inputs(data, Draw(task, frames, 1), np.random.default_rng(0))


def _alone(model, processor, pictures, ids) -> torch.Tensor:
    """Logits of the real class on the real processor's pictures, one question at a time."""
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    image = SPECIALS.index("<image>")
    whole = [t for i in ids for t in ([i] * GRID * GRID if i == image else [i])]
    with torch.inference_mode():
        return model(input_ids=torch.tensor([whole]), pixel_values=pixels).logits[0, -1]


def test_training_learns_goes_on_and_ends_the_same(data, tmp_path: Path) -> None:
    seen: list = []
    whole = fit(Job(RECIPE, tmp_path / "whole", changes=SMALL), data, seen.append)
    assert [p.stage for p in seen] == [1, 2]
    half = Job(RECIPE, tmp_path / "half", changes=SMALL)
    first = Trainer(half, 0, 0, None)
    half.out.mkdir()
    for _ in range(3):
        first.advance(data)
        first.step += 1
    first.save()
    resumed = load_file(fit(half, data, seen.append))
    for name, value in load_file(whole).items():
        assert torch.allclose(value, resumed[name], atol=1e-6), name


def test_the_loss_falls(data, tmp_path: Path) -> None:
    recipe = replace(RECIPE, stages=(Stage(400, 4, 2, 4e-3),), shares={"image": 1.0})
    trainer = Trainer(Job(recipe, tmp_path, changes=SMALL), 0, 0, None)
    losses = []
    for _ in range(40):
        losses.append(trainer.advance(data))
        trainer.step += 1
    for name in ("answer", "patch", "pointing"):
        values = [float(getattr(one, name)) for one in losses]
        assert np.mean(values[-8:]) < 0.85 * np.mean(values[:5]), name


def test_packing_keeps_to_its_length_and_labels_answers_alone() -> None:
    asked = [Asked((1, 2, 3), (7, 2)), Asked((4, 5), (8, 2)), Asked((6,) * 20, (9, 2))]
    packed = pack(asked, 12, 3, pad=0)
    assert packed.ids.tolist() == [1, 2, 3, 7, 2, 4, 5, 8, 2, 0, 0, 0]
    assert packed.first.tolist() == [2, 6, -1]
    learnt = {int(i): int(v) for i, v in enumerate(packed.labels) if v != -100}
    assert learnt == {2: 7, 3: 2, 6: 8, 7: 2}
    mask = attention_mask(packed.segment[None], 2)[0, 0]
    assert mask[2 + 6].nonzero()[0].tolist() == [0, 1, 7, 8]
    with pytest.raises(ValueError, match="does not fit"):
        pack(asked[2:], 12, 1, pad=0)


def test_coarse_positions_and_shares_keep_their_places(encode) -> None:
    prefix = split_prompt("What?", 2, encode)[0]
    fine, coarse = prefix_positions(prefix, GRID), prefix_positions(prefix, GRID // 2)
    assert np.array_equal(fine, np.arange(len(fine)))
    assert set(coarse) <= set(fine)
    assert len(fine) - len(coarse) == 2 * (256 - 64)
    shares = torch.rand(1, 2, 3, 256)
    pooled = pool_shares(shares, GRID // 2)
    assert torch.allclose(pooled.mean(-1), shares.mean(-1), atol=1e-6)
    assert torch.allclose(pooled[..., 0], shares[..., [0, 1, 16, 17]].mean(-1))
    tokens = torch.randn(2, 3, 256, 5)
    assert torch.equal(pool_tokens(tokens, GRID), tokens)
    last = tokens[:, :, [238, 239, 254, 255]].mean(2)
    assert torch.allclose(pool_tokens(tokens, GRID // 2)[:, :, -1], last, atol=1e-6)
