from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from policy.openvla.config import load_config
from policy.openvla.macs import query_macs
from policy.registry import resolve_policy
from sim.analysis.cells import cell_rows, mean_macs, method_budgets, to_dense
from sim.analysis.pairs import compare_folders
from sim.analysis.runs import ResultsError, read_run, run_folders
from sim.analysis.setups import setup_differences
from sim.analysis.study import DENSE_CELL, put_together
from sim.rollout.types import Cell
from tests.sim.analysis.makers import column, episode, write_run

FASTV = Cell("fastv", 0.25)
DENSE = column([True] * 20)
PRUNED = column([i >= 12 for i in range(20)], "fastv", 0.25)


def studies(*folders):
    return put_together(read_run(folder) for folder in folders)


def test_a_run_is_read_and_never_written(tmp_path):
    folder = write_run(tmp_path / "a", DENSE + PRUNED)
    with (folder / "episodes.jsonl").open("ab") as file:
        file.write(b'{"seed": 99, "meth')  # torn by a power cut
    before = (folder / "episodes.jsonl").read_bytes()
    (study,) = studies(folder)
    assert study.cells == (DENSE_CELL, FASTV)
    assert len(study.of(FASTV)) == 20
    assert (folder / "episodes.jsonl").read_bytes() == before
    assert str(study.setup) == "mini on tabletop"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "episodes.jsonl").write_text("{}\n{}\n"), "line 1 is damaged"),
        (lambda f: (f / "episodes.jsonl").write_text(""), "no finished episode"),
        (lambda f: (f / "config.yaml").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.yaml").unlink(), "nothing says which suite"),
    ],
)
def test_bad_folders_are_named(tmp_path, spoil, words):
    folder = write_run(tmp_path / "a", DENSE)
    spoil(folder)
    with pytest.raises(ResultsError, match=words):
        read_run(folder)


def test_a_sweeps_store_stands_for_its_runs(tmp_path):
    for name in ("a", "b"):
        folder = write_run(tmp_path / "store" / "runs" / name, DENSE)
        (folder / "run.json").write_text(json.dumps({"key": f"{name * 64}", "grids": []}))
    runs = run_folders(tmp_path / "store")
    assert [path.name for path in runs] == ["a", "b"]
    one, _ = studies(*runs)  # other weights or code: never put together
    assert str(one.setup) == "mini on tabletop (run aaaaaaaaaaaa)"
    assert run_folders(runs[0]) == [runs[0]]
    with pytest.raises(ResultsError, match=r"has no episodes\.jsonl, nor runs of a sweep"):
        run_folders(tmp_path)


def test_folders_of_one_setup_are_one_study_and_others_stay_apart(tmp_path):
    more = [episode(seed, True) for seed in range(20, 30)]
    one = write_run(tmp_path / "a", DENSE + PRUNED)
    same = write_run(tmp_path / "b", more, commit="def")
    other = write_run(tmp_path / "c", DENSE, execute=8)
    together, apart = studies(one, same, other)
    assert len(together.judged(DENSE_CELL)) == 30
    assert any("code of 2 commits" in notice for notice in together.notices)
    assert any(
        "dense's 30 seeds" in notice and "fastv @ 0.25 (10)" in notice
        for notice in together.notices
    )
    assert str(apart.setup) == "mini on tabletop (execute 8)"


def made_of(weights, assets):
    return {"policy": {"weights": weights * 64}, "suite": {"assets": assets * 64, "packages": {}}}


def test_what_is_seen_and_what_it_is_made_of_keep_runs_apart(tmp_path):
    """Retrained weights under one name, other meshes, another camera, a perturbation."""
    more = [episode(seed, True) for seed in range(20, 30)]
    runs = [
        write_run(tmp_path / "a", DENSE, env=made_of("a", "b")),
        write_run(tmp_path / "b", more, env=made_of("a", "b"), views="", perturb=""),
        write_run(tmp_path / "c", DENSE, env=made_of("c", "b")),
        write_run(tmp_path / "d", DENSE, env=made_of("a", "d")),
        write_run(tmp_path / "e", DENSE, env=made_of("a", "b"), views="front"),
        write_run(tmp_path / "f", DENSE, env=made_of("a", "b"), perturb="camera:0.05"),
    ]
    found = studies(*runs)
    assert [len(study.folders) for study in found] == [2, 1, 1, 1, 1]
    assert [str(study.setup) for study in found[:2]] == [
        "mini on tabletop (weights aaaaaaaaaaaa, assets bbbbbbbbbbbb)",
        "mini on tabletop (weights cccccccccccc, assets bbbbbbbbbbbb)",
    ]
    assert "views front" in str(found[3].setup)
    assert "perturb camera:0.05" in str(found[4].setup)
    assert not any("do not say" in notice for study in found for notice in study.notices)


