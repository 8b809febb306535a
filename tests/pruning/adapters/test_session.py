"""What a session promises, on the smallest family: restored, counted, the same in any batch."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import torch

from pruning.adapters import AdapterError, prune, supported
from pruning.adapters.families.llava import Llava
from pruning.base import MethodError
from pruning.methods.fastv import FastV
from tests.pruning.adapters.models import CASES, batch, samples

CASE = CASES["llava"]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return CASE.model()


@torch.inference_mode()
def test_everything_is_as_before_on_leaving(model: torch.nn.Module) -> None:
    inputs = batch(CASE, samples(CASE, 2))
    dense = model(**inputs).logits  # transformers sets hooks of its own on the first call
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    attributes = [set(vars(m)) for m in model.modules()]
    with prune(model, FastV(keep=0.25)) as session:
        pruned = model(**inputs).logits
        assert session.counts.calls
    session = prune(model, FastV(keep=0.25))
    with pytest.raises(RuntimeError, match="size of tensor"), session:
        model(**inputs, position_ids=torch.zeros(2, 3, dtype=torch.int64))
    assert pruned.shape == dense.shape
    assert not pruned.equal(dense)
    assert model(**inputs).logits.equal(dense)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert attributes == [set(vars(m)) for m in model.modules()]


@torch.inference_mode()
def test_keeping_everything_is_dense_bit_for_bit(model: torch.nn.Module) -> None:
    inputs = batch(CASE, samples(CASE, 2))
    dense = model(**inputs).logits
    for method in ("dense", FastV(keep=1.0)):
        with prune(model, method):
            assert model(**inputs).logits.equal(dense)


@torch.inference_mode()
def test_zero_calls_raise(model: torch.nn.Module) -> None:
    with pytest.raises(MethodError, match="never selected a token"), prune(model, "fastv", 0.25):
        model(input_ids=torch.tensor([[1, 5, 6]]))


def test_what_cannot_be_pruned_says_so(model: torch.nn.Module) -> None:
    assert "LlavaForConditionalGeneration" in supported()
    with pytest.raises(AdapterError, match=r"no adapter for Linear: supported are Llava.*adapters"):
        prune(torch.nn.Linear(1, 1), FastV(keep=0.25))
    with pytest.raises(MethodError, match="give it once"):
        prune(model, FastV(keep=0.25), keep=0.5)
    with prune(model, FastV(keep=1)):
        model(**batch(CASE, samples(CASE, 1)))
        with pytest.raises(AdapterError, match="being pruned already"):
            prune(model, FastV(keep=1)).start()


@torch.inference_mode()
def test_counts_are_those_of_every_layer(model: torch.nn.Module) -> None:
    drawn = samples(CASE, 2)
    real, visual = sum(len(one.ids) for one in drawn), sum(sum(one.views) for one in drawn)
    short = real - visual + visual // 4
    with prune(model, FastV(keep=0.25, cut=2)) as session:
        model.generate(**batch(CASE, drawn), max_new_tokens=3, do_sample=False, eos_token_id=None)
    counts = session.counts
    assert counts.tokens_in == [real] * 3 + [short] * 3
    assert counts.tokens_out == [real] * 2 + [short] * 4
    assert (counts.prefills, counts.decode_steps, counts.calls) == (1, 2, 2)  # one image, and two
    assert 0 < counts.selection_ms < 60_000


class Guest(Llava):
    models = ("Guest",)


def test_a_family_may_come_from_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("guest", "tests_of_adapters:Guest", "leanvla.adapters")
    monkeypatch.setattr("pruning.adapters.api.entry_points", lambda group: [point])
    monkeypatch.setitem(sys.modules, "tests_of_adapters", sys.modules[__name__])
    assert supported()[-1] == "Guest"
    model = CASE.model()
    model.__class__ = type("Guest", (torch.nn.Module,), {})
    assert prune(model, "fastv", 0.5).family.models == ("Guest",)


@torch.inference_mode()
def test_memory_lasts_as_long_as_the_prompt(model: torch.nn.Module) -> None:
    """Wrappers that remember do so from frame to frame of one question."""
    first, other = batch(CASE, samples(CASE, 2)), batch(CASE, samples(CASE, 2, seed=5))
    moved = {**first, "pixel_values": other["pixel_values"]}
    with prune(model, "reuse:cosine=-1+divprune", keep=0.25) as session:
        model(**first)
        kept = session.kept
        model(**moved)
        assert lists(session.kept) == lists(kept)
        model(**other)
        fresh = session.kept
    with prune(model, "divprune", keep=0.25) as session:
        model(**other)
        assert lists(session.kept) == lists(fresh)
        model(**moved)
        assert lists(session.kept) != lists(kept)


def lists(kept: list) -> list:
    return [[view.tolist() for view in row] for row in kept]


def test_nothing_heavy_is_imported() -> None:
    code = "import pruning.adapters, sys; print({'torch', 'transformers'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.parametrize("method", ["random", "zoo_prune:directions=1"])
@torch.inference_mode()
def test_a_seed_decides_what_is_drawn(model: torch.nn.Module, method: str) -> None:
    """By seed and by prefill, never by when the session was entered."""
    inputs = batch(CASE, samples(CASE, 2))

    def drawn(seed: int) -> list:
        with prune(model, method, keep=0.25, seed=seed) as session:
            return [(model(**inputs), lists(session.kept))[1] for _ in range(2)]

    again, sets = drawn(0), [drawn(seed) for seed in range(6)]
    assert sets[0] == again
    assert len({str(one) for pair in sets for one in pair}) == 12


def test_impossible_seeds_are_refused(model: torch.nn.Module) -> None:
    for seed in (-1, 0.5, True, None):
        with pytest.raises(AdapterError, match=r"seed is .*: give a whole number"):
            prune(model, "random", keep=0.25, seed=seed)
    with pytest.raises(AdapterError, match="draws by episode and query"):
        prune(Own(), "random", keep=0.25, seed=1)
    assert prune(Own(), "random", keep=0.25) is None


class Own:
    """Brings its own adapter."""

    def pruning_session(self, method: object) -> None:
        """Nothing."""
