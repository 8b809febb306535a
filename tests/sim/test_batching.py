"""One policy asked from many threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sim.rollout.batching import Batcher, BatchError


class Counting:
    """Answers with what it was asked, slowly, and remembers the size of every batch."""

    def __init__(self, fault: bool = False) -> None:
        self.sizes: list[int] = []
        self.fault = fault

    def infer_batch(self, observations, states):
        self.sizes.append(len(observations))
        time.sleep(0.02)
        if self.fault:
            raise RuntimeError("out of memory")
        return [(o, s) for o, s in zip(observations, states, strict=True)]


def ask(batcher, environments, rounds):
    def live(environment):
        for step in range(rounds):
            assert batcher.infer(environment, step) == (environment, step)

    threads = [threading.Thread(target=live, args=(e,)) for e in range(environments)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_whoever_waits_shares_the_next_pass_and_gets_its_own_answer():
    policy = Counting()
    with ThreadPoolExecutor(1) as runner:
        ask(Batcher(policy, 3, runner), environments=6, rounds=5)
    assert sum(policy.sizes) == 30
    assert max(policy.sizes) == 3
    assert len(policy.sizes) < 20


def test_a_lone_environment_waits_for_nobody():
    policy = Counting()
    with ThreadPoolExecutor(1) as runner:
        ask(Batcher(policy, 8, runner), environments=1, rounds=3)
    assert policy.sizes == [1, 1, 1]


def test_everybody_in_a_pass_that_fails_is_told():
    with ThreadPoolExecutor(1) as runner:
        batcher = Batcher(Counting(fault=True), 8, runner)
        with pytest.raises(RuntimeError, match="out of memory"):
            batcher.infer(0, 0)


def test_a_policy_that_cannot_batch_is_refused():
    with pytest.raises(BatchError, match="object has no infer_batch"), ThreadPoolExecutor(1) as r:
        Batcher(object(), 2, r)
