from __future__ import annotations

import json

import pytest

from engines.profile.conditions import Reading
from engines.profile.measure import Sample, Schedule, Spent, measure
from engines.profile.samples import FILE, SamplesError, read_samples, to_lines
from engines.profile.summary import NothingMeasuredError, summarise
from engines.profile.trace import chrome_trace, first_rounds


def cells(log: list[tuple[str, int]], warm_rounds: int = 0):
    def cell(name: str):
        def query(number: int) -> Spent:
            log.append((name, number))
            spans = (("vision", 0.0, 0.002), ("head", 0.002, 0.003), ("vision", 0.003, 0.004))
            return Spent(spans, warmup=name == "memory" and number < warm_rounds)

        return query

    return {name: cell(name) for name in ("dense", "memory", "random")}


def test_every_cell_answers_every_round_once_in_an_order_drawn_anew():
    log: list[tuple[str, int]] = []
    samples = measure(cells(log), Schedule(rounds=6, warmup=2, seed=1))
    rounds = [[name for name, number in log if number == i] for i in range(8)]
    assert all(sorted(order) == ["dense", "memory", "random"] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 2
    assert len(samples) == 24
    assert {sample.round for sample in samples if sample.warmup} == {0, 1}


def test_a_cell_may_say_that_it_is_still_warming_up():
    samples = measure(cells([], warm_rounds=3), Schedule(rounds=4, warmup=1))
    warm = {(s.cell, s.round) for s in samples if s.warmup}
    assert warm == {("dense", 0), ("random", 0), ("memory", 0), ("memory", 1), ("memory", 2)}
    found = summarise(samples, "dense")
    assert found["memory"]["queries"] == 2
    assert found["memory"]["speedup"]["rounds"] == 2
    assert found["memory"]["warmup"]["queries"] == 3


def test_the_device_is_waited_for_before_and_after_every_query():
    log: list[str] = []

    def query(number: int) -> Spent:
        log.append("query")
        return Spent()

    measure({"a": query}, Schedule(2, 0), synchronize=lambda: log.append("wait"))
    assert log == ["wait", "query", "wait"] * 2


def test_a_throttled_round_marks_its_samples():
    looks = iter([(), ("GPU: power cap",), ()])
    samples = measure(
        cells([]), Schedule(rounds=3, warmup=0), read=lambda: Reading(0.0, {}, next(looks))
    )
    assert {s.round for s in samples if s.throttled} == {1}
    assert summarise(samples, "dense")["random"]["throttled_queries"] == 1


def test_nothing_but_warm_up_is_refused():
    samples = measure(cells([], warm_rounds=9), Schedule(rounds=2, warmup=1))
    with pytest.raises(NothingMeasuredError, match=r"memory: no query after the warm-up.*--rounds"):
        summarise(samples, "dense")


@pytest.mark.parametrize(("rounds", "warmup"), [(0, 1), (-1, 0), (5, -1)])
def test_impossible_schedules_are_refused(rounds, warmup):
    with pytest.raises(ValueError, match="give"):
        Schedule(rounds, warmup)


def test_parts_and_gap_add_up_and_phases_may_come_twice():
    sample = Sample("a", 0, 0.0, 5.0, 4.0, (("v", 0.0, 1.0), ("h", 1.0, 3.5), ("v", 3.5, 4.0)))
    assert sample.phase_ms == {"v": 1.5, "h": 2.5}
    assert sample.gap_ms == pytest.approx(1.0)


def test_speed_up_is_of_the_same_rounds():
    fast = [Sample("fast", i, 0.0, 5.0 + i % 3, 2.0) for i in range(30)]
    slow = [Sample("dense", i, 0.0, 2 * (5.0 + i % 3), 8.0) for i in range(30)]
    found = summarise([*fast, *slow], "dense")["fast"]
    assert found["speedup"]["p50"] == pytest.approx(2.0)
    assert found["speedup"]["ci95"][0] == pytest.approx(2.0)
    assert found["cpu_speedup"]["p50"] == pytest.approx(4.0)
    assert found["cpu_share"] == pytest.approx(60 / sum(s.query_ms for s in fast))


def test_the_trace_lays_phases_into_their_query():
    samples = measure(cells([]), Schedule(rounds=4, warmup=2))
    shown = first_rounds(samples, 2)
    assert {sample.round for sample in shown} == {0, 2, 3}
    trace = json.loads(json.dumps(chrome_trace(shown, "a & b")))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) == 9 * 4
    rows = {e["args"]["name"]: e["tid"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert set(rows) == {"dense", "memory", "random"}
    for query in (e for e in events if e["name"].startswith("query")):
        parts = [e for e in events if e["tid"] == query["tid"] and e["name"] in ("vision", "head")]
        inside = [e for e in parts if query["ts"] <= e["ts"] <= query["ts"] + query["dur"] + 5]
        assert len(inside) >= 3


def test_samples_survive_the_disk(tmp_path):
    samples = measure(cells([]), Schedule(rounds=3, warmup=1))
    (tmp_path / FILE).write_text(to_lines(samples))
    again = read_samples(tmp_path)
    assert [s.cell for s in again] == [s.cell for s in samples]
    assert again[4].query_ms == pytest.approx(samples[4].query_ms, abs=1e-4)
    assert again[4].spans == samples[4].spans


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"cell": "a"}', '{"cell":"a","round":0,"start_s":0,"query_ms":"fast","cpu_ms":1}'],
)
def test_damaged_samples_name_file_and_line(tmp_path, line):
    good = to_lines([Sample("a", 0, 0.0, 1.0, 1.0)])
    (tmp_path / FILE).write_text(good + line + "\n")
    with pytest.raises(SamplesError, match=r"samples.jsonl:2 is damaged"):
        read_samples(tmp_path)


def test_no_samples_at_all_say_what_to_give(tmp_path):
    with pytest.raises(SamplesError, match="leanvla profile"):
        read_samples(tmp_path)
