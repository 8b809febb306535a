"""Simulators and workers that hang, crash or raise: lost, tried once more, then an error."""

from __future__ import annotations

import os
import signal
import time

import pytest

from sim.rollout.ledger import ERRORS_IN_A_ROW
from sim.rollout.pool import Pool
from sim.rollout.types import Cell, Deadlines, Job, RolloutError, Source
from sim.rollout.worker import WorkerSpec

DENSE = Cell("dense", 1.0)
FAKES = "tests.sim.fakes"
REASONS = {
    "hang": "simulator gave no answer to `advance` in 0.7 s",
    "kill": "simulator was ended by SIGKILL during `advance`",
    "exit": "simulator exited with 7 during `advance`",
    "raise": "simulator raised in `advance`: FloatingPointError: physics exploded",
}


def spec(suite="FakeSuite", policy="FakePolicy", start=20.0, log=None, **options) -> WorkerSpec:
    return WorkerSpec(
        Source(f"{FAKES}:{suite}", options),
        Source(f"{FAKES}:{policy}"),
        deadlines=Deadlines(start=start, request=0.7, query=1.0),
        log=log,
    )


def run(spec, seeds=range(4), workers=2):
    with Pool(spec, workers) as pool:
        return {done.record.seed: done.record for done in pool.run(Job(DENSE, s) for s in seeds)}


@pytest.mark.parametrize("fault", REASONS)
def test_a_simulator_lost_twice_makes_an_error_of_that_episode_only(fault):
    records = run(spec("FaultySuite", fault=fault, seeds=[1]))
    assert [records[s].outcome for s in range(4)] == ["success", "error", "success", "success"]
    assert records[1].error == REASONS[fault]
    assert records[1].retries == 1
    assert records[1].query_ms == []


@pytest.mark.parametrize("fault", REASONS)
def test_a_simulator_lost_once_is_tried_again_and_counts_as_usual(fault, tmp_path):
    records = run(spec("FaultySuite", fault=fault, seeds=[1], once=str(tmp_path)))
    assert [records[s].outcome for s in range(4)] == ["success"] * 4
    assert [records[s].retries for s in range(4)] == [0, 1, 0, 0]
    assert records[1].error is None


def test_a_lost_simulator_leaves_no_process_behind(tmp_path):
    run(spec("FaultySuite", fault="hang", seeds=[1], pids=str(tmp_path)), workers=1)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 3  # hung, hung again, healthy
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_that_dies_is_replaced_and_the_episode_is_an_error():
    records = run(spec(policy="DyingPolicy"), seeds=[0, 1], workers=1)
    assert {record.outcome for record in records.values()} == {"error"}
    assert {record.error for record in records.values()} == {"worker was ended by SIGSEGV"}
    assert {record.retries for record in records.values()} == {1}


def test_a_silent_worker_is_ended():
    began = time.monotonic()
    (record,) = run(spec(policy="HangingPolicy", start=4.0), seeds=[0], workers=1).values()
    assert record.outcome == "error"
    assert record.error == "worker gave no sign of life in 5.7 s"
    assert time.monotonic() - began < 30


def test_a_worker_killed_while_idle_costs_nothing():
    with Pool(spec(), 1) as pool:
        (first,) = pool.run([Job(DENSE, 0)])
        pid = pool._workers[0].child._process.pid
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        (second,) = pool.run([Job(DENSE, 1)])
    assert (first.record.outcome, second.record.outcome) == ("success", "success")
    assert second.record.retries == 1


def test_a_policy_that_raises_stops_the_run_and_is_named(tmp_path):
    log = tmp_path / "workers.log"
    with pytest.raises(RolloutError, match=r"RaisingPolicy.*seed 0: RuntimeError: weights") as stop:
        run(spec(policy="RaisingPolicy", log=str(log)), workers=1)
    assert stop.value.exit_code == 1
    assert "Traceback" in log.read_text()


def test_a_suite_that_cannot_stand_stops_the_run():
    with pytest.raises(RolloutError, match="cannot start: ValueError: no assets here") as stop:
        run(spec("UnbuildableSuite"))
    assert stop.value.exit_code == 3


def test_a_name_that_cannot_be_imported_stops_the_run():
    with pytest.raises(RolloutError, match=r"cannot import 'tests.sim.fakes:Nothing'"):
        run(spec("Nothing"))


def test_a_simulator_that_always_fails_stops_the_run_early():
    with pytest.raises(RolloutError, match=f"{ERRORS_IN_A_ROW} episodes in a row were lost"):
        run(spec("FaultySuite", fault="raise", seeds=list(range(50))), seeds=range(50))


def test_what_a_simulator_prints_does_not_reach_stdout(capfd, tmp_path):
    log = tmp_path / "workers.log"
    run(spec("TalkativeSuite", log=str(log)), seeds=[0], workers=1)
    assert capfd.readouterr().out == ""
    assert "hello from the physics" in log.read_text()
