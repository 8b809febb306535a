"""A real Ray cluster of two nodes, from which workers and a node are taken while a sweep runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from leanvla.cli import main  # noqa: E402
from sim.rollout.pool import Pool  # noqa: E402
from sim.rollout.runner import Plan, grid, run_grid  # noqa: E402
from sim.rollout.store import EpisodeStore, read_episodes  # noqa: E402
from sim.rollout.types import Deadlines, Job, RolloutError, Source  # noqa: E402
from sim.rollout.worker import WorkerSpec  # noqa: E402
from sim.sweep.ray_pool import RayCluster, RayOptions, RayPool, _Slot  # noqa: E402

pytestmark = pytest.mark.timeout(600)  # processes start one after the other on a busy machine
FAKES = "tests.sim.fakes"
PATIENT = Deadlines(start=90.0, request=20.0, query=20.0)
CELLS = grid(["random", "vla_pruner"], [1.0, 0.25])


def spec(suite="FakeSuite", policy="FakePolicy", **options) -> WorkerSpec:
    return WorkerSpec(
        Source(f"{FAKES}:{suite}", options), Source(f"{FAKES}:{policy}"), deadlines=PATIENT
    )


@pytest.fixture(scope="module")
def cluster():
    """A head and two nodes with one processor each; sweeps connect by its address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    with RayCluster(RayOptions(cluster.address, workers=2)):
        yield cluster
    cluster.shutdown()


@pytest.fixture
def options(cluster):
    return RayOptions(cluster.address, workers=2)


def outcomes(records):
    """What an episode says apart from times: the same on every machine."""
    return {
        (r.cell, r.seed): (r.outcome, r.steps, r.kept, r.init_state_hash, r.reused_from)
        for r in records
    }


def sweep(path, spec, options, plan):
    with EpisodeStore(path) as store, RayPool(spec, options) as pool:
        run_grid(plan, pool, store)
    return read_episodes(path).records


def test_a_cluster_gives_what_local_processes_give(tmp_path, options):
    plan = Plan(CELLS, tuple(range(3)))
    records = sweep(tmp_path / "ray", spec(), options, plan)
    with EpisodeStore(tmp_path / "local") as store, Pool(spec(), 1) as pool:
        run_grid(plan, pool, store)
        assert outcomes(records) == outcomes(store)
    assert len(records) == plan.episodes


def test_the_command_sweeps_on_a_cluster(tmp_path, cluster, capsys):
    (tmp_path / "sweep.yaml").write_text(
        f"suites: [{{name: '{FAKES}:FakeSuite', label: fake}}]\n"
        f"policies: [{{name: '{FAKES}:BatchPolicy', label: walker, batch: 2}}]\n"
        "methods: [random]\nkeep: [0.25]\nseeds: 2\n"
    )
    out = tmp_path / "store"
    words = ("sweep", str(tmp_path / "sweep.yaml"), "--out", str(out), "--workers", "2")
    assert main([*words, "--ray", cluster.address]) == 0
    shown = capsys.readouterr()
    assert "fake × walker: 4 of 4 episodes" in shown.out
    assert "Ray: 3 node(s), 3 CPUs, 0 GPUs" in shown.err
    (path,) = out.glob("runs/*/episodes.jsonl")
    records = read_episodes(path).records
    assert all(set(record.batch) <= {1, 2} for record in records)


@pytest.mark.slow
@pytest.mark.gl
def test_a_real_simulator_stands_on_the_cluster(tmp_path, options):
    real = WorkerSpec(Source("tabletop"), Source("expert"), deadlines=PATIENT)
    one = options._replace(workers=1)
    (record,) = sweep(tmp_path / "real", real, one, Plan(CELLS[:1], (0,)))
    assert (record.outcome, record.render_profile) == ("success", "lowpoly")
    assert record.init_state_hash


def test_what_a_policy_raises_ends_the_sweep_in_words(tmp_path, options):
    with pytest.raises(RolloutError, match="weights are made of cheese"):
        sweep(tmp_path / "e", spec(policy="RaisingPolicy"), options, Plan(CELLS[:1], (0,)))


def test_a_node_with_other_code_is_refused(tmp_path, options, monkeypatch):
    monkeypatch.setattr("sim.sweep.identity.code_digest", lambda: "e" * 64)
    with pytest.raises(RolloutError, match=r"differs from this machine .*code: eeeeeeeeeeee…"):
        sweep(tmp_path / "e", spec(), options, Plan(CELLS[:1], (0,)))