def test_an_older_run_that_does_not_say_its_weights_is_read_and_told(tmp_path):
    old = write_run(tmp_path / "a", DENSE)
    new = write_run(tmp_path / "b", PRUNED, env={"policy": {"weights": "a" * 64}})
    (alone,) = studies(old)
    assert not any("do not say" in notice for notice in alone.notices)
    older, newer = studies(old, new)
    assert str(older.setup) == "mini on tabletop"
    assert older.notices[0] == (
        "these runs do not say of which weights they are; others of mini on tabletop do, and are "
        "not put together with them"
    )
    assert not any("do not say" in notice for notice in newer.notices)


def test_an_episode_that_is_there_twice_counts_once_and_is_told(tmp_path):
    again = [replace(DENSE[0], steps=7), *DENSE[1:5]]
    (study,) = studies(write_run(tmp_path / "a", DENSE), write_run(tmp_path / "b", again))
    assert len(study.judged(DENSE_CELL)) == 20
    assert study.judged(DENSE_CELL)[0].steps == 40
    assert any("5 episodes were there already" in n and "1 of them" in n for n in study.notices)


def test_an_error_gives_way_to_a_judged_episode(tmp_path):
    lost = [episode(0, False, outcome="error", init_state_hash="")]
    (study,) = studies(write_run(tmp_path / "a", lost), write_run(tmp_path / "b", DENSE))
    assert study.judged(DENSE_CELL)[0].outcome == "success"


def test_another_initial_state_refuses(tmp_path):
    moved = column([True] * 20, init_state_hash="elsewhere")
    with pytest.raises(ResultsError, match="seed 0 began from another initial state"):
        studies(write_run(tmp_path / "a", DENSE), write_run(tmp_path / "b", moved))


def test_cells_are_compared_with_dense_as_one_family(tmp_path):
    rest = column([True] * 20, "fastv", 0.5)
    (study,) = studies(write_run(tmp_path / "a", DENSE + PRUNED + rest))
    half, quarter = to_dense(study)
    assert (half.verdict, quarter.verdict) == ("no difference shown", "worse")
    assert quarter.paired.difference == pytest.approx(-0.6)
    assert quarter.p_holm == pytest.approx(2 * quarter.paired.p_value)
    rows = cell_rows(study, None)
    assert [row["comparison"] and row["comparison"]["verdict"] for row in rows] == [
        None,
        "no difference shown",
        "worse",
    ]
    assert rows[0]["macs"] is None
    ten = method_budgets(study)["fastv"][2]
    assert 72 < ten.tokens < 144


def test_an_interval_alone_gives_no_verdict(tmp_path):
    """Five of twenty lost: Newcombe leaves zero out, McNemar's exact p is 0.06."""
    lost = column([i >= 5 for i in range(20)], "fastv", 0.25)
    same = [replace(r, keep=keep) for keep in (0.5, 0.125) for r in column([True] * 20, "fastv")]
    (study,) = studies(write_run(tmp_path / "a", DENSE + lost + same))
    found = {one.treatment: one for one in to_dense(study)}["fastv @ 0.25"]
    assert found.paired.ci95.high < 0
    assert (found.verdict, found.family) == ("no difference shown", 3)
    assert found.p_holm == pytest.approx(3 * 2 / 2**5)


def test_speed_is_compared_within_a_folder(tmp_path):
    """Dense was measured twice, once on a machine half as fast: that must cancel."""
    slow = [replace(r, query_ms=[2 * ms for ms in r.query_ms]) for r in DENSE]
    pruned = [replace(r, query_ms=[30.0] * 4) for r in PRUNED]
    (study,) = studies(write_run(tmp_path / "a", DENSE), write_run(tmp_path / "b", slow + pruned))
    row = cell_rows(study, None)[1]
    assert row["dense_query_latency_ms"]["p50"] == 60.0
    assert row["speedup_p50"] == pytest.approx(2.0)


