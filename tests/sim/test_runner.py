from __future__ import annotations

import msgspec
import pytest

from pruning.ceiling import speedup_ceiling
from sim.metrics import IdlePrunerError, check_pruners_ran, summarise
from sim.rollout.pool import Pool
from sim.rollout.runner import (
    Plan,
    choose_overlays,
    choose_videos,
    grid,
    record_episodes,
    run_grid,
)
from sim.rollout.store import EpisodeStore
from sim.rollout.types import Cell, Deadlines, Done, EpisodeRecord, Job, RolloutError, Source
from sim.rollout.worker import WorkerSpec

DENSE = Cell("dense", 1.0)
FAKES = "tests.sim.fakes"


class Instant:
    """A pool that answers at once, and remembers what it was asked for."""

    def __init__(self, answer=None, stop_after=None):
        self.asked: list[Job] = []
        self.answer, self.stop_after = answer or plain, stop_after

    def run(self, jobs):
        for job in jobs:
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(job)
            yield Done(self.answer(job))


def plain(job, **more) -> EpisodeRecord:
    kept = round(288 * job.cell.keep)
    above = 6.0 * (kept + 40) / 328
    base = EpisodeRecord(
        seed=job.seed,
        method=job.cell.method,
        keep=job.cell.keep,
        outcome="success",
        task="pick" if job.seed % 2 else "push",
        init_state_hash=f"{job.seed:x}",
        steps=16,
        query_ms=[4.0 + above] * 4,
        phase_ms={"vision": [2.0] * 4, "prefill_above": [above] * 4},
        visual_tokens=288,
        kept=[kept] * 4,
        sequence_tokens=328,
        kept_sequence_tokens=[kept + 40] * 4,
        seconds=2.0,
    )
    return msgspec.structs.replace(base, **more)


@pytest.fixture
def store(tmp_path):
    with EpisodeStore(tmp_path / "episodes.jsonl") as store:
        yield store


def metrics_of(plan, store):
    return {
        (run["method"], run["keep"]): run
        for run in summarise(plan, store, suite="fake", policy="fake")["runs"]
    }


def test_dense_runs_once_and_first():
    cells = grid(["random", "dense", "vla_pruner"], [1.0, 0.25])
    assert cells == (
        DENSE,
        Cell("random", 1.0),
        Cell("random", 0.25),
        Cell("vla_pruner", 1.0),
        Cell("vla_pruner", 0.25),
    )
    assert grid(["dense"], [0.25]) == (DENSE,)


def test_jobs_run_seed_by_seed_and_full_budgets_reuse_dense(store):
    plan = Plan(grid(["dense", "random"], [1.0, 0.5]), (3, 4))
    pool = Instant()
    run_grid(plan, pool, store)
    assert [(job.cell.method, job.cell.keep, job.seed) for job in pool.asked] == [
        ("dense", 1.0, 3),
        ("random", 0.5, 3),
        ("dense", 1.0, 4),
        ("random", 0.5, 4),
    ]
    copy = store.get(Cell("random", 1.0), 3)
    assert copy.reused_from == "dense"
    assert copy.query_ms == store.get(DENSE, 3).query_ms
    assert len(store) == plan.episodes == 6
    assert metrics_of(plan, store)["random", 1.0]["reused_from"] == "dense"


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3, 5])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, stop_after):
    plan, path = Plan(grid(["random"], [1.0, 0.5]), tuple(range(4))), tmp_path / "episodes.jsonl"
    first, second = Instant(stop_after=stop_after), Instant()
    with EpisodeStore(path) as store, pytest.raises(KeyboardInterrupt):
        run_grid(plan, first, store)
    with EpisodeStore(path) as store:
        run_grid(plan, second, store)
        assert len(store) == plan.episodes
    assert len(first.asked) + len(second.asked) == 8
    assert not set(first.asked) & set(second.asked)


def test_a_copy_that_an_interrupt_prevented_is_made_on_resume(store):
    plan = Plan(grid(["random"], [1.0]), (0,))
    store.append(plain(Job(DENSE, 0)))
    pool = Instant()
    run_grid(plan, pool, store)
    assert pool.asked == []
    assert store.get(Cell("random", 1.0), 0).reused_from == "dense"


def test_a_suite_that_does_not_repeat_a_seed_is_refused(store):
    def answer(job):
        return plain(job, init_state_hash=f"{job.cell} {job.seed}")

    plan = Plan(grid(["random"], [0.5]), (0, 1))
    with pytest.raises(RolloutError, match=r"seed 0 began differently in dense .* random @ 0.5"):
        run_grid(plan, Instant(answer), store)


