"""The store of a sweep: addresses, extension, mixing, merging, the table, the estimate."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import msgspec
import pytest

from engines.errors import EngineError
from sim.rollout.pool import Pool
from sim.rollout.runner import Plan, run_grid
from sim.rollout.store import EpisodeStore
from sim.rollout.types import Cell, Deadlines, EpisodeRecord, QueryTruth, RolloutError, Source
from sim.rollout.worker import WorkerSpec
from sim.suites.environment import SuiteEnvironmentError, environments
from sim.suites.libero.assets import NEEDED, VARIABLE, assets_hash
from sim.sweep import identity as identity_module
from sim.sweep.digests import CODE, file_digest, files_digest
from sim.sweep.estimate import estimate, measured_seconds
from sim.sweep.identity import differences, episode_key, identity_of, run_key
from sim.sweep.merge import merge
from sim.sweep.parquet import write_parquet
from sim.sweep.provenance import provenance_in, provenance_of
from sim.sweep.store import (
    Grid,
    MixedRunsError,
    SweepError,
    SweepStore,
    extended,
    gaps,
    ranges,
)
from sim.sweep.tasks import seeds_of
from tests.house.rules import imports, read_rooms

DENSE, RANDOM = Cell("dense", 1.0), Cell("random", 0.25)
SPEC = WorkerSpec(Source("tests.sim.fakes:FakeSuite"), Source("tests.sim.fakes:FakePolicy"))


def record(cell, seed, **more) -> EpisodeRecord:
    base = EpisodeRecord(
        seed=seed,
        method=cell.method,
        keep=cell.keep,
        outcome="success",
        init_state_hash=f"{seed:x}",
        steps=16,
        query_ms=[4.0, 5.0],
        phase_ms={"vision": [2.0, 2.5]},
        kept=[72, 72],
        seconds=2.0 if cell == DENSE else 1.0,
    )
    return msgspec.structs.replace(base, **more)


def write(folder, records, *, seeds=(0, 1), identity=None, policy="mini"):
    identity = identity or {"code": "a" * 64, "settings": {"swap_instruction": False}}
    run = SweepStore(folder).find("tabletop", policy, identity)
    run = extended(run, [Grid((DENSE, RANDOM), tuple(seeds))])
    run.write()
    with (run.folder / "episodes.jsonl").open("ab") as file:
        for each in records:
            file.write(msgspec.json.encode(each) + b"\n")
    return run


def test_an_identity_names_what_an_episode_depends_on(tmp_path, monkeypatch):
    base = identity_of(SPEC, swap=False)
    assert run_key(base) == run_key(identity_of(SPEC, swap=False))
    changed = [
        identity_of(replace(SPEC, execute=3), swap=False),
        identity_of(replace(SPEC, batch=8), swap=False),
        identity_of(replace(SPEC, threads=2), swap=False),
        identity_of(SPEC, swap=True),
        identity_of(replace(SPEC, policy=Source(SPEC.policy.name, {}, {"window": 5})), swap=False),
        identity_of(replace(SPEC, suite=Source(SPEC.suite.name, {"max_steps": 9})), swap=False),
        identity_of(replace(SPEC, policy=Source("mini")), swap=False),
    ]
    assert len({run_key(identity) for identity in (base, *changed)}) == len(changed) + 1
    carried_out = replace(SPEC, deadlines=Deadlines(1, 2, 3), log="x")
    assert identity_of(carried_out, swap=False) == base
    assert differences(base, changed[0]) == ["settings.execute: None and 3"]
    monkeypatch.setattr("sim.sweep.identity.code_digest", lambda: "b" * 64)
    assert differences(base, identity_of(SPEC, swap=False)) == [
        f"code: {base['code'][:12]}… and bbbbbbbbbbbb…"
    ]


def test_weights_count_by_what_is_loaded_and_not_by_place(tmp_path):
    names = [f"model-{n}.safetensors" for n in (1, 2)]
    index = json.dumps({"weight_map": {"a": names[0], "b": names[1]}})
    loaded = {
        **dict.fromkeys(("config.json", "tokenizer.json", "dataset_statistics.json"), "{}"),
        **dict.fromkeys([*names, "action_head--7_checkpoint.safetensors"], "weights"),
        "model.safetensors.index.json": index,
    }
    for folder in (tmp_path / "a", tmp_path / "b"):
        (folder / "graphs").mkdir(parents=True)
        for name, text in loaded.items():
            (folder / name).write_text(text)

    def policy(name):
        source = replace(SPEC, policy=Source(str(tmp_path / name)))
        return identity_of(source, swap=False, parts=("policy",))

    first = policy("a")
    for name in ("README.md", "SHA256", "graphs/vision.onnx", "tokenizer_config.json", "old.pt"):
        (tmp_path / "b" / name).write_text("what no policy reads")
    assert policy("b") == first
    for name in loaded:
        path = tmp_path / "b" / name
        path.write_text(loaded[name] + " ")
        assert policy("b") != first, name
        path.write_text(loaded[name])
    assert policy("b") == first


def fake_environment(cache, name, packages):
    """An installed environment whose interpreter says this of its packages."""
    folder = environments()[name].folder
    assert folder.is_relative_to(cache)
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "ready").touch()
    (folder / "bin" / "python").write_text(f"#!/bin/sh\necho '{json.dumps(packages)}'\n")
    (folder / "bin" / "python").chmod(0o755)


def test_a_suite_of_its_own_environment_counts_by_its_own_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path))

    def identity(name):
        return identity_of(replace(SPEC, suite=Source(name)), swap=False)

    fake_environment(tmp_path, "metaworld", {"mujoco": "3.3.0", "metaworld": "3.1.1"})
    remote, ours = identity("metaworld_mt10"), identity("tabletop")
    assert remote["suite"]["packages"] == {"mujoco": "3.3.0", "metaworld": "3.1.1"}
    assert {"mujoco", "robosuite"}.isdisjoint(remote["packages"])
    assert "packages" not in ours["suite"]
    assert {"mujoco", "robosuite"} <= set(ours["packages"])
    version = identity_module._version
    with monkeypatch.context() as patch:
        patch.setattr(
            identity_module, "_version", lambda name: "9" if name == "mujoco" else version(name)
        )
        assert identity("metaworld_mt10") == remote
        assert identity("tabletop") != ours
    fake_environment(tmp_path, "metaworld", {"mujoco": "3.3.1", "metaworld": "3.1.1"})
    assert differences(remote, identity("metaworld_mt10")) == [
        "suite.packages.mujoco: 3.3.0 and 3.3.1"
    ]


def test_a_run_says_what_it_is_made_of_as_its_identity_does(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))
    fake_environment(tmp_path, "libero", {"mujoco": "3.3.2", "robosuite": "1.4.0"})
    for name in NEEDED:
        (tmp_path / "assets" / name).mkdir(parents=True)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "assets"))
    assets_hash.cache_clear()
    spec = replace(SPEC, suite=Source("libero_goal"), policy=Source("mini"))
    found, identity = provenance_of(spec), identity_of(spec, swap=False)
    assert found["suite"]["packages"] == {"mujoco": "3.3.2", "robosuite": "1.4.0"}
    assert found["suite"]["assets"] == assets_hash(tmp_path / "assets")
    assert found["policy"]["weights"] == identity["policy"]["weights"]
    assert provenance_in(identity) == found
    assert provenance_of(SPEC) == provenance_in(identity_of(SPEC, swap=False)) == {}


def test_an_interpreter_that_does_not_tell_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path))
    fake_environment(tmp_path, "metaworld", {})
    python = environments()["metaworld"].folder / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(SuiteEnvironmentError, match=r"ended with 3.*suites install metaworld"):
        environments()["metaworld"].packages()


def test_the_code_of_an_episode_is_all_that_it_imports():
    """What the rooms of `CODE` import from `sim` is hashed with them."""
    covered = tuple(name.removesuffix(".py").replace("/", ".") for name in CODE)
    for source in read_rooms(["sim"]):
        if source.name.startswith(CODE):
            names = [name for _, name in imports(source) if name.startswith("sim.")]
            assert not [name for name in names if not name.startswith(covered)], source.name


def test_the_digest_of_a_large_file_is_remembered_and_follows_its_content(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sim.sweep.digests.LARGE_BYTES", 4)
    path = tmp_path / "weights"
    path.write_bytes(b"12345")
    first = file_digest(path)
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    note.write_text("0" * 64)
    assert file_digest(path) == "0" * 64
    path.write_bytes(b"1234567")
    assert file_digest(path) not in (first, "0" * 64)
    assert files_digest(tmp_path, [path]) != first


def test_an_episodes_address_depends_on_run_method_budget_and_seed():
    key = episode_key("r", RANDOM, 3)
    others = (("q", RANDOM, 3), ("r", DENSE, 3), ("r", Cell("random", 0.5), 3), ("r", RANDOM, 4))
    assert len({key, *(episode_key(*other) for other in others)}) == 5


def test_a_store_holds_one_configuration_of_a_suite_and_policy(tmp_path):
    write(tmp_path, [record(DENSE, 0)])
    other = {"code": "c" * 64, "settings": {"swap_instruction": False}}
    with pytest.raises(MixedRunsError, match=r"code: aaaaaaaaaaaa… and cccccccccccc…"):
        SweepStore(tmp_path).find("tabletop", "mini", other)
    assert SweepStore(tmp_path).find("tabletop", "mini-b", other).episodes() == []


def test_an_extension_asks_for_more_and_forgets_nothing(tmp_path):
    write(tmp_path, [record(DENSE, 0)], seeds=(0, 1))
    write(tmp_path, [], seeds=(0, 1))
    run = write(tmp_path, [record(RANDOM, 2)], seeds=(2, 3))
    (stored,) = SweepStore(tmp_path).runs()
    assert stored == run
    assert len(stored.file.grids) == 2
    assert len(stored.planned()) == 8
    assert stored.plan().seeds == (0, 1, 2, 3)
    assert gaps(stored, stored.episodes()) == {DENSE: [1, 2, 3], RANDOM: [0, 1, 3]}
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


def test_errors_can_be_forgotten_to_run_again(tmp_path):
    run = write(tmp_path, [record(DENSE, 0), record(DENSE, 1, outcome="error", error="lost")])
    assert run.forget_errors() == 1
    assert run.forget_errors() == 0
    assert gaps(run, run.episodes())[DENSE] == [1]


def test_a_run_file_that_was_changed_by_hand_is_refused(tmp_path):
    run = write(tmp_path, [])
    path = run.folder / "run.json"
    tree = json.loads(path.read_text())
    tree["identity"]["code"] = "d" * 64
    path.write_text(json.dumps(tree))
    with pytest.raises(SweepError, match="changed by hand"):
        SweepStore(tmp_path).runs()
    path.write_text("{")
    with pytest.raises(SweepError, match="cannot be read"):
        SweepStore(tmp_path).runs()


def test_two_sweeps_do_not_write_into_one_store(tmp_path):
    store = SweepStore(tmp_path / "store")
    with store.lock(), pytest.raises(SweepError, match="another sweep writes"), store.lock():
        pass
    with store.lock():
        pass


def test_shards_merge_into_the_whole_and_gaps_are_told(tmp_path):
    write(tmp_path / "a", [record(DENSE, 0), record(RANDOM, 0, outcome="error", error="lost")])
    write(tmp_path / "b", [record(DENSE, 0), record(RANDOM, 0), record(DENSE, 1)])
    store = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    (run,) = store.runs()
    episodes = {(r.cell, r.seed): r.outcome for r in run.episodes()}
    assert episodes == {(DENSE, 0): "success", (RANDOM, 0): "success", (DENSE, 1): "success"}
    assert gaps(run, run.episodes()) == {RANDOM: [1]}
    with pytest.raises(SweepError, match="is there already"):
        merge([tmp_path / "a"], tmp_path / "c")


def test_mixed_configurations_are_refused_with_both_sides(tmp_path):
    write(tmp_path / "a", [record(DENSE, 0)])
    other = {"code": "c" * 64, "settings": {"swap_instruction": False}}
    write(tmp_path / "b", [record(DENSE, 1)], identity=other)
    with pytest.raises(MixedRunsError, match="code: aaaaaaaaaaaa… and cccccccccccc…") as caught:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert str(tmp_path / "a") in str(caught.value)
    assert str(tmp_path / "b") in str(caught.value)
    assert not (tmp_path / "c").exists()


def test_machines_that_disagree_are_refused(tmp_path):
    write(tmp_path / "a", [record(DENSE, 0)])
    write(tmp_path / "b", [record(DENSE, 0, outcome="failure", steps=40)])
    with pytest.raises(SweepError, match=r"success after 16 steps.*failure after 40"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    write(tmp_path / "d", [record(RANDOM, 0, init_state_hash="ff")])
    with pytest.raises(RolloutError, match="seed 0 began differently"):
        merge([tmp_path / "a", tmp_path / "d"], tmp_path / "c")


def test_other_policies_and_suites_merge_side_by_side(tmp_path):
    write(tmp_path / "a", [record(DENSE, 0)])
    write(tmp_path / "b", [record(DENSE, 0)], policy="expert")
    assert len(merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c").runs()) == 2


def test_the_table_has_every_field_of_every_episode(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    run = write(
        tmp_path,
        [
            record(DENSE, 0),
            record(RANDOM, 1, batch=[2, 2], truth=[QueryTruth("reach", {"goal": [1]}, {})]),
        ],
    )
    assert write_parquet(tmp_path / "episodes.parquet", [run]) == 2
    rows = parquet.read_table(tmp_path / "episodes.parquet").to_pylist()
    assert {"key", "run", "suite", "policy", *EpisodeRecord.__struct_fields__} == set(rows[0])
    assert rows[0]["key"] == episode_key(run.file.key, DENSE, 0)
    assert (rows[0]["seed"], rows[0]["query_ms"], rows[0]["batch"]) == (0, [4.0, 5.0], [])
    assert rows[1]["phase_ms"] == [("vision", [2.0, 2.5])]
    assert rows[0]["truth"] is None
    assert json.loads(rows[1]["truth"])[0]["phase"] == "reach"
    assert write_parquet(tmp_path / "none.parquet", []) == 0


def test_an_estimate_rests_on_what_was_measured():
    records = [record(DENSE, 0), record(RANDOM, 0), record(DENSE, 1, outcome="error", seconds=99)]
    records.append(record(Cell("random", 1.0), 0, reused_from="dense", seconds=99))
    measured = measured_seconds(records)
    assert estimate([DENSE, DENSE, RANDOM], measured) == (5.0, 2, 0)
    assert estimate([Cell("fastv", 0.5)], measured) == (1.5, 2, 1)
    assert estimate([DENSE], {}).seconds is None


def test_tasks_choose_seeds():
    assert seeds_of("libero_object", range(25), [0, 3]) == (0, 3, 10, 13, 20, 23)
    soup = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    assert seeds_of("libero_object", range(25), [soup, 3]) == (0, 3, 10, 13, 20, 23)
    assert seeds_of("tabletop", range(3), ()) == (0, 1, 2)
    assert len(seeds_of("tabletop", range(48), ["push"])) == 16
    assert seeds_of("robosuite_pick_place", range(9), ["bread"]) == (1, 5)
    assert seeds_of("metaworld_mt10", range(12), ["reach", "push"]) == (0, 1, 10, 11)
    with pytest.raises(ValueError, match=r"no task 'fetch': choose from pick, put, stack, push"):
        seeds_of("tabletop", range(3), ["fetch"])
    with pytest.raises(ValueError, match=r"no task 'breed', did you mean 'bread'\? choose from"):
        seeds_of("robosuite_pick_place", range(9), ["breed"])
    with pytest.raises(ValueError, match=rf"did you mean '{soup}'\? choose from 0 to 9, or names"):
        seeds_of("libero_object", range(9), [soup.replace("soup", "soap")])
    with pytest.raises(ValueError, match=r"no task 10: choose from 0 to 9, or names"):
        seeds_of("libero_object", range(9), [10])
    with pytest.raises(ValueError, match="no task 0: choose"):
        seeds_of("robosuite_pick_place", range(9), [0])
    with pytest.raises(ValueError, match="leave `tasks` out"):
        seeds_of("a:B", range(3), [1])
    with pytest.raises(ValueError, match="no seed from 0 to 1"):
        seeds_of("libero_object", range(2), [9])


@pytest.mark.alone
def test_the_driver_costs_little_per_episode(tmp_path):
    """Handing out, listening to every query, storing and syncing; five milliseconds are the bar."""
    plan = Plan((DENSE,), tuple(range(40)), swap=True)
    with EpisodeStore(tmp_path / "episodes.jsonl") as store, Pool(SPEC, 1) as pool:
        run_grid(replace(plan, seeds=(100,)), pool, store)
        began = time.process_time()
        run_grid(plan, pool, store)
        spent = time.process_time() - began
        assert sum(len(each.query_ms) for each in store) >= 400
    assert spent / plan.episodes < 0.005


def test_an_engine_counts_by_what_runs_of_it(tmp_path):
    """Its name and its ledger do not; a checkpoint on torch and on an engine are two addresses."""
    from tests.engines.plain import write_plain

    write_plain(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    ledger = json.loads((tmp_path / "b" / "engine.json").read_text())
    (tmp_path / "b" / "engine.json").write_text(json.dumps(ledger | {"rebuild": "other words"}))

    def policy(source):
        return identity_of(replace(SPEC, policy=source), swap=False, parts=("policy",))

    def on_engine(name):
        return policy(Source("mini", engines={DENSE: str(tmp_path / name)}))

    assert policy(Source(str(tmp_path / "a"))) == policy(Source(str(tmp_path / "b")))
    assert on_engine("a") == on_engine("b")
    assert run_key(on_engine("a")) != run_key(policy(Source("mini")))
    (tmp_path / "b" / "large.onnx").write_bytes(b"other")
    with pytest.raises(EngineError, match=r"large\.onnx has 5 bytes"):
        on_engine("b")
