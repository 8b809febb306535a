"""Policies from one checkpoint hold one network between them."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from policy.openvla import shared
from policy.openvla.checkpoint import save_checkpoint
from policy.registry import load_policy
from tests.policy.tiny import CONFIGS, random_tensors, write_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "tiny", "single_ar")
    return tmp_path / "tiny"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders whose weights were read, in order."""
    read, load = [], shared.load_tensors
    monkeypatch.setattr(
        shared, "load_tensors", lambda path, **kw: read.append(path) or load(path, **kw)
    )
    return read


def test_a_grid_of_methods_reads_the_weights_once(folder: Path, loads: list[Path]) -> None:
    cells = [("dense", None), ("random", 0.5), ("vla_pruner", 0.25), ("vla_pruner", 0.5)]
    policies = [load_policy(folder, method=method, keep=keep) for method, keep in cells]
    assert len(loads) == 1
    assert len({id(policy.runtime.model) for policy in policies}) == 1
    assert len({id(policy.pruner) for policy in policies}) == len(cells)
    assert not any(p.requires_grad for p in policies[0].runtime.model.parameters())


def test_the_path_may_be_spelled_otherwise(
    folder: Path, loads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    held = load_policy(folder), load_policy("tiny")
    assert len(loads) == 1
    assert held[0].runtime.model is held[1].runtime.model


def test_another_type_is_another_network(folder: Path) -> None:
    full, half = load_policy(folder), load_policy(folder, dtype="bfloat16")
    assert (full.dtype, half.dtype) == (torch.float32, torch.bfloat16)


def test_new_weights_in_the_same_folder_are_read(folder: Path, loads: list[Path]) -> None:
    before = load_policy(folder)
    tensors = random_tensors(CONFIGS["single_ar"], seed=1)
    side = [path for path in folder.iterdir() if "token" in path.name]
    save_checkpoint(folder, CONFIGS["single_ar"], tensors, side)
    after = load_policy(folder)
    assert len(loads) == 2
    key = "language_model.lm_head.weight"
    assert torch.equal(after.runtime.model.state_dict()[key], tensors[key])
    assert not torch.equal(before.runtime.model.state_dict()[key], tensors[key])


def test_a_network_goes_with_its_last_policy(folder: Path, loads: list[Path]) -> None:
    held = [load_policy(folder), load_policy(folder)]
    del held[0]
    held.append(load_policy(folder))
    assert len(loads) == 1
    held.clear()
    gc.collect()
    load_policy(folder)
    assert len(loads) == 2