def test_the_same_holds_against_episodes_of_an_earlier_run(store):
    store.append(plain(Job(DENSE, 0), init_state_hash="other"))
    with pytest.raises(RolloutError, match="seed 0 began differently"):
        run_grid(Plan(grid(["random"], [0.5]), (0,)), Instant(), store)


def test_errors_are_no_failures_and_leave_the_pairs(store):
    def answer(job):
        if job.cell.pruned and job.seed == 0:
            return EpisodeRecord(job.seed, job.cell.method, job.cell.keep, "error", error="lost")
        return plain(job, outcome="failure" if job.cell.pruned and job.seed == 1 else "success")

    plan = Plan(grid(["random"], [0.25]), tuple(range(10)))
    run_grid(plan, Instant(answer), store)
    run = metrics_of(plan, store)["random", 0.25]
    assert (run["episodes"], run["successes"], run["failures"], run["errors"]) == (10, 8, 1, 1)
    assert run["success_rate"] == pytest.approx(8 / 9)
    paired = run["paired_difference_to_dense"]
    assert paired["n"] == 9
    assert paired["difference"] == pytest.approx(-1 / 9)
    assert (paired["gained"], paired["lost"]) == (0, 1)


def test_the_ceiling_is_amdahls(store):
    plan = Plan(grid(["random"], [0.25]), (0, 1, 2))
    run_grid(plan, Instant(), store)
    run = metrics_of(plan, store)["random", 0.25]
    assert run["speedup_ceiling"] == pytest.approx(10.0 / (4.0 + 6.0 * (72 + 40) / 328))
    assert run["speedup_p50"] == pytest.approx(run["speedup_ceiling"])
    assert run["tokens"] == {"visual": 288, "kept": 72}
    assert run["pruner"] == {"calls": 12, "dense_warmup_calls": 0}
    assert run["steps_per_s"] == pytest.approx(8.0)
    assert run["dense_query_latency_ms"]["p50"] == pytest.approx(10.0)
    assert speedup_ceiling(10.0, 0.0, 0.25) == 1.0
    assert speedup_ceiling(10.0, 8.0, 0.0) == pytest.approx(5.0)


def test_the_ceiling_of_a_cut_elsewhere_counts_all_layers(store):
    """A mean length over the layers, against all of the dense prefill: 1 ms below and 6 above."""
    plan = Plan(grid(["divprune"], [0.25]), (0,))

    def answer(job):
        phases = {"vision": [3.0] * 4, "prefill_below": [1.0] * 4, "prefill_above": [6.0] * 4}
        if not job.cell.pruned:
            return plain(job, phase_ms=phases, layer_sequence_tokens=[328.0] * 4)
        return plain(job, layer_sequence_tokens=[112.0] * 4)

    run_grid(plan, Instant(answer), store)
    run = metrics_of(plan, store)["divprune", 0.25]
    assert run["speedup_ceiling"] == pytest.approx(10.0 / (3.0 + 7.0 * 112 / 328))


def test_the_ceiling_of_a_policy_that_tells_no_lengths_is_unknown(store):
    plan = Plan(grid(["random"], [0.25]), (0,))
    silent = {"sequence_tokens": 0, "kept_sequence_tokens": [0] * 4}
    run_grid(plan, Instant(lambda job: plain(job, **silent)), store)
    runs = metrics_of(plan, store)
    assert runs["random", 0.25]["speedup_ceiling"] is None
    assert runs["dense", 1.0]["speedup_ceiling"] == 1.0


def test_warmup_queries_are_counted_and_not_taken_for_pruning(store):
    def answer(job):
        if not job.cell.pruned:
            return plain(job)
        lengths = {"kept": [288, 72, 72, 72], "kept_sequence_tokens": [328, 112, 112, 112]}
        return plain(job, warmup=[0], **lengths)

    plan = Plan(grid(["vla_pruner"], [0.25]), (0, 1))
    run_grid(plan, Instant(answer), store)
    run = metrics_of(plan, store)["vla_pruner", 0.25]
    assert run["pruner"] == {"calls": 6, "dense_warmup_calls": 2}
    assert run["tokens"]["kept"] == 72
    assert run["speedup_ceiling"] == pytest.approx(10.0 / (4.0 + 6.0 * 112 / 328))


