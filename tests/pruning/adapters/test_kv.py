"""Elected slots inside real classes, against a second implementation on full attention matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pruning.adapters import AdapterError
from pruning.adapters.kv import NAME, select_kv
from pruning.base import MethodError
from pruning.kv_select import KVSelect, kv_select_named
from tests.pruning.adapters.models import CASES, batch, samples

CAUSAL = [name for name in CASES if not name.startswith("paligemma")]
SMALL = KVSelect(sinks=2, most=5, newest=4, cosine=2.0)
SLOW = "slow_kv_select"


@pytest.fixture(scope="module")
def llava() -> Any:
    return CASES["llava"].model()


def slow_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Row by row in float64: who may be seen, a softmax over them, everything else is 0."""
    q, k, v = (x.double().numpy() for x in (query, key, value))
    b, h, rows, _ = q.shape
    slots, group = k.shape[2], h // k.shape[1]
    out = np.zeros((b, rows, h, v.shape[-1]))
    first = rows % SMALL.newest or min(SMALL.newest, rows)
    for row in range(rows):
        turn = 0 if row < first else (row - first) // SMALL.newest + 1
        start = 0 if turn == 0 else first + (turn - 1) * SMALL.newest
        end = min(rows, first + turn * SMALL.newest)
        seen = slots - rows + end
        for one in range(b):
            allowed = set(range(seen))
            if seen > SMALL.sinks + SMALL.most + SMALL.newest:
                vote = np.zeros(seen - SMALL.newest - SMALL.sinks)
                for head in range(h):
                    mean = q[one, head, start:end].mean(0)
                    logits = k[one, head // group, SMALL.sinks : seen - SMALL.newest] @ mean
                    vote += np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
                best = np.argsort(-vote, kind="stable")[: SMALL.most] + SMALL.sinks
                allowed = {*range(SMALL.sinks), *best, *range(seen - SMALL.newest, seen)}
            allowed &= set(range(slots - rows + row + 1))
            columns = sorted(allowed)
            for head in range(h):
                logits = k[one, head // group, columns] @ q[one, head, row] * scaling
                share = np.exp(logits - logits.max())
                out[one, row, head] = share / share.sum() @ v[one, head // group, columns]
    return torch.from_numpy(out).to(query.dtype), None


def slowly(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(SLOW, slow_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(SLOW, eager_mask)
    config = select_kv(model, SMALL)._config
    before, config._attn_implementation = config._attn_implementation, SLOW
    try:
        return model(**inputs).logits
    finally:
        config._attn_implementation = before


@pytest.mark.parametrize("name", CAUSAL)
@torch.inference_mode()
def test_logits_agree_with_full_matrices_on_every_family(name: str) -> None:
    case = CASES[name]
    model = case.model()
    inputs = batch(case, samples(case, 1))
    dense = model(**inputs).logits
    with select_kv(model, SMALL) as session:
        elected = model(**inputs).logits
    assert torch.allclose(elected, slowly(model, inputs), atol=1e-4)
    assert not torch.allclose(elected, dense, atol=1e-3)
    assert torch.equal(model(**inputs).logits, dense)
    assert session.counts.elections > 0
    assert session.counts.attended_share < 1


@torch.inference_mode()
def test_decoding_elects_for_every_token_and_a_standing_election_is_reused(llava: Any) -> None:
    inputs = batch(CASES["llava"], samples(CASES["llava"], 1))
    words = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    with select_kv(llava, SMALL) as fresh:
        llava.generate(**inputs, **words)
    with select_kv(llava, KVSelect(2, 5, 4, cosine=-1.0)) as standing:
        llava.generate(**inputs, **words)
    layers = len(llava.model.language_model.layers)
    assert fresh.counts.queries == standing.counts.queries
    assert fresh.counts.reused == 0
    assert standing.counts.elections - standing.counts.reused == layers  # one each, then it stands


@torch.inference_mode()
def test_what_fits_is_dense_and_refused_and_leaving_restores(llava: Any) -> None:
    inputs = batch(CASES["llava"], samples(CASES["llava"], 1))
    dense = llava(**inputs).logits
    config = llava.model.language_model.config
    before = config._attn_implementation
    session = select_kv(llava, KVSelect(most=0.25))
    slots = dense.shape[1]
    with pytest.raises(MethodError, match=f"nothing was elected.* the {slots} of"), session:
        elected = llava(**inputs).logits
    assert torch.allclose(elected, dense, atol=1e-5)
    assert (session.counts.elections, session.counts.longest) == (0, slots)
    assert config._attn_implementation == before
    assert session.counts.attended_share == 1
    with pytest.raises(RuntimeError, match=NAME), select_kv(llava, SMALL):
        raise RuntimeError(config._attn_implementation)
    assert config._attn_implementation == before
    assert torch.equal(llava(**inputs).logits, dense)


@torch.inference_mode()
def test_what_cannot_be_elected_is_refused(llava: Any) -> None:
    with pytest.raises(AdapterError, match="sees all of itself"):
        select_kv(CASES["paligemma"].model(), SMALL)
    with pytest.raises(AdapterError, match="no adapter"):
        select_kv(torch.nn.Linear(1, 1), SMALL)
    with pytest.raises(MethodError, match="give 1 or more"):
        select_kv(llava, KVSelect(newest=0))
    with pytest.raises(MethodError, match="no query"), select_kv(llava, SMALL):
        pass
    inputs = batch(CASES["llava"], samples(CASES["llava"], 1))
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][:, 0] = 0
    with pytest.raises(AdapterError, match="padding"), select_kv(llava, SMALL):
        llava(**inputs)
    with select_kv(llava, SMALL):
        with pytest.raises(AdapterError, match="already"), select_kv(llava, SMALL):
            pass
        llava(**batch(CASES["llava"], samples(CASES["llava"], 1)))


def test_a_name_has_options_and_its_budget_is_a_share_or_a_count() -> None:
    assert kv_select_named("kv_select:sinks=4:newest=32", 0.25) == KVSelect(4, 0.25, 32)
    assert KVSelect(most=0.25).count(1000) == 250
    assert KVSelect(most=7).count(1000) == 7
    for spec in ("kv_select:most=3", "kv_select:sinks", "kv_select:newest=x"):
        with pytest.raises(MethodError, match="of kv_select"):
            kv_select_named(spec, 0.25)
    for most in (0, -1, 0.0, 1.5, float("nan")):
        with pytest.raises(MethodError, match="most"):
            KVSelect(most=most)
