"""A training run that is cut and resumed ends, to the bit, where an uncut one ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from policy.training import loop
from policy.training.data import Sampler
from policy.training.loop import Job, fit
from policy.training.recipe import Recipe, Stage
from policy.training.standing import NAME, StandingError, read_standing
from tests.policy.test_training import TINY, make_data

if TYPE_CHECKING:
    from pathlib import Path

    from policy.training.loop import Progress

RECIPE = Recipe(
    "tiny", (Stage(24, 4, 8, 1, 1e-3), Stage(24, 4, 4, 1, 1e-3, final=0.5)), warmup_steps=2
)


class CutError(Exception):
    """Stands for a power cut."""


def train(out: Path, cut_at: int | None = None, **fields: object) -> dict[str, torch.Tensor]:
    """Train at two steps a report; stop at the report of this number."""
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == cut_at:
            raise CutError

    job = Job(TINY, RECIPE, out, compile=False, **fields)  # type: ignore[arg-type]
    return load_file(fit(job, make_data(), report))


@pytest.fixture(autouse=True)
def _short_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "REPORT_EVERY", 2)


@pytest.mark.parametrize("cut_at", [1, 2, 4, 5])
def test_a_resumed_run_ends_where_an_uncut_one_does(tmp_path: Path, cut_at: int) -> None:
    """The cut falls inside the first stage, at its very end, and inside the second."""
    whole = train(tmp_path / "whole")
    with pytest.raises(CutError):
        train(tmp_path / "cut", cut_at)
    resumed = train(tmp_path / "cut", resume=True)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    # The report itself was the cut: only its own line is there to be written again.
    assert len(lines[1]) == len(lines[0])


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    train(tmp_path)
    before = (tmp_path / NAME).read_bytes()
    train(tmp_path, cut_at=1, resume=True)
    assert (tmp_path / NAME).read_bytes() == before
    # A later part of the run begins at its own first step, an earlier one is over.
    with pytest.raises(CutError):
        train(tmp_path, cut_at=1, resume=True, part=1)
    assert read_standing(tmp_path) == (1, 0, 2, 1)
    train(tmp_path, cut_at=1, resume=True, part=0)


def test_other_workers_and_damage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CutError):
        train(tmp_path, cut_at=1)
    with pytest.raises(StandingError, match=r"trained by 1 processes: go on with `--workers 1`"):
        train(tmp_path, resume=True, workers=2)
    (tmp_path / NAME).write_bytes(b"\x08\0\0\0\0\0\0\0{notjson")
    with pytest.raises(StandingError, match="damaged"):
        train(tmp_path, resume=True)


def test_skipped_batches_are_those_not_drawn() -> None:
    one, other = (Sampler(make_data(), batch=3, chunk=2, seed=5) for _ in range(2))
    for _ in range(4):
        one.draw()
    other.skip(4)
    assert (one.draw().proprio == other.draw().proprio).all()


def test_two_processes_share_every_step(tmp_path: Path) -> None:
    alone, shared = train(tmp_path / "one"), train(tmp_path / "two", workers=2)
    assert read_standing(tmp_path / "two") == (0, 2, 0, 2)
    # Half the steps of twice the batch: other weights than one process makes, of the same shapes.
    assert alone.keys() == shared.keys()
    assert any(not torch.equal(value, shared[name]) for name, value in alone.items())