def test_families_are_reported_apart(store):
    plan = Plan(grid(["dense"], []), tuple(range(5)))
    run_grid(
        plan,
        Instant(lambda job: plain(job, outcome="failure" if job.seed == 1 else "success")),
        store,
    )
    tasks = metrics_of(plan, store)["dense", 1.0]["tasks"]
    assert {task: (t["successes"], t["episodes"]) for task, t in tasks.items()} == {
        "pick": (1, 2),
        "push": (3, 3),
    }


def test_a_pruner_that_never_ran_is_refused(store):
    plan = Plan(grid(["random", "vla_pruner"], [0.5]), (0,))

    def answer(job):
        lazy = {"kept": [288] * 4, "kept_sequence_tokens": [328] * 4}
        return plain(job, **(lazy if job.cell.method == "random" else {}))

    run_grid(plan, Instant(answer), store)
    metrics = summarise(plan, store, suite="fake", policy="fake")
    with pytest.raises(IdlePrunerError, match=r"never ran in random @ 0.5:"):
        check_pruners_ran(metrics)


def test_full_budgets_and_lost_cells_are_not_idle_pruners(store):
    def answer(job):
        if job.cell.pruned:
            return EpisodeRecord(job.seed, job.cell.method, job.cell.keep, "error", error="lost")
        return plain(job)

    plan = Plan(grid(["random"], [1.0, 0.5]), (0,))
    run_grid(plan, Instant(answer), store)
    check_pruners_ran(summarise(plan, store, suite="fake", policy="fake"))


def test_videos_show_a_success_and_a_failure_of_the_most_pruned_first(store):
    plan = Plan(grid(["random"], [0.5, 0.25]), tuple(range(4)))
    worst = {1: "failure", 2: "failure"}

    def answer(job):
        return plain(job, outcome=worst.get(job.seed, "success") if job.cell.pruned else "success")

    run_grid(plan, Instant(answer), store)
    chosen = choose_videos(plan, store, 4)
    assert [(r.cell.keep, r.seed, r.outcome) for r in chosen] == [
        (0.25, 0, "success"),
        (0.25, 1, "failure"),
        (0.5, 0, "success"),
        (0.5, 1, "failure"),
    ]
    assert len(choose_videos(plan, store, 99)) == 5
    assert choose_videos(plan, store, 0) == []


def test_overlays_show_every_method_on_one_seed(store):
    def answer(job):
        if job.cell.method == "random" and job.seed == 0:
            return EpisodeRecord(0, "random", job.cell.keep, "error", error="lost")
        return plain(job)

    plan = Plan(grid(["random", "uniform"], [0.5, 0.25]), (0, 1))
    run_grid(plan, Instant(answer), store)
    chosen = choose_overlays(plan, store)
    assert [(r.method, r.keep, r.seed) for r in chosen] == [
        ("random", 0.25, 1),
        ("uniform", 0.25, 1),
    ]


def test_a_real_grid_repeats_itself_and_films_what_it_measured(tmp_path):
    """Real processes: two runs agree to the bit, and so does the film of an episode."""
    spec = WorkerSpec(
        Source(f"{FAKES}:FakeSuite"), Source(f"{FAKES}:FakePolicy"), deadlines=Deadlines(20, 5, 5)
    )
    plan = Plan(grid(["random", "vla_pruner"], [1.0, 0.25]), tuple(range(4)))
    runs = []
    for name in ("a", "b"):
        with Pool(spec, 2) as pool, EpisodeStore(tmp_path / name) as store:
            run_grid(plan, pool, store)
            check_pruners_ran(summarise(plan, store, suite="fake", policy="fake"))
            runs.append({(r.cell, r.seed): msgspec.structs.replace(r, seconds=0) for r in store})
            chosen = choose_videos(plan, store, 4)
            films = record_episodes(plan, pool, chosen, size=32)
    assert runs[0] == runs[1]
    assert [(f.record.cell, f.record.seed, f.record.outcome, f.record.steps) for f in films] == [
        (r.cell, r.seed, r.outcome, r.steps) for r in chosen
    ]


def test_a_forgetful_suite_is_caught_in_a_real_run(tmp_path):
    spec = WorkerSpec(Source(f"{FAKES}:ForgetfulSuite"), Source(f"{FAKES}:FakePolicy"))
    plan = Plan(grid(["random"], [0.25]), (0,))
    with (
        Pool(spec, 1) as pool,
        EpisodeStore(tmp_path / "episodes.jsonl") as store,
        pytest.raises(RolloutError, match="does not repeat a seed"),
    ):
        run_grid(plan, pool, store)
