"""Batches as they come: videos, beams, text-only rows, several sizes, long conversations."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from pruning.adapters import AdapterError, prune
from pruning.adapters.layout import Span, lay_out
from pruning.registry import make_method
from pruning.types import BudgetError
from tests.pruning.adapters.models import (
    CASES,
    IMAGE,
    VIDEO,
    Drawn,
    batch,
    draw_onevision_video,
    draw_qwen_video,
    samples,
    words,
)
from tests.pruning.adapters.peer import best, full_attention, view_slots

GREEDY = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
FASTV = make_method("fastv", keep=0.25, cut=2)


@pytest.fixture(scope="module")
def llava() -> Any:
    return CASES["llava"].model()


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("llava_onevision", draw_onevision_video),
        ("qwen2_vl", draw_qwen_video),
        ("qwen2_5_vl", draw_qwen_video),
    ],
)
@torch.inference_mode()
def test_a_frame_of_a_video_is_a_view(name: str, draw: Any) -> None:
    case = CASES[name]._replace(draw=draw)
    model, drawn = case.model(), samples(case, 2)
    inputs = batch(case, drawn)
    views = view_slots(drawn, inputs, (IMAGE, VIDEO))
    with prune(model, FASTV) as session:
        model(**inputs)
    attention = full_attention(model, inputs, 1)
    theirs = best(attention, inputs["attention_mask"], views, 0.25, "last")
    assert [[view.tolist() for view in sample] for sample in session.kept] == theirs
    with prune(model, "mmtok", keep=0.5) as session:  # the tower is seen by frame, too
        model.generate(**inputs, **GREEDY)
    assert [[len(view) for view in sample] for sample in session.kept] == [
        [n // 2 for n in one.views] for one in drawn
    ]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "smolvlm"])
@torch.inference_mode()
def test_beams_keep_what_one_sample_keeps(name: str) -> None:
    """Pictures are encoded once and samples repeated afterwards, or the other way round."""
    case = CASES[name]
    model, drawn = case.model(), samples(case, 2)
    inputs = batch(case, drawn)
    with prune(model, FASTV) as session:
        model(**inputs)
        alone = session.kept
        beams = model.generate(**inputs, **{**GREEDY, "num_beams": 2})
    assert beams.shape[0] == 2
    repeated = [view.tolist() for row in session.kept[::2] for view in row]
    assert repeated == [view.tolist() for row in alone for view in row]
    with prune(model, "visionzip", keep=0.25) as session:
        model.generate(**inputs, **{**GREEDY, "num_beams": 2})
    assert [v.tolist() for v in session.kept[0]] == [v.tolist() for v in session.kept[1]]


@pytest.mark.parametrize("method", ["fastv", "vla_pruner", "prumerge", "sparsevlm", "visionzip"])
@torch.inference_mode()
def test_neighbours_and_padding_change_nothing(llava: Any, method: str) -> None:
    case = CASES["llava"]
    drawn = samples(case, 3)
    kept, logits = [], []
    for one in drawn:
        with prune(llava, method, keep=0.25) as session:
            logits.append(llava(**batch(case, [one])).logits[0])
        kept += session.kept
    for side in ("left", "right"):
        inputs = batch(case, drawn, side)
        with prune(llava, method, keep=0.25) as session:
            together = llava(**inputs).logits
        assert all(
            mine.equal(other)
            for a, b in zip(session.kept, kept, strict=True)
            for mine, other in zip(a, b, strict=True)
        )
        for row, mask, alone in zip(together, inputs["attention_mask"], logits, strict=True):
            torch.testing.assert_close(row[mask.bool()][-1], alone[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llava", "paligemma"])
@torch.inference_mode()
def test_eager_attention_agrees(name: str) -> None:
    """Masks are numbers to add there; padded, ragged, and without padding."""
    case = CASES[name]
    model = case.model()
    for rows in (1, 3):
        inputs = batch(case, samples(case, rows))
        answers = []
        for attention in ("sdpa", "eager"):
            model.set_attn_implementation(attention)
            with prune(model, FASTV):
                logits = model(**inputs).logits[inputs["attention_mask"].bool()]
                answers.append((logits, model.generate(**inputs, **GREEDY)))
        torch.testing.assert_close(answers[0][0], answers[1][0], atol=1e-4, rtol=1e-4)
        assert answers[0][1].equal(answers[1][1])


@torch.inference_mode()
def test_a_row_without_pictures_is_left_alone(llava: Any) -> None:
    case, g = CASES["llava"], torch.Generator().manual_seed(3)
    text = Drawn([1, *words(g, 8)], {}, [])
    inputs = batch(case, [samples(case, 1)[0], text])
    dense = llava(**inputs).logits
    with prune(llava, FASTV) as session:
        pruned = llava(**inputs).logits
    assert [len(row) for row in session.kept] == [1, 0]
    torch.testing.assert_close(pruned[1, -9:], dense[1, -9:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cut", [0, 2])
@torch.inference_mode()
def test_conversations_go_on_on_a_pruned_cache(llava: Any, cut: int) -> None:
    """A question on a filled cache is what it would have been in the first prompt."""
    case, g = CASES["llava"], torch.Generator().manual_seed(4)
    drawn = samples(case, 2)
    first = batch(case, drawn)
    more = torch.tensor([words(g, 3), words(g, 3)])
    method = make_method("uniform", keep=0.25, cut=cut)
    with prune(llava, method):
        ids = torch.cat([first["input_ids"], more], 1)
        mask = torch.cat([first["attention_mask"], torch.ones_like(more)], 1)
        whole = llava(**{**first, "input_ids": ids, "attention_mask": mask}).logits[:, -3:]
        cache = llava(**first).past_key_values
        for _ in range(2):  # a prefix that is used again
            own = copy.deepcopy(cache)
            later = llava(input_ids=more, attention_mask=mask, past_key_values=own).logits
            torch.testing.assert_close(later, whole, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_what_a_cache_cannot_do_is_refused(llava: Any) -> None:
    case = CASES["llava"]
    inputs = batch(case, samples(case, 1))
    with prune(llava, FASTV):
        cache = llava(**inputs).past_key_values
        with pytest.raises(AdapterError, match="filled already"):
            llava(**inputs, past_key_values=cache)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :-2], layer.values[:, :, :-2]
        longer = torch.ones(1, inputs["input_ids"].shape[1] + 1, dtype=torch.int64)
        with pytest.raises(AdapterError, match="cannot be cropped"):
            llava(input_ids=longer[:, :1], attention_mask=longer, past_key_values=cache)
        with pytest.raises(AdapterError, match="static"):
            llava.generate(**inputs, **GREEDY, cache_implementation="static")


@torch.inference_mode()
def test_bad_inputs_are_named(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["llava"]
    inputs = batch(case, samples(case, 1))
    with pytest.raises(BudgetError, match="a view has only"), prune(llava, "fastv", keep=17):
        llava(**inputs)
    ends = [1, 5, *[IMAGE] * 16]
    pictures_last = batch(case, [Drawn(ends, samples(case, 1)[0].pictures, [16])])
    with pytest.raises(AdapterError, match="no text behind"), prune(llava, "sparsevlm", keep=0.5):
        llava(**pictures_last)
    with prune(llava, FASTV):
        llava(**pictures_last)  # the last row is a visual one, and reads itself
    config = llava.model.language_model.config
    monkeypatch.setattr(config, "_attn_implementation", "flash_attention_2")
    with pytest.raises(AdapterError, match="attn_implementation='sdpa'"):
        prune(llava, FASTV)


def test_pictures_that_do_not_fit_the_prompt() -> None:
    real = torch.ones(2, 6, dtype=torch.bool).numpy()
    mask = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]]).bool().numpy()
    rows = lay_out(real, [(mask, [Span(2), Span(2)])])
    assert [row.runs[1].first for row in rows] == [1, 2]
    assert [row.text for row in rows] == [3, 2]
    assert lay_out(real, [(mask, [Span(2)])])[1].views[0].offset == 0  # beams
    for spans in ([Span(3)], [Span(4)], []):
        with pytest.raises(AdapterError, match="picture"):
            lay_out(real, [(mask, spans)])
    apart = torch.tensor([[1, 0, 1, 0, 0, 0], [0] * 6]).bool().numpy()
    with pytest.raises(AdapterError, match="side by side"):
        lay_out(real, [(apart, [Span(2)])])
