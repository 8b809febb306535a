"""What methods are shown, against whole attention matrices and the models' own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruning.adapters import prune
from pruning.adapters.api import family_of
from pruning.adapters.tower import PatchTower
from pruning.types import PruneContext
from tests.pruning.adapters.models import CASES, IMAGE, VIDEO, batch, samples
from tests.pruning.adapters.peer import by_head, full_attention, view_slots
from tests.pruning.adapters.spy import MET, Spy

CUT = 2
PACKED = ("llava_next", "llava_onevision")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


@pytest.fixture(scope="module")
def model(case: Any) -> Any:
    return case.model()


def shown(case: Any, model: Any, rows: int = 1) -> tuple[list[PruneContext], dict, list]:
    wants = MET - {"project"} if case.name in PACKED else MET
    drawn = samples(case, rows, seed=2)
    inputs = batch(case, drawn)
    spy = Spy(keep=0.5, cut=CUT, wants=wants)
    with prune(model, spy):
        model(**inputs)
    return spy.seen, inputs, view_slots(drawn, inputs, (IMAGE, VIDEO))


@torch.inference_mode()
def test_attention_is_that_of_the_whole_matrix(case: Any, model: Any) -> None:
    seen, inputs, views = shown(case, model)
    ctx, columns = seen[0], torch.stack(views[0])
    below, above = (full_attention(model, inputs, layer)[0] for layer in (CUT - 1, CUT))
    text = torch.arange(int(columns.max()) + 1, len(below))
    close = {"atol": 1e-5, "rtol": 1e-4}
    for kind, rows in {"last": text[-1:], "text": text, "prefill": slice(None)}.items():
        theirs = below[rows].mean(0)[columns]
        torch.testing.assert_close(ctx.attention[kind], theirs, **close)
    torch.testing.assert_close(ctx.attention["text_next"], above[text].mean(0)[columns], **close)
    rows = torch.stack([below[text][:, slots] for slots in columns])
    torch.testing.assert_close(ctx.text_rows, rows, **close)
    mass = torch.stack([below[slots][:, text].sum(-1).mean() for slots in columns])
    torch.testing.assert_close(ctx.text_mass, mass, **close)
    logits = ctx.heads.q @ ctx.heads.k.repeat_interleave(2, 1).mT * 8**-0.5
    matrices = by_head(model, inputs, CUT - 1)[0][:, text]
    theirs = torch.stack([matrices[:, :, slots] for slots in columns])  # a view's keys alone
    torch.testing.assert_close(
        logits.softmax(-1), theirs / theirs.sum(-1, keepdim=True), atol=1e-4, rtol=1e-3
    )


@torch.inference_mode()
def test_towers_are_seen_token_by_token(case: Any, model: Any) -> None:
    """The projector gives back the decoder's embeddings: order, merging and windows are right."""
    contexts, _, _ = shown(case, model, rows=2)
    for ctx in contexts:
        assert ctx.tower_features.shape[:2] == ctx.features.shape[:2] == ctx.tower_keys.shape[:2]
        mean = ctx.attention["tower_mean"]
        assert mean.shape == ctx.features.shape[:2]
        assert (mean >= 0).all()
        assert float(mean.sum()) > 0
        if case.name in PACKED:
            assert ctx.project is None
            continue
        ours = ctx.project(ctx.tower_features)
        scale = (ours / ctx.features).median()  # one version scales PaliGemma's features later
        torch.testing.assert_close(ours, ctx.features * scale, atol=1e-4, rtol=1e-3)
        assert scale > 0.9


@torch.inference_mode()
def test_patches_join_as_the_projector_joins_them(case: Any, model: Any) -> None:
    family = family_of(model)
    tower = family.tower(family.core(model))
    if not isinstance(tower, PatchTower) or tower.merge == 1:
        pytest.skip("a token per patch, or patches side by side")
    hidden = []
    vision = getattr(family.core(model), "vision_tower", None) or family.core(model).vision_model
    handles = []
    tower.listen(handles.append)
    handles.append(vision.register_forward_hook(lambda m, a, out: hidden.append(out[0])))
    model(**batch(case, samples(case, 1)), use_cache=False)
    for handle in handles:
        handle.remove()
    patches = hidden[0][:, tower.prefix :]
    parts = tower.taken["features"].unflatten(-1, (-1, patches.shape[-1]))
    torch.testing.assert_close(tower._joined(patches), parts.mean(2), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_class_token_looks_at_patches() -> None:
    """LLaVA's tower against its own matrices, at the block behind which features are taken."""
    case = CASES["llava"]
    model = case.model()
    contexts, inputs, _ = shown(case, model)
    vision = model.model.vision_tower
    vision.set_attn_implementation("eager")
    matrices = vision(inputs["pixel_values"], output_attentions=True).attentions
    matrix = matrices[model.config.vision_feature_layer][0].mean(0)
    close = {"atol": 1e-5, "rtol": 1e-4}
    attention = contexts[0].attention
    torch.testing.assert_close(attention["tower_cls"][0], matrix[0, 1:], **close)
    torch.testing.assert_close(attention["tower_mean"][0], matrix[1:, 1:].mean(0), **close)
