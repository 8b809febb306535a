"""Folded embeddings: what they keep of the cosines, and what that does to the kept sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.base import MethodError
from pruning.example import example_context
from pruning.registry import make_method
from pruning.similarity import cosines
from pruning.sketch import sketch
from pruning.types import PruneContext


def clustered(tokens: int, width: int, seed: int) -> torch.Tensor:
    """Tokens as towers make them: a direction common to all, things of many patches, noise."""
    draw = torch.Generator().manual_seed(seed)
    things = torch.randn(24, width, generator=draw)
    which = torch.randint(24, (tokens,), generator=draw)
    noise = torch.randn(tokens, width, generator=draw)
    common = torch.randn(width, generator=draw)
    return (0.8 * common + things[which] + 0.5 * noise)[None]


def test_what_fits_is_left_alone_and_the_rest_is_folded_with_fixed_signs() -> None:
    features = torch.arange(12.0).reshape(1, 2, 6)
    assert sketch(features, 0) is features
    assert sketch(features, 6) is features
    folded = sketch(features, 4)
    assert folded.shape == (1, 2, 4)
    signs = torch.tensor([sketch(row.expand(1, 1, 6), 4).sum() for row in torch.eye(6)])
    assert set(signs.tolist()) == {1.0, -1.0}
    want = features * signs
    assert torch.equal(folded[..., :2], want[..., :2] + want[..., 4:])
    assert torch.equal(folded[..., 2:], want[..., 2:4])
    assert sketch(features.half(), 4).dtype == torch.float32


def test_compiled_folding_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(2, 5, 70, generator=torch.Generator().manual_seed(3))
    found = [sketch(values, 16) for values in (features, features.half())]
    monkeypatch.setattr("pruning.sketch.compiled", lambda loop: None)
    for values, folded in zip((features, features.half()), found, strict=True):
        assert torch.equal(sketch(values, 16), folded)


def test_cosines_are_off_by_what_is_promised() -> None:
    features = clustered(160, 2048, 0)
    exact = cosines(features)
    for width in (64, 256):
        error = cosines(sketch(features, width)) - exact
        promised = ((1 + exact.square()) / width).sqrt()
        upper = torch.ones_like(exact[0]).triu(1).bool()
        share = (error / promised)[0][upper]
        assert abs(share.mean()) < 0.3
        assert 0.5 < share.square().mean().sqrt() < 1.3


def _context(features: torch.Tensor, keep: int) -> PruneContext:
    from dataclasses import replace

    groups, n, width = features.shape
    return replace(
        example_context((groups, n, width), keep), features=features, tower_features=features
    )


def _least_distance(features: torch.Tensor, kept: torch.Tensor) -> float:
    alike = cosines(features[:, kept[0]])[0].numpy()
    return float(1 - alike[np.triu_indices_from(alike, 1)].max())


def test_folded_choices_are_nearly_as_diverse_and_cover_nearly_as_much() -> None:
    """The sets differ; what they were chosen for does not suffer much."""
    features = clustered(256, 4096, 1)
    ctx = _context(features, 64)
    exact = make_method("divprune", keep=64).select(ctx).kept
    folded = make_method("divprune", keep=64, sketch=256).select(ctx).kept
    lot = make_method("random", keep=64).select(ctx).kept
    assert not torch.equal(exact, folded)
    assert _least_distance(features, folded) > 0.7 * _least_distance(features, exact)
    covered = {}
    for name in ("mmtok", "mmtok:sketch=256", "random"):
        kept = make_method(name, keep=64).select(ctx).kept[0]
        covered[name] = float((cosines(features) / 0.2).softmax(-1)[0, :, kept].amax(-1).sum())
    assert covered["mmtok:sketch=256"] > 0.97 * covered["mmtok"] > covered["random"]
    assert lot.shape == folded.shape


@pytest.mark.parametrize("width", [-1, None, 2.5, True, "8"])
def test_an_impossible_width_is_refused(width: object) -> None:
    for name in ("divprune", "mmtok"):
        with pytest.raises(MethodError, match="sketch is"):
            make_method(name, keep=0.5, sketch=width)