def test_a_simulator_that_dies_is_an_error_there_too(tmp_path, options):
    faulty = spec("FaultySuite", fault="kill", seeds=[1])
    records = sweep(tmp_path / "e", faulty, options, Plan(CELLS[:1], (0, 1, 2)))
    found = {r.seed: (r.outcome, r.retries) for r in records}
    assert found == {0: ("success", 0), 1: ("error", 1), 2: ("success", 0)}


def test_environments_share_a_policy_and_nothing_else_changes(tmp_path, options):
    plan = Plan(CELLS, tuple(range(4)), block=2)
    shared = replace(spec(policy="BatchPolicy"), batch=2)
    records = sweep(tmp_path / "shared", shared, options, plan)
    with EpisodeStore(tmp_path / "local") as store, Pool(spec(), 1) as pool:
        run_grid(plan, pool, store)
        assert outcomes(records) == outcomes(store)


def test_a_lost_worker_and_a_lost_node_cost_no_episode(tmp_path, cluster, options):
    """Kill a worker, then a whole node, while episodes run: each is there once, none is missing."""
    pids = tmp_path / "pids"
    pids.mkdir()
    slow = spec("TracedSuite", pids=str(pids))
    plan, path = Plan(CELLS, tuple(range(12))), tmp_path / "episodes.jsonl"
    hit: list[str] = []
    killer = threading.Thread(target=_take_away, args=(cluster, pids, path, hit))
    killer.start()
    process, thread = time.process_time(), time.thread_time()
    records = sweep(path, slow, options._replace(workers=3), plan)
    process, thread = time.process_time() - process, time.thread_time() - thread
    killer.join()
    assert hit == ["worker", "node"]
    assert Counter((r.cell, r.seed) for r in records) == {
        (cell, seed): 1 for cell in plan.cells for seed in plan.seeds
    }
    assert {r.outcome for r in records} <= {"success", "failure"}
    assert sum(r.retries for r in records if r.reused_from is None) >= 2
    with EpisodeStore(tmp_path / "local") as store, Pool(spec(), 1) as pool:
        run_grid(plan, pool, store)
        assert outcomes(records) == outcomes(store)
    own, all_threads = (1e3 * spent / len(records) for spent in (thread, process))
    print(f"driver: {own:.2f} ms an episode in its own thread, {all_threads:.2f} ms with Ray's")
    assert thread / len(records) < 0.005


def _take_away(cluster, pids: Path, path: Path, hit: list[str]) -> None:
    _until(lambda: path.exists() and len(read_episodes(path).records) >= 6)
    simulator = int(max(pids.iterdir(), key=lambda file: file.stat().st_mtime).name)
    stat = Path(f"/proc/{simulator}/stat").read_text().rpartition(")")[2].split()
    os.kill(int(stat[1]), signal.SIGKILL)  # its parent, the worker on the cluster
    hit.append("worker")
    before = len(read_episodes(path).records)
    _until(lambda: len(read_episodes(path).records) >= before + 12)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    hit.append("node")


def _until(condition) -> None:
    end = time.monotonic() + 90
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001"])
def test_a_cluster_that_is_not_there_is_said_in_words(monkeypatch, address):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(RolloutError, match=f"no Ray cluster answers at '{address}'"):
        RayCluster(RayOptions(address)).__enter__()


class Handle:
    """An actor's handle, or the class that gives one: every call gives its own name."""

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *_: self if name == "remote" else name)

    def remote(self, *_):
        return self


@pytest.mark.parametrize(("quiet_s", "ended"), [(3.0, False), (31.0, True), (None, True)])
def test_a_silent_worker_is_ended_and_a_slow_one_is_not(monkeypatch, quiet_s, ended):
    killed = []
    fake = SimpleNamespace(
        kill=killed.append,
        get=lambda ref: quiet_s,
        wait=lambda refs, timeout: (refs if quiet_s is not None else [], []),
    )
    monkeypatch.setattr("sim.sweep.ray_pool.ray", fake)
    slot = _Slot(Handle(), ())
    slot.give(Job(CELLS[0], 0))
    for _ in range(2):  # once to ask, once to hear
        slot.listen(silence_s=30.0, patience_s=0.0)
    assert bool(killed) == ended == bool(slot.silent)
