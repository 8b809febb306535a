from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from sim.rollout.pool import Pool
from sim.rollout.types import Cell, Deadlines, Job, RolloutError, Source
from sim.rollout.worker import WorkerSpec

DENSE = Cell("dense", 1.0)
FAKES = "tests.sim.fakes"
QUICK = Deadlines(start=20.0, request=1.0, query=1.0)


def spec(suite="FakeSuite", policy="FakePolicy", deadlines=QUICK, **options) -> WorkerSpec:
    name = policy if policy == "expert" else f"{FAKES}:{policy}"
    return WorkerSpec(Source(f"{FAKES}:{suite}", options), Source(name), deadlines=deadlines)


def run(spec, seeds, workers=2, cells=(DENSE,), **job):
    with Pool(spec, workers) as pool:
        done = list(pool.run(Job(cell, seed, **job) for seed in seeds for cell in cells))
    return {(d.record.cell, d.record.seed): d.record for d in done}


def test_every_job_comes_back_once_whatever_the_number_of_workers():
    cells = (DENSE, Cell("random", 0.25))
    one, two = run(spec(), range(6), 1, cells), run(spec(), range(6), 2, cells)
    assert set(one) == {(cell, seed) for cell in cells for seed in range(6)} == set(two)
    for key, record in one.items():
        assert record.outcome == two[key].outcome
        assert record.steps == two[key].steps


def test_a_record_tells_what_happened():
    record = run(spec(), [1])[DENSE, 1]
    assert (record.task, record.instruction) == ("right", "go to the right")
    assert record.outcome == "success"
    assert record.render_profile == "fast"
    assert record.spoken is None
    assert len(record.query_ms) == len(record.kept) == len(record.phase_ms["vision"]) == 3
    assert record.steps == 6  # two steps are executed of each chunk of four
    assert record.retries == 0
    assert record.error is None
    assert record.seconds > 0


def test_execute_overrules_the_policy():
    base = spec()
    whole = WorkerSpec(base.suite, base.policy, execute=4, deadlines=QUICK)
    record = run(whole, [1])[DENSE, 1]
    assert record.outcome == "success"
    assert len(record.query_ms) == 2


def test_a_swapped_instruction_is_spoken_but_not_judged():
    record = run(spec(), [1], swap=True)[DENSE, 1]
    assert record.instruction == "go to the right"
    assert record.spoken == "go to the left"
    assert record.outcome == "failure"
    assert record.wrong_object
    assert record.steps == 40  # the suite's own limit


def test_the_expert_needs_no_policy():
    record = run(spec(policy="expert"), [1])[DENSE, 1]
    assert record.outcome == "success"
    assert len(record.query_ms) == record.steps == 3
    assert record.kept == [0] * 3


def test_a_recording_shows_every_second_step_and_what_was_kept():
    with Pool(spec(), 1) as pool:
        (done,) = pool.run([Job(Cell("random", 0.25), 3, film=64)])
    film = done.recording
    assert film.views == ("front", "wrist")
    assert film.view_tokens == 144
    assert film.frames_per_s == 10.0
    assert [frame.step for frame in film.frames] == [0, 2, 4, 6, 7]
    assert film.frames[0].kept == ()
    assert all(len(kept) == 36 for frame in film.frames[1:] for kept in frame.kept)
    assert all(image.shape == (64, 64, 3) for frame in film.frames for image in frame.images)


def test_workers_are_told_to_use_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("LP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    threads = WorkerSpec(Source(f"{FAKES}:ThreadsSuite"), Source("expert"), threads=3)
    record = run(threads, [0])[DENSE, 0]
    assert record.task == "OMP_NUM_THREADS=1 LP_NUM_THREADS=1"  # the simulator's, not the policy's
    assert dict(os.environ) == before


def test_a_policy_that_does_not_fit_is_refused_by_name():
    with pytest.raises(RolloutError, match=r"reads view 'chest', suite fake shows front, wrist"):
        run(spec(policy="ChestPolicy"), [0])


def test_a_policy_that_reads_less_gets_its_own_views_in_its_own_order():
    record = run(spec(policy="WristPolicy"), [1])[DENSE, 1]
    assert record.outcome == "success"


@pytest.mark.alone
def test_the_overhead_of_a_query_is_small():
    """Pipes, pickling and bookkeeping; the fake suite's own drawing takes most of what is left."""
    seeds, cells = range(12), (DENSE,)
    with Pool(spec(), 1) as pool:
        list(pool.run([Job(DENSE, 100)]))
        began = time.perf_counter()
        done = list(pool.run(Job(c, s, swap=True) for s in seeds for c in cells))
    queries = sum(len(d.record.query_ms) for d in done)
    assert queries >= 200
    assert (time.perf_counter() - began) / queries < 0.005  # half a millisecond on an idle core


def test_nothing_is_left_running_when_the_supervisor_is_killed():
    """Even SIGKILL of the parent ends its workers and their simulators."""
    script = (
        "import sys, time\n"
        "from sim.rollout.pool import Pool\n"
        "from sim.rollout.types import Job, Cell\n"
        "from tests.sim.test_pool import spec\n"
        "if __name__ == '__main__':\n"
        "    with Pool(spec(policy='HangingPolicy'), 1) as pool:\n"
        "        print('go', flush=True)\n"
        "        list(pool.run([Job(Cell('dense', 1.0), 0)]))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline().strip() == "go"
    deadline = time.monotonic() + 20
    while len(descendants(parent.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    family = descendants(parent.pid)
    assert len(family) >= 2
    time.sleep(1.0)
    parent.kill()
    parent.wait()
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in family if alive(pid)]


def descendants(pid: int) -> list[int]:
    found = []
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []
    for child in children:
        found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
