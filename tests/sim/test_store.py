from __future__ import annotations

import json

import pytest

from sim.rollout.store import EpisodeStore
from sim.rollout.types import Cell, EpisodeRecord, RolloutError


def record(seed: int, **more) -> EpisodeRecord:
    base = {"method": "random", "keep": 0.25, "outcome": "success", "query_ms": [1.5, 2.5]}
    return EpisodeRecord(seed=seed, **{**base, **more})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "episodes.jsonl"


def fill(path, seeds=(0, 1, 2)):
    with EpisodeStore(path) as store:
        for seed in seeds:
            store.append(record(seed))


def test_what_is_appended_is_read_again(path):
    with EpisodeStore(path) as store:
        store.append(record(3, phase_ms={"vision": [1.0, 2.0]}, kept=[36, 36], error=None))
        on_disk = path.read_text()  # before closing: every episode is flushed
    assert json.loads(on_disk)["phase_ms"] == {"vision": [1.0, 2.0]}
    with EpisodeStore(path) as again:
        assert again.notice is None
        assert again.get(Cell("random", 0.25), 3) == record(
            3, phase_ms={"vision": [1.0, 2.0]}, kept=[36, 36]
        )


@pytest.mark.parametrize("cut", [1, 2, 10, 40])
def test_a_torn_last_line_is_dropped_with_a_notice(path, cut):
    fill(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with EpisodeStore(path) as store:
        assert "torn" in store.notice
        assert [r.seed for r in store] == [0, 1]
        store.append(record(2))
    assert path.read_bytes() == whole


def test_a_last_line_of_garbage_is_dropped_too(path):
    fill(path)
    path.write_bytes(path.read_bytes() + b"\x00\x00\x00\n")
    with EpisodeStore(path) as store:
        assert store.notice
        assert len(store) == 3


@pytest.mark.parametrize("bad", [b"{]\n", b'{"seed": 1}\n', b'{"seed": "x", "method": 1}\n', b"\n"])
def test_a_damaged_line_inside_is_refused_by_number(path, bad):
    fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + bad + lines[2])
    with pytest.raises(RolloutError, match=r"line 2 is damaged"):
        EpisodeStore(path)


def test_an_unknown_outcome_is_damage(path):
    fill(path)
    text = path.read_text().replace("success", "sucess", 1)
    path.write_text(text)
    with pytest.raises(RolloutError, match="line 1"):
        EpisodeStore(path)


def test_the_same_episode_twice_is_refused(path):
    fill(path, [5])
    with EpisodeStore(path) as store, pytest.raises(RolloutError, match=r"seed 5 is already"):
        store.append(record(5))


def test_cells_are_told_apart_and_sorted_by_seed(path):
    with EpisodeStore(path) as store:
        for seed in (4, 1):
            store.append(record(seed))
        store.append(record(1, keep=0.5))
        assert [r.seed for r in store.of(Cell("random", 0.25))] == [1, 4]
        assert (Cell("random", 0.5), 1) in store
        assert (Cell("random", 0.5), 4) not in store
