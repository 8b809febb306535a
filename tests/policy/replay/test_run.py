"""Replays repeat themselves and what was live, bit for bit, memory included."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from policy.contract import Image, JointState
from policy.replay.live import SessionTape
from policy.replay.messages import decode, encode
from policy.replay.open import Options, open_episode
from policy.replay.redact import redact
from policy.replay.run import Actor, Pace, replay
from policy.replay.trace import Trace
from policy.robot.session import Now, Session
from policy.types import Timing
from tests.policy.replay import makers


def walk(found, actors, pace=None):
    """Traces of all actors, and the moments."""
    traces = [Trace(actor.name) for actor in actors]
    moments = list(replay(found, actors, lambda look: look, pace or Pace(execute=2)))
    for moment in moments:
        for trace, answer in zip(traces, moment.answers, strict=bool(moment.answers)):
            trace.add(moment, answer)
    return traces, moments


def test_twice_is_the_same_and_actors_do_not_mix():
    found = makers.episode(12)
    actors = [Actor("a", makers.MemoryPolicy()), Actor("b", makers.MemoryPolicy(4))]
    first, _ = walk(found, actors)
    again, _ = walk(found, actors)
    alone, _ = walk(found, [Actor("b", makers.MemoryPolicy(4))])
    assert [str(t.digest) for t in first] == [str(t.digest) for t in again]
    assert str(first[1].digest) == str(alone[0].digest) != str(first[0].digest)


def test_queries_are_due_when_rows_are_used_up():
    policy = makers.MemoryPolicy()
    (trace,), moments = walk(makers.episode(11), [Actor("a", policy)], Pace(execute=4))
    assert [answer.row for answer in trace.answers] == [0, 4, 8]
    assert [moment.look is not None for moment in moments] == [n % 4 == 0 for n in range(11)]
    executed = trace.executed(11, 4)
    for answer in trace.answers:
        chunk = answer.chunk.actions[: 11 - answer.row]
        np.testing.assert_array_equal(executed[answer.row : answer.row + 4], chunk)


def test_limit_counts_looks():
    _, moments = walk(makers.episode(11), [], Pace(limit=3, decode_all=True))
    assert len(moments) == 3
    assert all(moment.look is not None for moment in moments)


def test_realtime_waits_for_the_recordings_clock():
    began = time.monotonic()
    walk(makers.episode(5), [], Pace(realtime=True))
    assert time.monotonic() - began >= 4 / makers.RATE_HZ - 0.01


def test_looks_are_decoded_only_for_those_who_look():
    found, decoded = makers.episode(10), []
    object.__setattr__(found, "look_at", lambda n: decoded.append(n) or makers.looks(10)[n])
    walk(found, [Actor("a", makers.MemoryPolicy())], Pace(execute=5))
    assert decoded == [0, 5]


def test_a_look_that_nobody_may_act_on_is_counted_and_skipped():
    found, looks = makers.episode(6), makers.looks(6)
    looks[2] = looks[2]._replace(images=(np.zeros((32, 32, 3), np.uint8),) * 2)
    object.__setattr__(found, "look_at", looks.__getitem__)
    (trace,), _ = walk(found, [Actor("a", makers.MemoryPolicy())], Pace(execute=2))
    assert [answer.number for answer in trace.answers] == [0, 3, 5]
    assert found.losses.counts == {"refused_observations": 1}


class Live:
    """A session on messages of a real bag's kind, recorded as a node records them."""

    def __init__(self, folder, policy, redaction="none"):
        self.contract, self.policy = makers.contract(), policy
        spec = policy.action_spec
        self.session = Session(self.contract, policy.observation_spec, spec, policy.execute)
        self.session.instruct(makers.WORDS, Now(0.5, 0.5))
        self.tape = SessionTape(
            folder,
            self.contract,
            lambda message: encode(message, message.__msgtype__),
            facts={"policy": "made"},
            redaction=redaction,
        )
        self.tape.instruction(makers.WORDS, 500_000_000)
        self.answered = []

    def moment(self, i, *, late=False, between=None):
        _, messages = makers.sent(i)
        for topic, kind, data, log_ns in messages:
            message = decode(data, kind)
            assert self.tape.message(topic, kind, message, log_ns)
            now = Now(log_ns * 1e-9, log_ns * 1e-9)
            if kind == Image:
                self.session.image(topic[1:], message, now)
            elif kind == JointState:
                self.session.state(topic, message, now)
        now = Now(messages[-1][3] * 1e-9 + 0.001, messages[-1][3] * 1e-9 + 0.001)
        question = self.session.ask(now)
        if question is not None:
            self._answer(question, now, late, between)
        for _ in range(2):
            self.session.tick(now)

    def _answer(self, question, now, late, between):
        observation = self.session.look(question)
        state = self.policy.initial_state() if question.memory is None else question.memory
        inference = self.policy.infer(observation, state)
        stamp = round(now.ros_s * 1e9) + 1
        assert self.tape.answered(question, observation, inference, "made @ 5", stamp)
        self.answered.append(inference.chunk)
        if between:
            between()
        self.session.answer(question, inference, Now(now.ros_s, now.mono_s + (0.6 if late else 0)))


