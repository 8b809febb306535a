"""What runs the rungs of a node: engines where there are any, torch and a reason elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from leanvla_ros.ladder import Ladder
from leanvla_ros.parameters import contract_path
from leanvla_ros.runtimes import EngineChoiceError, choose_runtimes

from engines.errors import EngineError
from policy.contract_file import read_contract
from policy.registry import load_policy
from policy.types import Observation

DENSE, QUARTER, HALF = ("dense", 1.0), ("vla_pruner", 0.25), ("vla_pruner", 0.5)


def observations(policy, count):
    rng = np.random.default_rng(3)
    state = np.zeros(len(policy.observation_spec.state_names), np.float32)
    for number in range(count):
        images = tuple(rng.integers(0, 256, (96, 96, 3), np.uint8) for _ in range(2))
        yield Observation(images, state, "push the red cube", stamp_s=0.2 * number)


def test_rungs_with_graphs_run_on_the_engine_and_others_say_why_not():
    found = choose_runtimes("mini", [DENSE, QUARTER, ("random", 0.5)], "auto")
    assert found[DENSE].engine
    assert found[DENSE] == found[QUARTER]
    torch = found["random", 0.5]
    assert (torch.source, torch.engine) == ("mini", "")
    assert "random" in torch.note


def test_torch_and_other_devices_leave_the_engine_out():
    (asked,) = choose_runtimes("mini", [QUARTER], "torch").values()
    assert (asked.source, asked.engine, asked.note) == ("mini", "", "")
    (elsewhere,) = choose_runtimes("mini", [QUARTER], "auto", "cuda").values()
    assert elsewhere.engine == ""
    assert "cuda" in elsewhere.note


def test_an_engine_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(EngineChoiceError, match="export"):
        choose_runtimes("mini", [QUARTER], str(tmp_path))
    (packed,) = choose_runtimes("mini", [QUARTER], "auto").values()
    with pytest.raises(EngineError, match="other weights"):
        choose_runtimes("mini-ar", [DENSE], packed.engine)
    with pytest.raises(EngineChoiceError, match="brings its own"):
        choose_runtimes(packed.engine, [DENSE], packed.engine)
    with pytest.raises(EngineChoiceError, match="brings its own"):
        choose_runtimes("module:callable", [DENSE], packed.engine)


def test_rungs_share_an_engine_and_answer_as_if_alone():
    contract = read_contract(contract_path("tabletop"))
    ladder = Ladder("mini", [QUARTER, HALF], contract, engine="auto")
    quarter, half = (ladder.find(*rung).policy for rung in (QUARTER, HALF))
    assert quarter.engine is half.engine
    assert ladder.current.runs_on.startswith("onnxruntime cpu")
    folder = ladder.current.engine
    alone = [load_policy(folder, method=method, keep=keep) for method, keep in (QUARTER, HALF)]
    states = [policy.initial_state() for policy in (quarter, half, *alone)]
    for observation in observations(quarter, 4):
        answers = []
        for number, policy in enumerate((quarter, half, *alone)):
            answer, states[number], _ = policy.infer(observation, states[number])
            answers.append(answer)
        for mine, other in zip(answers[:2], answers[2:], strict=True):
            assert np.array_equal(mine.actions, other.actions)
            assert all(np.array_equal(*both) for both in zip(mine.kept, other.kept, strict=True))
