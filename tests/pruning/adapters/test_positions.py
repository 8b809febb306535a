"""Survivors numbered anew: as if the tokens that left had never been there, from the cut on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruning.adapters import AdapterError, prune
from pruning.adapters.api import family_of
from pruning.registry import make_method
from tests.pruning.adapters.models import CASES, IMAGE, VIDEO, batch, samples
from tests.pruning.adapters.peer import hidden_from, view_slots
from tests.pruning.adapters.test_peer import left

CUT, KEEP = 2, 0.25
HOW = {
    "max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "output_logits": True,
    "return_dict_in_generate": True,
}  # fmt: skip


@pytest.fixture(scope="module", params=[name for name in CASES if "qwen" not in name])
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


@pytest.fixture(scope="module")
def model(case: Any) -> Any:
    return case.model()


@pytest.fixture(scope="module")
def llava() -> Any:
    return CASES["llava"].model()


@pytest.mark.parametrize("side", ["left", "right"])
@torch.inference_mode()
def test_logits_agree_with_the_peer(case: Any, model: Any, side: str) -> None:
    drawn = samples(case, 3)
    inputs = batch(case, drawn, side)
    with prune(model, make_method("fastv", keep=KEEP, cut=CUT), positions="repack") as session:
        ours = model(**inputs).logits
    gone = gone_of(session, drawn, inputs)
    with hidden_from(model, CUT, gone, renumber=True):
        theirs = model(**inputs, use_cache=False).logits
    lives = inputs["attention_mask"].bool().clone()
    for at, slots in enumerate(gone):
        lives[at, slots] = False
    torch.testing.assert_close(ours[lives], theirs[lives], atol=1e-4, rtol=1e-4)
    with prune(model, make_method("fastv", keep=KEEP, cut=CUT)):
        assert not torch.allclose(model(**inputs).logits[lives], ours[lives], atol=1e-3)


@pytest.mark.parametrize("cut", [CUT, 0])
@torch.inference_mode()
def test_decode_goes_on_behind_the_last_survivor(case: Any, model: Any, cut: int) -> None:
    drawn = samples(case, 3, seed=1)
    inputs = batch(case, drawn)
    method = make_method("fastv" if cut else "divprune", keep=KEEP, cut=cut)
    with prune(model, method, positions="repack") as session:
        ours = model.generate(**inputs, **HOW)
    with hidden_from(model, cut, gone_of(session, drawn, inputs), renumber=True):
        theirs = model.generate(**inputs, **HOW)
    assert ours.sequences.equal(theirs.sequences)
    for mine, other in zip(ours.logits, theirs.logits, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["transprune", "schedule+prefill_mean", "vla_pruner", "tokenselect"]
)
@torch.inference_mode()
def test_later_cuts_and_memory_see_the_new_numbers(llava: Any, name: str) -> None:
    """Neighbours and padding change nothing: numbers are counted by sample."""
    case = CASES["llava"]
    drawn, alone = samples(case, 3), []
    for one in drawn:
        with prune(llava, name, keep=KEEP, positions="repack") as session:
            alone.append((llava(**batch(case, [one])).logits[0, -1], session.kept[0]))
    inputs = batch(case, drawn)
    with prune(llava, name, keep=KEEP, positions="repack") as session:
        logits = llava(**inputs).logits[:, -1]
    for row, kept, (mine, own) in zip(logits, session.kept, alone, strict=True):
        assert [view.tolist() for view in kept] == [view.tolist() for view in own]
        torch.testing.assert_close(row, mine, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_before_the_decoder_it_is_a_shorter_prompt(llava: Any) -> None:
    """At cut 0 the decoder alone, on the survivors' embeddings, gives the same."""
    case = CASES["llava"]
    drawn = samples(case, 1)
    inputs, family = batch(case, drawn), family_of(llava)
    decoder, seen = family.decoder(family.core(llava)), []
    hook = decoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with prune(llava, "divprune", keep=KEEP, positions="repack") as session:
        ours = llava(**inputs).logits[0, -1]
    hook.remove()
    stays = torch.ones(seen[0].shape[1], dtype=torch.bool)
    stays[gone_of(session, drawn, inputs)[0]] = False
    hidden = decoder(inputs_embeds=seen[0][:, stays]).last_hidden_state
    torch.testing.assert_close(ours, llava.lm_head(hidden)[0, -1], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_keeping_everything_changes_nothing(llava: Any) -> None:
    inputs = batch(CASES["llava"], samples(CASES["llava"], 2))
    real, answers = inputs["attention_mask"].bool(), []
    dense = llava(**inputs).logits[real]
    for positions in ("keep", "repack"):
        with prune(llava, "fastv", keep=16, positions=positions) as session:
            torch.testing.assert_close(llava(**inputs).logits[real], dense, atol=1e-5, rtol=1e-5)
            answers.append(llava.generate(**inputs, **HOW))
        assert session.counts.calls
    assert answers[0].sequences.equal(answers[1].sequences)
    for kept, packed in zip(answers[0].logits, answers[1].logits, strict=True):
        assert kept.equal(packed)


def test_what_cannot_be_numbered_anew_says_so(llava: Any) -> None:
    with pytest.raises(AdapterError, match="positions is 'pack': give 'keep' or 'repack'"):
        prune(llava, "fastv", keep=KEEP, positions="pack")
    with pytest.raises(AdapterError, match="numbers time, height and width"):
        prune(CASES["qwen2_vl"].model(), "fastv", keep=KEEP, positions="repack")
    rotary = family_of(llava).decoder(family_of(llava).core(llava)).rotary_emb
    kind, rotary.rope_type = rotary.rope_type, "dynamic"
    with pytest.raises(AdapterError, match="depend on the length"):
        prune(llava, "fastv", keep=KEEP, positions="repack")
    rotary.rope_type = kind


def gone_of(session: Any, drawn: list, inputs: dict[str, Any]) -> list[torch.Tensor]:
    kept = [[view.tolist() for view in sample] for sample in session.kept]
    return left(view_slots(drawn, inputs, (IMAGE, VIDEO)), kept)