def test_a_live_session_replays_to_the_very_same_decisions(tmp_path):
    """With late answers, dropped epochs and a new instruction in between."""
    live = Live(tmp_path / "bag", makers.MemoryPolicy(5))
    live.session.mover.rows = lambda actions, now_s: np.asarray(actions, np.float64)
    live.session.mover.move = lambda row, ahead, now_s: SimpleNamespace(
        _replace=lambda **_: None, safe=""
    )
    for i in range(16):
        live.moment(
            i,
            late=i == 4,
            between=(lambda: live.session.new_epoch("test")) if i == 9 else None,
        )
    assert live.tape.close().state == "closed"
    assert len(live.answered) >= 7
    found = open_episode(tmp_path / "bag")  # it holds the contract
    (trace,), _ = walk(found, [Actor("made @ 5", makers.MemoryPolicy(5))])
    assert not found.losses.any
    rows = np.concatenate([step.rows for step in found.steps()])
    np.testing.assert_allclose(rows[-5:], makers.actions(16)[-5:], rtol=1e-6)
    assert found.info.facts == {"policy": "made", "redaction": "none"}
    assert trace.parity.decisions == trace.parity.own == len(live.answered)
    assert trace.parity.same_actions == trace.parity.same_kept == len(live.answered)
    begun = [(step.decision.number, step.decision.after) for step in found.steps()]
    assert sum(after is None for _, after in begun) >= 2  # at first, and after the new epoch
    assert any(after is not None and after < number - 1 for number, after in begun)  # the late one
    for answer, chunk in zip(trace.answers, live.answered, strict=True):
        np.testing.assert_array_equal(answer.chunk.actions, chunk.actions)


def test_parity_sees_a_single_bit(tmp_path):
    live = Live(tmp_path / "bag", makers.MemoryPolicy(5))
    for i in range(3):
        live.moment(i)
    live.tape.close()

    class Rounded(makers.MemoryPolicy):
        def infer(self, observation, state):
            inference = super().infer(observation, state)
            inference.chunk.actions[0, 0] = np.nextafter(
                inference.chunk.actions[0, 0], np.float32(np.inf)
            )
            return inference

    found = open_episode(tmp_path / "bag", 0, Options(contract=makers.contract()))
    (trace,), _ = walk(found, [Actor("again", Rounded(5))])
    assert trace.parity.decisions > 0
    assert trace.parity.same_actions == 0


@pytest.mark.parametrize(("redaction", "pictures"), [("mosaic", 3), ("drop", 0)])
def test_a_redacted_session_keeps_decisions_and_no_pictures(tmp_path, redaction, pictures):
    live = Live(tmp_path / "bag", makers.MemoryPolicy(5), redaction)
    for i in range(3):
        live.moment(i)
    assert live.tape.health().state == "recording"
    assert live.tape.close({"outcome": "stopped"}).dropped == 0
    with Reader(tmp_path / "bag") as reader:
        counts = {c.topic: c.msgcount for c in reader.connections}
        shown = [(c, data) for c, _, data in reader.messages() if c.topic == "/front"]
    assert counts["/leanvla/decision"] == len(live.answered) > 0
    assert len(shown) == pictures
    for i, (connection, data) in enumerate(shown):
        drawn = decode(data, connection.msgtype)
        seen = makers.looks(3)[i].images[0]
        assert (drawn.width, drawn.height, drawn.encoding) == (32, 32, "rgb8")
        np.testing.assert_array_equal(drawn.data.reshape(seen.shape), redact(seen, "mosaic"))


def test_mini_repeats_itself_dense_and_pruned():
    """The real policy, torch and history and all, on pictures of noise."""
    from policy.registry import load_policy
    from policy.replay.types import ArrayEpisode, EpisodeInfo, Look

    policies = [
        load_policy("mini"),
        load_policy("mini", method="vla_pruner", keep=0.25),
        load_policy("mini", method="random", keep=0.25),
    ]
    spec = policies[0].observation_spec
    rng = np.random.default_rng(0)
    looks = [
        Look(
            tuple(rng.integers(0, 256, (96, 96, 3), np.uint8) for _ in spec.views),
            rng.normal(size=len(spec.state_names)).astype(np.float32),
        )
        for _ in range(5)
    ]
    info = EpisodeInfo("made", "memory", spec, policies[0].action_spec, 20.0, "pick the red cube")
    found = ArrayEpisode(info, np.zeros((5, 7), np.float32), looks.__getitem__)
    actors = [Actor(str(n), policy) for n, policy in enumerate(policies)]
    first, _ = walk(found, actors, Pace(execute=1))
    again, _ = walk(found, actors, Pace(execute=1))
    assert [str(t.digest) for t in first] == [str(t.digest) for t in again]
    assert len({str(t.digest) for t in first}) == 3
    assert [len(t.kept(4)[0]) for t in first] == [144, 36, 36]


@pytest.mark.alone
@pytest.mark.parametrize("steps", [100])
def test_decoding_is_far_faster_than_real_time(tmp_path, steps):
    bag = makers.write_bag(tmp_path / "bag", steps)
    found = open_episode(bag, 0, Options(contract=makers.contract()))
    began = time.process_time()
    _, moments = walk(found, [], Pace(decode_all=True))
    spent = time.process_time() - began
    covered_s = moments[-1].step.stamp_s - moments[0].step.stamp_s
    print(f"\n{covered_s / spent:.0f} x real time")
    assert covered_s / spent > 10


def test_timing_is_what_the_policy_says():
    (trace,), _ = walk(makers.episode(2), [Actor("a", makers.MemoryPolicy(slow_ms=7.0))])
    assert isinstance(trace.answers[0].timing, Timing)
    assert trace.answers[0].timing.query_ms == 7.0
