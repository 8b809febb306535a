"""Policies that are slow, hang, or raise."""

from __future__ import annotations

from tests.policy.robot.fakes import Rig, inference


def waiting(robot: str = "tabletop"):
    """A robot that has moved, and whose policy has just been asked."""
    rig = Rig(robot)
    rig.start()
    for _ in range(12):
        rig.wait(rig.contract.period_s)
        rig.sense()
        question = rig.session.ask(rig.now)
        if question is not None and rig.session.ledger.counters.get("chunks"):
            return rig, question
        if question is not None:
            rig.session.answer(question, inference(rig.chunk()), rig.now)
        rig.session.tick(rig.now)
    raise AssertionError("never asked")


def drive(rig: Rig, seconds: float):
    outputs = []
    for _ in range(round(seconds / rig.contract.period_s)):
        rig.wait(rig.contract.period_s)
        rig.sense()
        outputs.append(rig.session.tick(rig.now))
    return outputs


def test_a_chunk_goes_on_to_its_horizon_then_the_robot_is_made_safe():
    rig, question = waiting("so101")
    outputs = drive(rig, 1.5)
    moved = [o for o in outputs if not o.safe]
    assert len(moved) >= rig.session.plan.left
    assert outputs[-1].safe == "no chunk within the deadline"
    assert rig.session.watchdog.missed == 1
    assert not rig.session.answer(question, inference(rig.chunk()), rig.now)
    assert rig.session.ledger.notes["answer"] == "answer came after its deadline"
    again = [rig.step() for _ in range(5)]
    assert not again[-1].safe


def test_an_answer_within_the_deadline_is_used():
    rig, question = waiting()
    drive(rig, 0.3)
    assert rig.session.answer(question, inference(rig.chunk()), rig.now)
    assert rig.session.watchdog.missed == 0
    assert not rig.session.tick(rig.now).safe


def test_inference_that_hangs_latches_a_fault_and_asks_nothing_more():
    rig, question = waiting()
    outputs = drive(rig, 21.0)
    assert outputs[-1].safe == "inference hangs: no answer in 20 s"
    assert rig.session.fault
    assert rig.session.ask(rig.now) is None
    assert not rig.session.answer(question, inference(rig.chunk()), rig.now)


def test_a_policy_that_raises_is_named_and_latched():
    rig, question = waiting()
    rig.session.failed(question, RuntimeError("CUDA error: device lost"), rig.now)
    output = rig.session.tick(rig.now)
    assert output.safe == "the policy failed: RuntimeError: CUDA error: device lost"
    assert not output.command.values.any()


def test_taken_down_while_it_thinks_the_robot_is_safe_and_the_late_answer_dropped():
    rig, question = waiting()
    out = rig.session.halt("deactivated", rig.now)
    assert out.safe == "deactivated"
    assert not out.command.values.any()
    rig.wait(0.1)
    assert not rig.session.answer(question, inference(rig.chunk()), rig.now)
    assert "answer of epoch" in rig.session.ledger.notes["answer"]
    rig.sense()
    assert rig.session.tick(rig.now).command is None  # from here on the robot is not ours


def test_at_most_one_question_is_under_way():
    rig, _ = waiting()
    for _ in range(20):
        rig.wait(0.01)
        rig.sense()
        assert rig.session.ask(rig.now) is None


def test_the_same_messages_and_times_give_the_same_commands():
    def run():
        rig = Rig("tabletop")
        rig.start()
        return [rig.step(rig.chunk(0.01 * i)) for i in range(60)]

    for one, other in zip(run(), run(), strict=True):
        assert one.safe == other.safe
        assert (one.command is None) == (other.command is None)
        if one.command is not None:
            assert one.command.values.tobytes() == other.command.values.tobytes()