def test_measured_macs_are_those_of_the_planned_query():
    config = load_config(resolve_policy("mini"))
    planned = query_macs(config, cut=2, kept_per_view=36)
    views, tokens = len(config.views), config.tokens_per_view
    full = views * tokens + 20 + bool(config.proprio_dim) + config.chunk * config.dof + 1
    short, layers = full - views * (tokens - 36), config.text.num_hidden_layers
    mean = (2 * full + (layers - 2) * short) / layers
    told = {"sequence_tokens": full, "kept_sequence_tokens": [short], "kept": [72]}
    record = episode(0, True, **told, layer_sequence_tokens=[round(mean, 2)])
    assert mean_macs([record], config) == pytest.approx(planned.total, rel=1e-4)
    assert mean_macs([replace(record, layer_sequence_tokens=[0.0])], config) is None


def test_pairs_need_seeds_and_hashes_in_common(tmp_path):
    one = read_run(write_run(tmp_path / "a", DENSE + PRUNED))
    apart = read_run(write_run(tmp_path / "b", [episode(s, True) for s in range(50, 60)]))
    moved = read_run(write_run(tmp_path / "c", column([True] * 20, init_state_hash="elsewhere")))
    nameless = read_run(write_run(tmp_path / "d", column([True] * 20, init_state_hash="")))
    with pytest.raises(ResultsError, match="no seed in common"):
        compare_folders(one, apart)
    for other in (moved, nameless):
        with pytest.raises(ResultsError, match="are not paired: seed 0"):
            compare_folders(one, other)
    with pytest.raises(ResultsError, match=r"no judged episode of random @ 0\.5"):
        compare_folders(one, one, (FASTV, Cell("random", 0.5)))


def test_folders_are_compared_cell_by_cell_or_as_named(tmp_path):
    better = column([True] * 18, "fastv", 0.25)
    other = column([i >= 6 for i in range(20)], "random", 0.5)
    one = read_run(write_run(tmp_path / "a", DENSE + better))
    two = read_run(write_run(tmp_path / "b", DENSE + PRUNED))
    three = read_run(write_run(tmp_path / "c", DENSE + other))
    dense, fastv = compare_folders(one, two)
    assert dense.paired.difference == 0
    assert (fastv.verdict, fastv.paired.n, fastv.unpaired) == ("better", 18, 2)
    assert fastv.bootstrap.low > 0
    _, mixed = compare_folders(one, three)  # one pruned cell each: by those
    assert (mixed.treatment, mixed.reference) == ("fastv @ 0.25", "random @ 0.5")
    (named,) = compare_folders(two, two, (FASTV, DENSE_CELL))
    assert named.verdict == "worse"


def test_setups_that_are_compared_differ_in_what_is_listed(tmp_path):
    one = read_run(write_run(tmp_path / "a", column([True] * 3, engine="onnxruntime cpu fp32")))
    config = {"engine": "torch", "seed": 9, "out": "elsewhere", "render_profile": "lowpoly"}
    two = write_run(tmp_path / "b", column([True] * 3, render_profile="full"), **config)
    machine = {"cpu_model": "Abacus", "git_commit": "def", "packages": {"numpy": "2.0"}}
    machine["suite"] = {"assets": "a" * 64, "packages": {"robosuite": "1.4.1"}}
    (two / "env.json").write_text(json.dumps(machine))
    (two / "run.json").write_text(json.dumps({"identity": {"policy": {"weights": "f" * 64}}}))
    assert {tuple(found) for found in setup_differences(one, read_run(two))} == {
        ("engine", "not told", "torch"),
        ("render_profile", "not told", "lowpoly"),
        ("ran on", "onnxruntime cpu fp32", "not told"),
        ("drawn", "lowpoly", "full"),
        ("suite assets", "not told", "a" * 12),
        ("policy weights", "not told", "f" * 12),
        ("suite packages robosuite", "not told", "1.4.1"),
        ("git_commit", "abc", "def"),
        ("packages numpy", "not told", "2.0"),
    }
    assert setup_differences(one, one) == []
