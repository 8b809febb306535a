"""Chunks become rows: at their time, blended at seams, never from a world that is gone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from policy.contract import Execution
from policy.robot.broker import Broker, Plan


def broker(mode="sequential", execute=4, horizon=8, **options) -> Broker:
    execution = Execution(mode=mode, deadline_ms=100.0, hang_s=1.0, **options)
    return Broker(execution, execute, horizon, 0.1)


def chunk(value, rows=8):
    return np.column_stack([np.full(rows, float(value)), np.arange(rows), np.full(rows, value)])


def test_sequential_runs_what_it_should_and_waits_for_a_look_after_it():
    b, plan = broker(settle_ms=50.0), Plan()
    assert b.wants(plan, 1.0)
    plan, dropped = b.adopt(plan, chunk(1), 1.0, 0, 1.0)
    assert dropped is None
    taken = []
    for i in range(6):
        plan, row = b.take(plan, 1.0 + 0.1 * i)
        taken.append(None if row is None else row[1])
    assert taken == [0, 1, 2, 3, None, None]
    assert not b.wants(plan, 1.34)  # the picture was taken before the last row had settled
    assert b.wants(plan, 1.36)


def test_an_answer_of_an_earlier_epoch_is_dropped():
    b, plan = broker(), Plan()
    plan = b.drop(plan)
    after, dropped = b.adopt(plan, chunk(1), 1.0, 0, 1.0)
    assert after == plan
    assert dropped == "answer of epoch 0 dropped, the present one is 1"


def test_overlap_asks_early_and_joins_where_time_is():
    b, plan = broker("overlap"), Plan()
    plan, _ = b.adopt(plan, chunk(1), 1.0, 0, 1.0)
    for i in range(4):
        assert not b.wants(plan, 1.0 + 0.1 * i)
        plan, _ = b.take(plan, 1.0 + 0.1 * i)
    assert b.wants(plan, 1.4)
    plan, _ = b.take(plan, 1.4)  # the old chunk goes on while the answer is awaited
    plan, dropped = b.adopt(plan, chunk(2), 1.4, 0, 1.5)
    assert dropped is None
    plan, row = b.take(plan, 1.5)
    assert row.tolist() == [2.0, 1.0, 2.0]  # its second row: one period has passed
    _, dropped = b.adopt(plan, chunk(3), 1.0, 0, 2.0)
    assert dropped == "answer dropped, all 8 rows were due before it came"


def test_a_seam_is_frozen_then_faded_and_the_gripper_is_never_half_open():
    b, plan = broker("overlap", freeze_rows=1, blend_rows=2), Plan()
    plan, _ = b.adopt(plan, chunk(0), 1.0, 0, 1.0)
    plan, _ = b.adopt(plan, chunk(3), 1.1, 0, 1.1)
    values = []
    while plan.left:
        plan, row = b.take(plan, 0.0)
        values.append((round(row[0], 6), row[2]))
    assert values[:4] == [(0.0, 0.0), (1.0, 3.0), (2.0, 3.0), (3.0, 3.0)]
    assert plan.seam == 3.0


@given(
    st.integers(0, 3), st.integers(0, 4), st.integers(1, 8), st.lists(st.integers(0, 9), max_size=5)
)
def test_blending_stays_between_old_and_new_and_ends_in_the_new(freeze, blend, execute, lags):
    b, plan = broker("overlap", execute, freeze_rows=freeze, blend_rows=blend), Plan()
    now, value = 1.0, 0.0
    plan, _ = b.adopt(plan, chunk(0), now, 0, now)
    for lag in lags:
        before, value = value, value + 1
        plan, dropped = b.adopt(plan, chunk(value), now, 0, now + 0.1 * lag)
        if dropped:
            assert lag >= 8
            value = before
            continue
        rows = plan.rows[plan.cursor :]
        assert rows[:, 0].min() >= 0.0
        assert rows[:, 0].max() <= value
        assert (np.diff(rows[freeze + blend :, 0]) == 0).all()
        assert set(rows[:, 2]) <= {float(v) for v in range(int(value) + 1)}
        plan, _ = b.take(plan, now)
